"""MovieLens-100K as interaction logs: 100,000 ratings of 1,682 films by 943 people, 1997-1998.

Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.

The three tables travel inside the `recbole` wheel on PyPI, so whoever can install this project can fetch them. The
wheel is downloaded with pip, whose own configuration (index, proxy, certificates) thus holds, and is never installed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

TERMS = """\
MovieLens-100K belongs to GroupLens Research at the University of Minnesota, who let anyone use it for research.
You may not pass the data on, use it commercially or for revenue, or suggest that GroupLens endorses you, without their
permission; publications cite Harper and Konstan, "The MovieLens Datasets" (2015). They promise nothing about it.
So keep it out of version control and out of anything you ship."""

COLUMNS = (
    "user_id",
    "item_id",
    "rating",
    "timestamp",
    "age",
    "gender",
    "occupation",
    "zip_code",
    "title",
    "year",
    "genres",
)

_REQUIREMENT = "recbole==1.2.1"
_WHEEL = ("recbole-1.2.1-py3-none-any.whl", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
_MEMBERS = {
    "inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    "item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
_INTERACTIONS_SHA256 = "c3eae2080205f7f1f8ba1942c61a58bc161bd9753be9ed73caa799de0f083557"


class FetchError(Exception):
    """A data set could not be fetched, or is not what it should be. The message says what to do."""


def fetch(folder: str | Path, say: Callable[[str], None] = print) -> Path:
    """Put the logs into `folder`/interactions.tsv and return that path; one row a rating, the columns in `COLUMNS`.

    Timestamps are seconds since 1970 in UTC, genres are separated by `|`, an unknown year or genre is empty. The file
    appears whole by one rename, and where it already is and is right, nothing is downloaded. `say` gets each message,
    the terms of use first. Raises FetchError: no network, or a checksum that differs.
    """
    path = Path(folder) / "interactions.tsv"
    say(TERMS)
    if path.exists():
        if _sha256(path.read_bytes()) == _INTERACTIONS_SHA256:
            say(f"{path}: already there, checksum right")
            return path
        say(f"{path}: not what it was when fetched, so it is fetched again")
    with tempfile.TemporaryDirectory(prefix="movielens-") as downloads:
        tables = _read_tables(_download(Path(downloads)))
    content = join(tables["inter"], tables["user"], tables["item"]).encode()
    if _sha256(content) != _INTERACTIONS_SHA256:
        raise FetchError(f"the joined logs have sha256 {_sha256(content)}, expected {_INTERACTIONS_SHA256}: a defect")
    _write_whole(path, content)
    say(f"{path}: 100,000 ratings, {len(content) / 1e6:.1f} MB, checksums right")
    return path


def join(interactions: str, users: str, items: str) -> str:
    """Join RecBole's three tab-separated tables and return the logs as one tab-separated text with a header.

    Cells with a tab, a quote or a line break are quoted as in CSV, with `"` doubled. Raises KeyError for a rating of
    an unknown user or item.
    """
    user_cells = {row[0]: row[1:] for row in _rows(users)}
    item_cells = {
        item: [title, year if year.isdigit() else "", "|".join(g for g in genres.split(" ") if g != "unknown")]
        for item, title, year, genres in _rows(items)
    }
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for user, item, rating, timestamp in _rows(interactions):
        writer.writerow([user, item, rating, timestamp, *user_cells[user], *item_cells[item]])
    return out.getvalue()


def _rows(table: str) -> list[list[str]]:
    # RecBole writes cells as they are: no quoting, and the header's cells carry types.
    return [line.split("\t") for line in table.split("\n")[1:] if line]


def _download(folder: Path) -> Path:
    """Download the wheel into `folder` and return its path. Raises FetchError."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps"]
    command = [*pip, "--only-binary", ":all:", "--dest", str(folder), _REQUIREMENT]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        reason = (finished.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise FetchError(
            f"pip could not download {_REQUIREMENT}, which carries MovieLens-100K: {reason}\n"
            "Is the package index reachable from here? pip's own configuration names the index, mirror or proxy "
            f"(`{sys.executable} -m pip config list`)."
        )
    wheel = folder / _WHEEL[0]
    if not wheel.exists():
        raise FetchError(f"pip downloaded {sorted(p.name for p in folder.iterdir())}, expected {_WHEEL[0]}")
    _check(wheel.name, wheel.read_bytes(), _WHEEL[1])
    return wheel


def _read_tables(wheel: Path) -> dict[str, str]:
    tables = {}
    with zipfile.ZipFile(wheel) as archive:
        for kind, expected in _MEMBERS.items():
            name = f"recbole/dataset_example/ml-100k/ml-100k.{kind}"
            content = archive.read(name)
            _check(name, content, expected)
            tables[kind] = content.decode()
    return tables


def _check(name: str, content: bytes, expected: str) -> None:
    if _sha256(content) != expected:
        raise FetchError(
            f"{name}: sha256 is {_sha256(content)}, expected {expected}. The index that pip uses serves another file "
            "than PyPI does, or the download was damaged; nothing was kept."
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")  # hidden: a reader of the folder passes it over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise FetchError(f"{path}: cannot be written: {error.strerror}") from None
