"""Micro-batching: rows of requests that wait at the same moment share one run of the graph.

A signature's queue belongs to one version of one model, so that no answer mixes versions. A batch starts as soon as a
batch thread is free and `batch_timeout_micros` has passed since its first request; while all are busy, requests gather.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.server.metrics import ServerMetrics
from serving.server.saved_model import Signature
from serving.server.status import Code, ServingError, invalid_argument
from serving.server.tensor_proto import Column, as_array

# A run expected to be shorter than this is made on the event loop's own thread: waking another one costs as much.
INLINE_MICROS = 300.0
# A run that took so many times as long sends its like to threads for so many runs: the loop must not be held up twice.
DISTRUST_FACTOR = 20
DISTRUST_RUNS = 500


@dataclass(frozen=True)
class BatchingParameters:
    """TensorFlow Serving's batching parameters, with its defaults."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False

    def __post_init__(self) -> None:
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            raise invalid_argument(
                f"allowed_batch_sizes {list(sizes)} must grow and end in max_batch_size {self.max_batch_size}"
            )
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise invalid_argument(f"{name} must be positive; got {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise invalid_argument(f"batch_timeout_micros must not be negative; got {self.batch_timeout_micros}")

    @classmethod
    def from_proto(cls, proto: Any) -> BatchingParameters:
        """From a parsed parameters file; what it does not say keeps its default."""
        given = {field.name: getattr(proto, field.name) for field, _ in proto.ListFields()}
        given.pop("thread_pool_name", None)
        given.pop("max_execution_batch_size", None)
        for name, value in given.items():
            if name == "allowed_batch_sizes":
                given[name] = tuple(value)
            elif hasattr(value, "value"):
                given[name] = value.value
        return cls(**given)


class Runtime:
    """Runs graph callables: short ones in place, longer ones on threads; knows from experience which are which."""

    def __init__(self, threads: int, inline_micros: float = INLINE_MICROS):
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="session-run")
        self._inline_micros = inline_micros
        self._micros: dict[tuple[int, int], float] = {}
        self._distrusted: dict[tuple[int, int], int] = {}

    def is_short(self, key: int, rows: int) -> bool:
        """Whether a run of so many rows is expected to be over before a thread would have woken."""
        slot = (key, rows.bit_length())
        left = self._distrusted.get(slot)
        if left:
            self._distrusted[slot] = left - 1
            return False
        return self._micros.get(slot, float("inf")) < self._inline_micros

    def timed(self, key: int, rows: int, work: Callable[[], Any]) -> tuple[Any, float]:
        """Do `work` here and remember how long it took; returns its result and the microseconds."""
        start = time.perf_counter()
        result = work()
        micros = (time.perf_counter() - start) * 1e6
        slot = (key, rows.bit_length())
        known = self._micros.get(slot)
        # Near the shortest time seen: what is more is waiting for a core or for the interpreter, not the model.
        self._micros[slot] = micros if known is None else min(micros, known * 1.02)
        if micros > DISTRUST_FACTOR * self._inline_micros:  # the run time depends on more than the rows
            self._distrusted[slot] = DISTRUST_RUNS
        return result, micros

    def submit(self, key: int, rows: int, work: Callable[[], Any]) -> concurrent.futures.Future[tuple[Any, float]]:
        """Do `work` on a thread."""
        return self._pool.submit(self.timed, key, rows, work)

    async def run(self, key: int, rows: int, work: Callable[[], Any]) -> tuple[Any, float]:
        """Do `work` wherever it is cheaper."""
        if self.is_short(key, rows):
            return self.timed(key, rows, work)
        return await asyncio.wrap_future(self.submit(key, rows, work))

    def forget(self, keys: Sequence[int]) -> None:
        """Drop what is known of versions that are gone."""
        gone = set(keys)
        self._micros = {slot: micros for slot, micros in self._micros.items() if slot[0] not in gone}
        self._distrusted = {slot: left for slot, left in self._distrusted.items() if slot[0] not in gone}

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Task:
    columns: dict[str, Column]
    rows: int
    inner: tuple[tuple[int, ...], ...]
    future: asyncio.Future[list[np.ndarray]]
    enqueued: float


def rows_of(columns: dict[str, Column]) -> int | None:
    """The common number of rows, or None where the inputs do not share one (then they cannot be batched)."""
    counts = {len(each) if isinstance(each, list) or each.ndim else -1 for each in columns.values()}
    return counts.pop() if len(counts) == 1 and -1 not in counts else None


