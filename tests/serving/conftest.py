from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

START_SECONDS = 120.0


@dataclasses.dataclass
class ServerProcess:
    """A real server in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    rest_port: int
    log: pathlib.Path

    @property
    def grpc_address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def rest_address(self) -> str:
        return f"localhost:{self.rest_port}"

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.grpc_address)

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        with self.channel() as channel:
            ready = grpc.channel_ready_future(channel)
            deadline = time.monotonic() + seconds
            while True:
                try:
                    ready.result(timeout=0.5)
                    break
                except grpc.FutureTimeoutError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise AssertionError(f"the server did not start:\n{self.stderr()}") from None
        while True:  # REST comes a moment after gRPC
            try:
                socket.create_connection(("localhost", self.rest_port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stderr(self) -> str:
        return self.log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


class ServerFactory:
    """Starts servers and stops those that still run at the end."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._started: list[ServerProcess] = []

    def __call__(self, *flags: str, wait: bool = True, port: int = 0, rest_port: int = 0) -> ServerProcess:
        port, rest_port = port or unused_port(), rest_port or unused_port()
        log = self._folder / f"server-{port}-{len(self._started)}.log"
        command = [sys.executable, "-m", "serving.server.main"]
        command += [f"--port={port}", f"--rest_api_port={rest_port}", *flags]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stderr=out, stdout=out, cwd=pathlib.Path(__file__).parents[2])
        server = ServerProcess(process, port, rest_port, log)
        self._started.append(server)
        if wait:
            server.wait_until_ready()
        return server

    def stop(self) -> None:
        for server in self._started:
            server.stop()


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFactory]:
    factory = ServerFactory(tmp_path_factory.mktemp("servers"))
    yield factory
    factory.stop()
