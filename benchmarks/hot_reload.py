"""The served folder under load: start the model server, ask over gRPC and REST, push a second version, count failures.

`make demo` ends with it. The second version holds the same model, so every answer must stay the same; the load is two
clients that ask without a pause until some seconds after the new version answers. Exit code 1 where a request failed or
an answer changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console

from configs import load_config
from pipeline.quiet import quiet
from serving.client import connect

SECONDS_AFTER = 3.0
START_SECONDS = 120.0


class Load(threading.Thread):
    """One client that asks for the same ranking again and again and counts what comes back."""

    def __init__(self, target: str, model: str, columns: dict, expected: np.ndarray, stop: threading.Event):
        super().__init__(daemon=True)
        self._arguments = (target, model, columns, expected, stop)
        self.answers = 0
        self.versions: Counter[int | None] = Counter()
        self.failures: list[str] = []
        self.slowest = 0.0

    def run(self) -> None:
        target, model, columns, expected, stop = self._arguments
        with connect(target, model, retries=0) as client:
            while not stop.is_set():
                began = time.perf_counter()
                try:
                    prediction = client.predict(columns, signature="rank")
                except Exception as error:
                    self.failures.append(str(error))
                    continue
                self.slowest = max(self.slowest, time.perf_counter() - began)
                self.answers += 1
                self.versions[prediction.version] += 1
                if not np.allclose(prediction.outputs["scores"], expected, atol=1e-5):
                    self.failures.append(f"version {prediction.version} gave other scores")


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def main(console: Console) -> int:
    """Run it and say what was seen."""
    from components.catalogue import Catalogue, newest_version

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    config = load_config(parser.parse_args().config)
    served = newest_version(config)
    items = Catalogue.of(served, config).items()
    columns = {name: cells[:100] for name, cells in items.columns.items()}
    name = config.model_name
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        base = Path(folder) / name
        shutil.copytree(served, base / served.name)
        grpc, rest = unused_port(), unused_port()
        flags = [f"--port={grpc}", f"--rest_api_port={rest}", f"--model_name={name}", f"--model_base_path={base}"]
        server = subprocess.Popen([sys.executable, "-m", "serving.server.main", *flags], stdout=log, stderr=log)
        try:
            return _under_load(
                console, server, log, base, served, columns, f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{rest}"
            )
        finally:
            server.terminate()
            server.wait(30)


def _under_load(console, server, log, base: Path, served: Path, columns: dict, grpc: str, rest: str) -> int:
    name = base.name
    expected = _first_answer(server, log, grpc, name, columns)
    console.print(f"[bold]model server[/bold]  {name} version {served.name} answers over gRPC and REST")
    for target in (grpc, rest):
        with connect(target, name) as client:
            best = int(client.rank({}, columns).argmax())
            console.print(f"  {target.partition(':')[0]:5} rank of {len(expected)} items: best is number {best + 1}")
    stop = threading.Event()
    loads = [Load(target, name, columns, expected, stop) for target in (grpc, rest)]
    for load in loads:
        load.start()
    time.sleep(1)
    second = int(served.name) + 1
    shutil.copytree(served, base / ".copying")
    (base / ".copying").rename(base / str(second))
    deadline = time.monotonic() + START_SECONDS
    while not loads[0].versions[second] and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(SECONDS_AFTER)
    stop.set()
    for load in loads:
        load.join(30)
    failures = [failure for load in loads for failure in load.failures]
    answers = dict(loads[0].versions)
    console.print(
        f"pushed version {second} under load: {sum(load.answers for load in loads):,} answers, "
        f"{len(failures)} failed, slowest {1000 * max(load.slowest for load in loads):.0f} ms; "
        f"gRPC answers by version: {', '.join(f'{v}: {n:,}' for v, n in answers.items())}"
    )
    for failure in failures[:5]:
        console.print(f"  failed: {failure}")
    switched = bool(loads[0].versions[second])
    if not switched:
        console.print(f"  version {second} never answered")
    return 0 if switched and not failures else 1


def _first_answer(server, log, target: str, name: str, columns: dict) -> np.ndarray:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with connect(target, name, timeout=2.0, retries=0) as client:
                return client.rank({}, columns)
        except Exception:
            if server.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise SystemExit(f"the model server did not answer:\n{log.read()[-2000:]}") from None
            time.sleep(0.3)


if __name__ == "__main__":
    with quiet(os.devnull) as terminal:
        code = main(Console(file=terminal, highlight=False, soft_wrap=True))
    sys.exit(code)