class BatchQueue:
    """The waiting requests of one signature of one version."""

    def __init__(
        self,
        model: str,
        signature: Signature,
        parameters: BatchingParameters,
        runtime: Runtime,
        metrics: ServerMetrics,
    ):
        self._model = model
        self._signature = signature
        self._parameters = parameters
        self._runtime = runtime
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._tasks: collections.deque[_Task] = collections.deque()
        self._waiting_rows = 0
        self._running = 0
        self._timer: asyncio.Handle | None = None

    async def run(self, columns: dict[str, Column], rows: int) -> list[np.ndarray]:
        """This request's rows of every output, after a run shared with whoever waits beside it."""
        limit = self._parameters.max_batch_size
        if rows > limit:
            if not self._parameters.enable_large_batch_splitting:
                raise invalid_argument(f"Task size {rows} is larger than maximum input batch size {limit}")
            parts = [
                self._enqueue({name: values[start : start + limit] for name, values in columns.items()}, count)
                for start in range(0, rows, limit)
                for count in (min(limit, rows - start),)
            ]
            answers = await asyncio.gather(*parts)
            return [np.concatenate(pieces) for pieces in zip(*answers, strict=True)]
        return await self._enqueue(columns, rows)

    def _enqueue(self, columns: dict[str, Column], rows: int) -> asyncio.Future[list[np.ndarray]]:
        parameters = self._parameters
        if self._waiting_rows + rows > parameters.max_batch_size * parameters.max_enqueued_batches:
            raise ServingError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{self._waiting_rows} rows of {parameters.max_enqueued_batches} batches wait",
            )
        inner: tuple[tuple[int, ...], ...] = ()
        if np.ndarray in map(type, columns.values()):
            inner = tuple(() if isinstance(each, list) else each.shape[1:] for each in columns.values())
            inner = inner if any(inner) else ()
        task = _Task(columns, rows, inner, self._loop.create_future(), time.perf_counter())
        self._tasks.append(task)
        self._waiting_rows += rows
        if self._timer is None:
            if parameters.batch_timeout_micros:
                self._timer = self._loop.call_later(parameters.batch_timeout_micros / 1e6, self._flush)
            else:
                self._timer = self._loop.call_soon(self._flush)
        elif self._waiting_rows >= parameters.max_batch_size and parameters.batch_timeout_micros:
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._flush)
        return task.future

    def _flush(self) -> None:
        self._timer = None
        while self._tasks and self._running < self._parameters.num_batch_threads:
            batch = self._take()
            if not batch:
                continue
            rows = sum(task.rows for task in batch)
            key = id(self._signature)
            if self._runtime.is_short(key, rows):
                try:
                    outputs, micros = self._runtime.timed(key, rows, functools.partial(self._execute, batch))
                except Exception as error:
                    self._failed(batch, error)
                else:
                    self._finished(batch, outputs, micros)
            else:
                self._running += 1
                future = self._runtime.submit(key, rows, functools.partial(self._execute, batch))
                future.add_done_callback(functools.partial(self._notify, batch))

    def _take(self) -> list[_Task]:
        """The next batch: waiting requests of one inner shape, as many as fit."""
        batch: list[_Task] = []
        rows = 0
        rest: collections.deque[_Task] = collections.deque()
        now = time.perf_counter()
        while self._tasks:
            task = self._tasks.popleft()
            if task.future.done():  # the client gave up: nothing to compute
                self._waiting_rows -= task.rows
                continue
            if batch and (task.inner != batch[0].inner or rows + task.rows > self._parameters.max_batch_size):
                rest.append(task)
                if rows + task.rows > self._parameters.max_batch_size:
                    break
                continue
            batch.append(task)
            rows += task.rows
            self._waiting_rows -= task.rows
            self._metrics.queuing_latency.add(self._model, sample=(now - task.enqueued) * 1e6)
        self._tasks.extendleft(reversed(rest))
        return batch

    def _execute(self, batch: list[_Task]) -> list[np.ndarray]:
        rows = sum(task.rows for task in batch)
        padded = next((size for size in self._parameters.allowed_batch_sizes if size >= rows), rows)
        feeds = []
        for name, declared in self._signature.inputs.items():
            parts = [task.columns[name] for task in batch]
            if len(parts) == 1:
                array = as_array(parts[0], declared)
            elif all(isinstance(part, list) for part in parts):
                array = as_array(list(itertools.chain.from_iterable(parts)), declared)
            else:
                array = np.concatenate([as_array(part, declared) for part in parts])
            if padded > rows:
                array = np.concatenate([array, np.repeat(array[:1], padded - rows, axis=0)])
            feeds.append(array)
        outputs = self._signature.run(feeds)
        if len(batch) == 1 and padded == rows:
            return outputs  # nothing to cut apart, so the model may answer in any shape
        if any(output.ndim == 0 or output.shape[0] != padded for output in outputs):
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )
        return outputs

    def _notify(self, batch: list[_Task], done: concurrent.futures.Future[tuple[list[np.ndarray], float]]) -> None:
        self._loop.call_soon_threadsafe(self._done, batch, done)

    def _done(self, batch: list[_Task], done: concurrent.futures.Future[tuple[list[np.ndarray], float]]) -> None:
        self._running -= 1
        error = done.exception()
        if error is None:
            self._finished(batch, *done.result())
        else:
            self._failed(batch, error)
        if self._tasks and self._timer is None:
            self._flush()

    def _finished(self, batch: list[_Task], outputs: list[np.ndarray], micros: float) -> None:
        self._metrics.wrapped_run_count.add(self._model)
        self._metrics.runtime_latency.add(self._model, "Predict", "TF1", sample=micros)
        if len(batch) == 1 and not self._parameters.allowed_batch_sizes:
            if not batch[0].future.done():
                batch[0].future.set_result(outputs)
            return
        start = 0
        for task in batch:
            stop = start + task.rows
            if not task.future.done():
                task.future.set_result([output[start:stop] for output in outputs])
            start = stop

    def _failed(self, batch: list[_Task], error: BaseException) -> None:
        """Whoever broke the batch must not break its neighbours: each is run again by itself."""
        if len(batch) == 1:
            if not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for task in batch:
            self._running += 1
            future = self._runtime.submit(id(self._signature), task.rows, functools.partial(self._execute, [task]))
            future.add_done_callback(functools.partial(self._notify, [task]))
