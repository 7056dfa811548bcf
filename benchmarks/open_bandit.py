"""Open Bandit (Saito et al. 2021): 60,000 impressions of a fashion shop, 0.5 % clicked; fetched, never committed.

The small part of the data that travels inside the `obp` wheel on PyPI: three campaigns under two policies. It names no
users: people of equal features count as one.
"""

import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_REQUIREMENT = "obp==0.4.1"
_SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
_COLUMNS = ("user_id", "item_id", "timestamp", "click", "campaign", "position", *(f"feature_{i}" for i in range(4)))


def fetch(folder: Path) -> str:
    """Put the logs into `folder`/open_bandit.csv, where they are not there yet, and return that path."""
    path = folder / "open_bandit.csv"
    if path.exists():
        return str(path)
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", temporary, _REQUIREMENT]
        subprocess.run(command, check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ValueError(f"{_REQUIREMENT}: the wheel has another checksum than it should")
    rows = []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for policy in ("random", "bts"):
            for campaign in ("all", "men", "women"):
                text = archive.read(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv").decode()
                for row in csv.DictReader(io.StringIO(text)):
                    features = [row[f"user_feature_{i}"][:8] for i in range(4)]
                    user = "-".join(feature[:4] for feature in features)
                    item = f"{campaign}-{row['item_id']}"
                    at = row["timestamp"].replace(" ", "T")
                    rows.append((user, item, at, row["click"], campaign, f"slot {row['position']}", *features))
    rows.sort(key=lambda row: row[2])
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    return str(path)
