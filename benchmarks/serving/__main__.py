"""Our model server against a naive one, both sides in one run: `make bench-serving`.

Both serve the same DeepFM from processes of their own and get the same requests from the same client process. The sides
take turns within each scenario, and each figure is the median of its rounds, so that a machine that is shared (or slows
down) costs both alike. Ratios are ours over naive; for p99 less is better. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
BATCHING = """max_batch_size { value: 128 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
"""
# What each scenario must reach, as a ratio to the naive server.
EXPECTED = {
    "b1_c16_qps_ratio": (">=", 2.0),
    "b1_c16_p99_ratio": ("<=", 0.5),
    "b1_c64_qps_ratio": (">=", 3.0),
    "b100_examples_ratio": (">=", 1.4),
    "rest_of_grpc": (">=", 0.5),
}


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


def python(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server on port {port} did not start") from None
            time.sleep(0.1)


class LoadClient:
    """The client process; one for the whole run, so that its start is not in anybody's figures."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.load"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def measure(self, **task: object) -> dict[str, float]:
        self._process.stdin.write(json.dumps(task).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder) / "deepfm"
        parameters = pathlib.Path(folder) / "batching.config"
        parameters.write_text(BATCHING)
        python("benchmarks.serving.deepfm", base / "1").wait()
        ports = {"naive": unused_port(), "ours": unused_port(), "rest": unused_port()}
        naive = python("benchmarks.serving.naive_server", base / "1", ports["naive"])
        ours = python(
            "serving.server.main", f"--port={ports['ours']}", f"--rest_api_port={ports['rest']}", "--model_name=deepfm",
            f"--model_base_path={base}", "--enable_batching", f"--batching_parameters_file={parameters}",
            "--tensorflow_intra_op_parallelism=1",
        )  # fmt: skip
        client = LoadClient()
        try:
            for name, process in (("naive", naive), ("ours", ours), ("rest", ours)):
                wait_for(ports[name], process)
            run(ports, {"naive": naive, "ours": ours, "rest": ours}, client, options)
        finally:
            client.close()
            for process in (naive, ours):
                process.kill()
                process.wait()


def run(
    ports: dict[str, int],
    processes: dict[str, subprocess.Popen[bytes]],
    client: LoadClient,
    options: argparse.Namespace,
) -> None:
    scenarios = [("b1_c16", 1, 16), ("b1_c64", 1, 64), ("b100", 100, 16)]
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; medians of {options.rounds} rounds")
    for name, rows, in_flight in scenarios:
        for _ in range(options.rounds):
            for side in ("naive", "ours", *(["rest"] if rows > 1 else [])):
                before = cpu_seconds(processes[side])
                protocol = "rest" if side == "rest" else "grpc"
                figures = client.measure(
                    protocol=protocol, port=ports[side], rows=rows, in_flight=in_flight, seconds=options.seconds
                )
                # The warm second before the clock started is served too, at about the same rate.
                served = figures["requests"] * (1 + 1 / options.seconds)
                figures["cpu_us"] = (cpu_seconds(processes[side]) - before) / served * 1e6
                seen.setdefault((name, side), []).append(figures)

    def median(name: str, side: str, figure: str) -> float:
        return statistics.median(each[figure] for each in seen[name, side])

    print(f"{'scenario':10}{'side':8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'server CPU us/request':>24}")
    for name, side in seen:
        print(
            f"{name:10}{side:8}{median(name, side, 'qps'):12.0f}{median(name, side, 'p50_ms'):9.2f}"
            f"{median(name, side, 'p99_ms'):9.2f}{median(name, side, 'cpu_us'):24.0f}"
        )

    def ratio(name: str, figure: str, over: str = "naive", of: str = "ours") -> float:
        """The median of the rounds' ratios: neighbours in time, so that a slow minute hits both."""
        pairs = zip(seen[name, of], seen[name, over], strict=True)
        return round(statistics.median(one[figure] / other[figure] for one, other in pairs), 3)

    result = {
        "b1_c16_qps_ratio": ratio("b1_c16", "qps"),
        "b1_c16_p99_ratio": ratio("b1_c16", "p99_ms"),
        "b1_c64_qps_ratio": ratio("b1_c64", "qps"),
        "b100_examples_ratio": ratio("b100", "qps"),
        "rest_of_grpc": ratio("b100", "qps", over="ours", of="rest"),
    }
    for name, (relation, bound) in EXPECTED.items():
        met = result[name] >= bound if relation == ">=" else result[name] <= bound
        print(f"{name}: {result[name]} (expected {relation} {bound}){'' if met else ' MISSED'}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
