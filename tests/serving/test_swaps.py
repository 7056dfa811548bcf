"""Versions are swapped under load on both protocols, and no client notices.

SOAK=1 (`make soak-serving`) makes it 100 swaps.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import time

import numpy as np
import pytest

from serving.client import connect_async
from tests.serving import saved_models
from tests.serving.test_model_server import poll

pytestmark = pytest.mark.slow

SOAK = bool(os.environ.get("SOAK"))
SWAPS = 100 if SOAK else 9
CLIENTS = 2  # of each protocol
PAUSE_SECONDS = 0.005


def resident_mib(pid: int) -> float:
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Load:
    """Constant traffic on both protocols; every answer is checked against the version it names."""

    def __init__(self, server):
        self._targets = [f"grpc://{server.grpc_address}", f"http://{server.rest_address}"] * CLIENTS
        self._running = True
        self.failures: list[str] = []
        self.latencies: list[float] = []
        self.answers = 0
        self.seen: set[int] = set()
        self.latest = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._ask(target) for target in self._targets))

    def stop(self) -> None:
        self._running = False

    async def _ask(self, target: str) -> None:
        async with connect_async(target, "answer", retries=0, timeout=30) as client:
            while self._running:
                start = time.perf_counter()
                try:
                    prediction = await client.predict({"x": [1.0, 2.0]})
                except Exception as error:
                    self.failures.append(f"{target}: {error!r}")
                    await asyncio.sleep(0.1)
                    continue
                self.latencies.append(time.perf_counter() - start)
                told = set(prediction.outputs["version"].tolist()) | {int(x) for x in prediction.outputs["score"]}
                if prediction.version is not None:
                    told.add(prediction.version)
                if len(told) != 1:
                    self.failures.append(f"{target}: a mixture of versions: {prediction}")
                self.latest = max(told)
                self.seen |= told
                self.answers += 1
                await asyncio.sleep(PAUSE_SECONDS)

    def p99_ms(self) -> float:
        taken, self.latencies = self.latencies, []
        return float(np.percentile(taken, 99) * 1000) if taken else 0.0


async def reach(load: Load, version: int) -> None:
    deadline = time.monotonic() + 60
    while load.latest != version:
        assert time.monotonic() < deadline, f"version {version} never answered; {load.latest} does"
        await asyncio.sleep(0.01)


def test_no_request_notices_a_swap(start_server, tmp_path):
    base, ready = tmp_path / "answer", tmp_path / "ready"
    for version in range(1, SWAPS + 2):
        saved_models.answer_version(ready, version, rows=256)
    base.mkdir()
    (ready / "1").rename(base / "1")
    server = start_server(
        "--model_name=answer",
        f"--model_base_path={base}",
        "--file_system_poll_wait_seconds=1",
        "--load_retry_interval_micros=200000",
        "--max_num_load_retries=1000",
        "--enable_batching",
    )
    memory: list[float] = []
    figures: dict[str, float] = {}

    async def swap(load: Load, version: int) -> None:
        if version == 4:  # a version that never was one
            corrupt = base / "1000000"
            corrupt.mkdir()
            (corrupt / "saved_model.pb").write_bytes(os.urandom(1000))
            await asyncio.sleep(1.5)
            shutil.rmtree(corrupt)
        if version == 6:  # copied in place, file by file, the slow way
            source, target = ready / "6", base / "6"
            for file in sorted(source.rglob("*"), key=lambda each: "saved_model.pb" not in each.name):
                if file.is_file():
                    copy = target / file.relative_to(source)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    data = file.read_bytes()
                    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                        with copy.open("ab") as out:
                            out.write(part)
                        await asyncio.sleep(0.3)
        else:
            (ready / str(version)).rename(base / str(version))
        await reach(load, version)
        if version == 8:  # rolled back by taking the newest away, then on again
            (base / "8").rename(ready / "8")
            await reach(load, 7)
            (ready / "8").rename(base / "8")
            await reach(load, 8)
        gone = base / str(version - 2)
        if version % 2 and gone.exists():
            shutil.rmtree(gone)

    async def main() -> Load:
        load = Load(server)
        traffic = asyncio.ensure_future(load.run())
        await asyncio.sleep(1.0)
        load.p99_ms()
        await asyncio.sleep(5.0)
        figures["steady p99 ms"] = load.p99_ms()
        for version in range(2, SWAPS + 2):
            await swap(load, version)
            if version >= 6:
                await asyncio.sleep(0.2)  # until the old version is freed
                memory.append(resident_mib(server.process.pid))
        figures["p99 ms while swapping"] = load.p99_ms()
        load.stop()
        await traffic
        return load

    load = asyncio.run(main())
    figures |= {"answers": load.answers, "MiB after 5 swaps": memory[0], "MiB after the last": memory[-1]}
    print({name: round(value, 1) for name, value in figures.items()})
    assert not load.failures, load.failures[:5]
    assert load.seen == set(range(1, SWAPS + 2))
    assert memory[-1] <= memory[0] * 1.10, memory
    assert poll(lambda: server.process.poll() is None)
