"""Our ingest against TFX's stock CsvExampleGen executor on the same CSV, in one run.

    make bench-ingest

Ours does more: it checks every row, splits by each user's own time, counts cold rows and writes the catalogue.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import json_format
from tfx.components.example_gen.csv_example_gen import executor as stock
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts

from components.ingest import pipeline
from components.ingest.files import find_files
from components.ingest.splitting import SPLITS
from configs.data import Data
from configs.features import RawColumn

ROWS = 500_000
RUNNER = "--runner=FnApiRunner"
RAW = [
    RawColumn("user", "string", "user", None, ""),
    RawColumn("item", "string", "item", None, ""),
    RawColumn("price", "float", "item", None, float("nan")),
]


def write_csv(path: Path, rows: int) -> None:
    random = np.random.default_rng(1)
    columns = (
        random.zipf(1.3, rows) % 50_000,
        random.zipf(1.3, rows) % 10_000,
        1_700_000_000 + random.integers(0, 10_000_000, rows),
        random.integers(1, 6, rows),
        random.random(rows).round(2),
    )
    with path.open("w") as stream:
        stream.write("user,item,time,rating,price\n")
        stream.writelines(f"u{u},i{i},{t},{r},{p}\n" for u, i, t, r, p in zip(*columns, strict=True))


def run_ours(source: str, output: Path) -> None:
    data = Data.model_validate(
        {
            "source": source,
            "user": "user",
            "item": "item",
            "time": "time",
            "label": {"column": "rating", "positive": ">= 4"},
            "split": {"by": "user_time"},
        }
    )
    folders = {split: str(output / f"Split-{split}") for split in SPLITS}
    outputs = pipeline.Outputs(
        split=folders.__getitem__,
        catalogue=str(output / "catalogue"),
        dead_letters=str(output / "dead.jsonl"),
        counts=str(output / "counts.json"),
    )
    output.mkdir()
    with beam.Pipeline(options=PipelineOptions([RUNNER])) as root:
        pipeline.build(root, data, {c.name: c for c in RAW}, find_files(data, source), outputs, datetime.now(UTC))


def run_stock(folder: str, output: Path) -> None:
    def text(message) -> str:
        return json_format.MessageToJson(message, preserving_proto_field_name=True)

    buckets = [
        example_gen_pb2.SplitConfig.Split(name=n, hash_buckets=b) for n, b in zip(SPLITS, (8, 1, 1), strict=True)
    ]
    examples = standard_artifacts.Examples()
    examples.uri = str(output)
    executor = stock.Executor(stock.Executor.Context(beam_pipeline_args=[RUNNER], tmp_dir=str(output / "tmp")))
    executor.Do(
        {},
        {"examples": [examples]},
        {
            "input_base": folder,
            "input_config": text(
                example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="all", pattern="*.csv")])
            ),
            "output_config": text(example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=buckets))),
            "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
            "output_file_format": 5,  # gzipped TFRecords
        },
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        logs = folder / "logs"
        logs.mkdir()
        write_csv(logs / "events.csv", ROWS)
        seconds = {}
        for name, run in (("ours", lambda: run_ours(str(logs), folder / "ours")),
                          ("stock", lambda: run_stock(str(logs), folder / "stock"))):  # fmt: skip
            began = time.perf_counter()
            run()
            seconds[name] = round(time.perf_counter() - began, 1)
        counts = json.loads((folder / "ours" / "counts.json").read_text())
        assert sum(counts[f"{split}.rows"] for split in SPLITS) == ROWS
        print(
            json.dumps(
                {
                    "rows": ROWS,
                    "stock_seconds": seconds["stock"],
                    "our_seconds": seconds["ours"],
                    "ratio": round(seconds["stock"] / seconds["ours"], 1),
                }
            )
        )


if __name__ == "__main__":
    main()
