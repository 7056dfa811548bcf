"""What a node takes: time, CPU, memory, bytes read and written, and the time of each step of its Beam pipelines."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import apache_beam as beam
import psutil
from apache_beam.metrics import monitoring_infos

_EVERY = 0.05  # seconds between looks at the memory
_CHILDREN_EVERY = 10  # looks between those at the processes that a node has started
_STEP_TIME = "beam:metric:ptransform_execution_time:total_msecs:v1"
_ELEMENTS = "beam:metric:element_count:v1"


@dataclass
class Profile:
    """What was measured. `read` and `written` are None where the system does not count a process's bytes.

    `cpu` is seconds of this process and of those it started and waited for, `peak` the largest sum of their resident
    memory that was seen, in bytes. `steps` are the Beam steps by the time their functions took, the longest first.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    read: int | None = None
    written: int | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def profiled() -> Iterator[Profile]:
    """Measure what is done inside; the profile is whole once that has ended, however it ends."""
    profile = Profile()
    process = psutil.Process()
    results: list[Any] = []
    began, cpu, moved = time.monotonic(), _cpu(), _moved(process)
    with _watched(process, profile), _beam_results(results.append):
        try:
            yield profile
        finally:
            profile.seconds = round(time.monotonic() - began, 3)
            profile.cpu = round(_cpu() - cpu, 3)
            if moved is not None and (now := _moved(process)) is not None:
                profile.read, profile.written = now[0] - moved[0], now[1] - moved[1]
            profile.steps = _steps(results)


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _moved(process: psutil.Process) -> tuple[int, int] | None:
    """Return the bytes that this process has read and written through system calls, from a disk or a cache."""
    if not psutil.LINUX:
        return None
    counters = process.io_counters()
    return counters.read_chars, counters.write_chars


@contextmanager
def _watched(process: psutil.Process, profile: Profile) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        look, children = 0, 0
        while True:
            if look % _CHILDREN_EVERY == 0:
                children = sum(_resident(child) for child in process.children(recursive=True))
            profile.peak = max(profile.peak, process.memory_info().rss + children)
            look += 1
            if ended.wait(_EVERY):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it has just ended
        return 0


@contextmanager
def _beam_results(heard: Callable[[Any], None]) -> Iterator[None]:
    """Hear of the result of every Beam pipeline that runs inside: TFX's executors keep theirs to themselves."""
    run = beam.Pipeline.run

    def heard_run(self: beam.Pipeline, *args: Any, **kwargs: Any) -> Any:
        result = run(self, *args, **kwargs)
        heard(result)
        return result

    with mock.patch.object(beam.Pipeline, "run", heard_run):
        yield


def _steps(results: list[Any]) -> list[dict[str, Any]]:
    """Return the time of each step, which Beam samples, as far as an engine in this process tells it."""
    spent: Counter[str] = Counter()
    for result in results:
        for info in getattr(result, "monitoring_infos", list)():
            if info.urn == _STEP_TIME:
                spent[info.labels[monitoring_infos.PTRANSFORM_LABEL]] += monitoring_infos.extract_counter_value(info)
    return [{"step": step, "seconds": round(ms / 1000, 3)} for step, ms in spent.most_common() if ms]
