"""The serving check: would this candidate serve? Asked of a fresh server process before it is pushed.

It replaces TFX's InfraValidator, which knows only containers. TensorFlow Serving's binary is used where one is on the
PATH, this project's server otherwise; both get the same flags and the same requests over gRPC and REST.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.client import Features, as_columns, connect
from serving.server.status import Code, ServingError
from serving.tethered import tethered

TENSORFLOW_SERVING = "tensorflow_model_server"


@dataclass(frozen=True)
class Budget:
    """What a candidate may cost. Latency is the median of a request of one row, after warmup."""

    p50_ms: float = 100.0
    resident_mib: float = 4096.0
    start_seconds: float = 180.0
    tolerance: float = 1e-4
    latency_requests: int = 50


@dataclass(frozen=True)
class CheckResult:
    """What was seen; `problems` is empty where the candidate may be pushed."""

    problems: tuple[str, ...]
    server: str
    requests: int
    p50_ms: float
    resident_mib: float
    start_seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def serving_command() -> list[str]:
    """The server to check with: TensorFlow Serving's binary, or ours."""
    found = shutil.which(TENSORFLOW_SERVING)
    return [found] if found else [sys.executable, "-m", "serving.server.main"]


def serving_check(
    saved_model: str | pathlib.Path,
    model: str,
    features: Features,
    expected: Sequence[float] | np.ndarray,
    *,
    output: str | None = None,
    signature: str = "serving_default",
    budget: Budget | None = None,
    command: Sequence[str] | None = None,
) -> CheckResult:
    """Serve the SavedModel in a fresh process, ask it for `features` over gRPC and REST, compare with `expected`.

    `expected` are the offline scores of the same rows; `output` is the output to compare, which may be left out where
    the signature has one. Raises nothing for a bad candidate: its problems are in the result.
    """
    budget = budget or Budget()
    command = list(command or serving_command())
    with tempfile.TemporaryDirectory(prefix="serving-check-") as folder:
        base = pathlib.Path(folder) / model
        base.mkdir()
        (base / "1").symlink_to(pathlib.Path(saved_model).resolve(), target_is_directory=True)
        log = pathlib.Path(folder) / "server.log"
        port, rest_port = _unused_port(), _unused_port()
        flags = [f"--port={port}", f"--rest_api_port={rest_port}", f"--model_name={model}", f"--model_base_path={base}"]
        if (
            os.path.basename(command[0]) != TENSORFLOW_SERVING
        ):  # whose gRPC listens on all addresses, whatever it is told
            flags.append("--host=127.0.0.1")
        start = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(tethered([*command, *flags, "--max_num_load_retries=0"]), stdout=out, stderr=out)
        try:
            problem = _wait(process, (port, rest_port), start + budget.start_seconds)
            took = time.monotonic() - start
            if problem:
                tail = log.read_text(errors="replace")[-2000:]
                return CheckResult((f"{problem}\n{tail}",), command[0], 0, np.nan, np.nan, took)
            return _ask(
                process, port, rest_port, model, features, expected, output, signature, budget, command[0], took
            )
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ask(
    process: subprocess.Popen[bytes],
    port: int,
    rest_port: int,
    model: str,
    features: Features,
    expected: Sequence[float] | np.ndarray,
    output: str | None,
    signature: str,
    budget: Budget,
    server: str,
    took: float,
) -> CheckResult:
    problems, requests, latencies = [], 0, [np.nan]
    wanted = np.asarray(expected, np.float64).ravel()
    for target in (f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{rest_port}"):
        with connect(target, model, timeout=60) as client:
            try:
                outputs = client.predict(features, signature=signature).outputs
                requests += 1
                found = np.asarray(outputs[output] if output else _only(outputs), np.float64).ravel()
            except (ServingError, KeyError) as error:
                problems.append(f"{target}: {error}")
                continue
            if found.shape != wanted.shape:
                problems.append(f"{target}: {found.size} scores for {wanted.size} rows")
                continue
            apart = np.abs(found - wanted)
            if not np.all(apart <= budget.tolerance):  # also where a score is NaN
                row = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
                problems.append(
                    f"{target}: row {row} scores {found[row]!r}, offline {wanted[row]!r}; "
                    f"{budget.tolerance:g} apart is allowed"
                )
            if target.startswith("grpc"):
                one = _first_row(features)
                latencies = []
                for _ in range(budget.latency_requests):
                    begin = time.perf_counter()
                    client.predict(one, signature=signature)
                    latencies.append((time.perf_counter() - begin) * 1000)
                    requests += 1
    p50, resident = float(np.median(latencies)), _resident_mib(process.pid)
    if p50 > budget.p50_ms:
        problems.append(f"the median latency of one row is {p50:.1f} ms; {budget.p50_ms:g} ms are allowed")
    if resident > budget.resident_mib:
        problems.append(f"the server takes {resident:.0f} MiB; {budget.resident_mib:g} MiB are allowed")
    return CheckResult(tuple(problems), server, requests, p50, resident, took)


def _only(outputs: dict[str, np.ndarray]) -> np.ndarray:
    if len(outputs) != 1:
        raise ServingError(Code.INVALID_ARGUMENT, f"the signature has outputs {sorted(outputs)}: say which to compare")
    return next(iter(outputs.values()))


def _first_row(features: Features) -> Features:
    return {name: values[:1] for name, values in as_columns(features).items()}


def _wait(process: subprocess.Popen[bytes], ports: Sequence[int], deadline: float) -> str | None:
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None:
                    return f"the server ended with code {process.returncode} before it served the candidate"
                if time.monotonic() > deadline:
                    return "the server did not serve the candidate in time"
                time.sleep(0.1)
    return None


def _resident_mib(pid: int) -> float:
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
