"""Several server processes behind one port: `--num_processes`.

The kernel spreads connections over the workers (SO_REUSEPORT). Each is a whole server with models of its own; what must
not differ between them goes over their private UNIX sockets: a config taken by RPC is handed to the others before it is
acknowledged, and a scrape answers for all. A worker that dies is started again.
"""

from __future__ import annotations

import asyncio
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

RELOAD = "/recsys.serving.Workers/Reload"
METRICS = "/recsys.serving.Workers/Metrics"
PEER_SECONDS = 5.0
RELOAD_SECONDS = 600.0
RESTART_SECONDS = 1.0


def supervise(argv: Sequence[str], count: int) -> int:
    """Run `count` workers with the command line `argv` until SIGTERM or SIGINT; returns the exit code."""
    stopping = False
    with tempfile.TemporaryDirectory(prefix="recsys-model-server-") as folder:

        def start(number: int) -> subprocess.Popen[bytes]:
            own = [f"--worker_sockets={folder}", f"--worker_number={number}"]
            return subprocess.Popen([sys.executable, "-m", "serving.server.main", *argv, *own])

        workers = [start(number) for number in range(count)]

        def stop(signum: int, _: Any) -> None:
            nonlocal stopping
            stopping = True
            for worker in workers:
                worker.send_signal(signum)

        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, stop)
        served: set[int] = set()
        while True:
            for number, worker in enumerate(workers):
                if socket_path(folder, number).exists():
                    served.add(number)
                code = worker.poll()
                if code is None or stopping:
                    continue
                if number not in served:  # it never served: what it said on stderr will not get better by repetition
                    stop(signal.SIGTERM, None)
                    for other in workers:
                        other.wait()
                    return code or 1
                time.sleep(RESTART_SECONDS)
                socket_path(folder, number).unlink(missing_ok=True)
                served.discard(number)
                workers[number] = start(number)
            if stopping:
                return max(abs(worker.wait()) for worker in workers)
            time.sleep(0.1)


def socket_path(folder: str | pathlib.Path, number: int) -> pathlib.Path:
    """The private socket of a worker."""
    return pathlib.Path(folder) / f"{number}.sock"


class Peers:
    """The other workers, as one of them sees them."""

    def __init__(self, folder: str, number: int):
        self._folder = pathlib.Path(folder)
        self._own = socket_path(folder, number)

    async def ask(self, method: str, data: bytes, seconds: float = PEER_SECONDS) -> list[bytes]:
        """Every other worker's answer; raises grpc.aio.AioRpcError where one fails. The starting ones are left out."""
        import grpc

        async def one(path: pathlib.Path) -> bytes:
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                return await channel.unary_unary(method)(data, timeout=seconds)

        return await asyncio.gather(*(one(path) for path in sorted(self._folder.glob("*.sock")) if path != self._own))


def merge_metrics(pages: Sequence[str]) -> str:
    """One page for all workers: samples of one name and labels are added up; version gauges are alike everywhere."""
    totals: dict[str, float] = {}
    for page in pages:
        for line in page.splitlines():
            if line.startswith("#"):
                totals.setdefault(line, 0.0)
                continue
            key, _, text = line.rpartition(" ")
            if key.startswith(":recsys:serving:available_version"):
                totals[key] = max(totals.get(key, 0.0), float(text))
            else:
                totals[key] = totals.get(key, 0.0) + float(text)
    # A TYPE line must stand before its samples, and samples that only one worker has come at the end of the dictionary.
    groups: dict[str, list[str]] = {}
    for key in totals:
        if key.startswith("#"):
            groups[key.split()[2]] = [key]
    for key, value in totals.items():
        if not key.startswith("#"):
            name = key.partition("{")[0]
            base = next(
                (short for end in ("", "_bucket", "_sum", "_count") if (short := name.removesuffix(end)) in groups),
                name,
            )
            shown = str(int(value)) if value == int(value) else repr(value)
            groups.setdefault(base, []).append(f"{key} {shown}")
    return "\n".join(line for lines in groups.values() for line in lines) + "\n"
