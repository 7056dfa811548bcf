"""How fast training is: against itself with a larger vocabulary, plain Keras, PyTorch, and with two workers.

Every measurement is a process of its own; those that are compared take turns, and the best window of each counts,
so that what else the machine does weighs on both alike. Prints a table, and as its last line one JSON object.
PyTorch is installed into an ignored environment of this benchmark's own; without it the benchmark goes on and says so.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from models.training.workers import LARGE_PAGES, Role, run_workers

HERE = Path(__file__).parent
THREADS = "2"
ROUNDS = int(os.environ.get("ROUNDS", "2"))
SECONDS = os.environ.get("SECONDS", "10")


def run(*command: str, threads: str = THREADS) -> dict:
    """Run one measurement and return what it printed last."""
    environment = (
        LARGE_PAGES | os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "THREADS": threads, "OMP_NUM_THREADS": threads}
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    speeds = [s for line in lines for s in _list(line["examples_per_second"])]
    return lines[-1] | {"examples_per_second": max(speeds)}


def _list(value) -> list[float]:
    return value if isinstance(value, list) else [value]


def ours(vocabulary: str, optimizer: str) -> Callable[[], dict]:
    return lambda: run(sys.executable, "-m", "benchmarks.training.deepfm", vocabulary, optimizer, SECONDS)


def in_turns(measurements: dict[str, Callable[[], dict]]) -> dict[str, dict]:
    """Run each measurement ROUNDS times, in turn, and return its best; prints a line for each."""
    best: dict[str, dict] = {}
    for _ in range(ROUNDS):
        for name, measure in measurements.items():
            found = measure()
            if name not in best or found["examples_per_second"] > best[name]["examples_per_second"]:
                best[name] = found
    for name, found in best.items():
        memory = ""
        if "tables_bytes" in found:
            memory = (
                f"   tables and slots {found['tables_bytes'] / 2**30:6.2f} GiB, peak {found['peak_bytes'] / 2**30:6.2f}"
            )
        print(f"{name:44}{found['examples_per_second']:12,.0f} examples/s{memory}", flush=True)
    return best


def workers(count: int, exponent: float) -> dict:
    """Return the examples/s of some workers together, each held to one thread and core."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def heard(worker: str, line: str) -> None:
            if line.startswith("{"):
                found.append(max(json.loads(line)["examples_per_second"]))

        run_workers(
            [sys.executable, "-m", "benchmarks.training.worker", str(exponent), SECONDS],
            [Role("worker", index) for index in range(count)],
            folder,
            0,
            print,
            heard,
            os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1"},
        )
    return {"examples_per_second": sum(found)}


def pytorch() -> str | None:
    """Return the Python of an environment that has PyTorch, made where it is not there; None where it cannot be."""
    python = HERE / ".pytorch/bin/python"
    if not python.exists():
        print("installing PyTorch for this benchmark alone ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(HERE / ".pytorch")], check=True)
        # A build for CPUs where an index has one; the plain one brings gigabytes for GPUs.
        for wanted in ("torch==2.13.0+cpu", "torch"):
            pip = [str(python), "-m", "pip", "install", "--quiet", "numpy", wanted]
            if subprocess.run(pip, capture_output=True).returncode == 0:
                break
    works = subprocess.run([str(python), "-c", "import torch, numpy"], capture_output=True).returncode == 0
    return str(python) if works else None


def main() -> None:
    """Measure everything."""
    result: dict[str, float | None] = {}
    print("DeepFM, 8 tables of 16, layers of 400-400-400, batch 1,024, uniform ids, 2 threads")
    sweep = in_turns(
        {f"{ids} ids a table, rowwise_adagrad": ours(ids, "rowwise_adagrad") for ids in ("1e4", "1e6", "1e7")}
    )
    speed = [found["examples_per_second"] for found in sweep.values()]
    result["vocab_1e7_of_1e4"] = round(speed[2] / speed[0], 3)

    keras = [sys.executable, "-m", "benchmarks.training.keras_adam", "1e6", SECONDS]
    against = in_turns({"1e6 ids, adam": ours("1e6", "adam"), "1e6 ids, tf_keras with Adam": lambda: run(*keras)})
    speed = [found["examples_per_second"] for found in against.values()]
    result["vs_keras_adam_1e6"] = round(speed[0] / speed[1], 2)

    print("\nMovieLens-100K, DeepFM of configs/movielens.yaml, from files to the last step, 2 threads")
    movielens = [sys.executable, "-m", "benchmarks.training.movielens"]
    subprocess.run([*movielens, "prepare"], check=True, capture_output=True)
    sides = {"MovieLens, ours": lambda: run(*movielens, "6")}
    result["vs_pytorch"] = None
    if python := pytorch():
        data = str(HERE / ".pytorch/movielens.npz")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.training.movielens", "arrays", data, "6"],
            check=True,
            capture_output=True,
        )
        sides["MovieLens, PyTorch"] = lambda: run(python, str(HERE / "pytorch_deepfm.py"), data)
    else:
        print("PyTorch cannot be installed here: no comparison with it")
    speed = [found["examples_per_second"] for found in in_turns(sides).values()]
    if python:
        result["vs_pytorch"] = round(speed[0] / speed[1], 2)

    print(
        "\nDeepFM as above, 100,000 ids a table, 2,048 examples a worker and step, each worker one thread on one core"
    )
    for name, ids, exponent in (
        ("two_workers", "ids as in logs (Zipf, exponent 1)", 1.0),
        ("two_workers_uniform", "uniform ids", 0.0),
    ):
        counts = in_turns({f"{ids}, workers: {n}": partial(workers, n, exponent) for n in (1, 2)})
        speed = [found["examples_per_second"] for found in counts.values()]
        result[name] = round(speed[1] / speed[0], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
