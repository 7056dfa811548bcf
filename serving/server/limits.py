"""What one request may ask for, checked before anything is built from it.

A few bytes can name a huge tensor: a shape with one value to repeat, a context to copy before every Example, one long
string beside many short ones. The limits hold for what a request expands to, not for what was sent.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from serving.server.saved_model import Input
from serving.server.status import invalid_argument

# TensorFlow's Python binding cannot carry arrays of more than 32 dimensions and ends the process. A signature of
# unknown rank gets half of that, so that a graph which adds dimensions stays below as well.
MAX_RANK = 32
MAX_UNKNOWN_RANK = 16
# Columns up to this size are not worth counting.
SMALL_COLUMN = 1024

DEFAULT_ROWS = 1 << 16
DEFAULT_ELEMENTS = 1 << 22
DEFAULT_BYTES = 64 << 20


@dataclass(frozen=True)
class RequestLimits:
    """Largest rows of a tensor, and elements and bytes of all tensors of a request together; 0 means no limit."""

    rows: int = DEFAULT_ROWS
    elements: int = DEFAULT_ELEMENTS
    bytes: int = DEFAULT_BYTES

    def budget(self, size: int) -> Budget:
        """The account of one request that came as `size` bytes."""
        return Budget(self, size)

    def check_rows(self, rows: int) -> None:
        """INVALID_ARGUMENT where a request has too many rows."""
        if self.rows and rows > self.rows:
            raise invalid_argument(
                f"The request has {rows} rows; this server takes at most {self.rows} at once (--max_batch_rows)."
            )

    def check_bytes(self, size: int) -> None:
        """INVALID_ARGUMENT where what a request expands to has too many bytes."""
        if self.bytes and size > self.bytes:
            raise invalid_argument(
                f"The request expands to {size} bytes; this server takes at most {self.bytes} (--max_request_bytes)."
            )


# For what the server's own operator made: recorded warmup requests, a SavedModel in the caller's process.
UNLIMITED = RequestLimits(0, 0, 0)


class Budget:
    """Adds up the tensors of one request; `free_rows` is how long a list of scalars may be without being counted."""

    def __init__(self, limits: RequestLimits, size: int):
        self.limits = limits
        self._max_rows = limits.rows or sys.maxsize
        self._elements = limits.elements or sys.maxsize
        self._bytes = limits.bytes or sys.maxsize
        # So few rows of strings cannot be padded to more than the limit: none is longer than the request.
        self.free_rows = min(SMALL_COLUMN, self._bytes // max(size, 1))

    def check_elements(self, declared: Input, shape: Sequence[int]) -> None:
        """INVALID_ARGUMENT where a tensor of `shape` has more elements than are left; nothing is counted."""
        if math.prod(shape) > self._elements:
            raise _too_large(declared, shape, f"more than {self.limits.elements} elements", "max_request_elements")

    def take(self, declared: Input, shape: Sequence[int], width: int) -> None:
        """Count a tensor of `shape` whose longest element takes `width` bytes; INVALID_ARGUMENT where it is too much.

        Strings count as if all were as long as the longest, because graphs pad them.
        """
        check_rank(declared, len(shape))
        if shape and shape[0] > self._max_rows:
            self.limits.check_rows(shape[0])
        # An empty tensor may still have huge dimensions, which the graph would multiply with others.
        count = math.prod(max(size, 1) for size in shape)
        self._elements -= count
        if self._elements < 0:
            raise _too_large(declared, shape, f"more than {self.limits.elements} elements", "max_request_elements")
        self._bytes -= count * max(width, 1)
        if self._bytes < 0:
            raise _too_large(declared, shape, f"more than {self.limits.bytes} bytes", "max_request_bytes")


def width_of(declared: Input, values: Sequence[object]) -> int:
    """Bytes of the longest of `values`."""
    if declared.numpy.kind != "O":
        return declared.numpy.itemsize
    return max(map(len, values), default=0)  # type: ignore[arg-type]


def check_rank(declared: Input, rank: int) -> None:
    """INVALID_ARGUMENT where a tensor has more dimensions than the signature (or TensorFlow's binding) takes."""
    most = MAX_UNKNOWN_RANK if declared.shape is None else min(max(len(declared.shape), 1), MAX_RANK)
    if rank > most:
        raise invalid_argument(f"input {declared.name!r} has {rank} dimensions; the signature takes at most {most}")


def _too_large(declared: Input, shape: Sequence[int], what: str, flag: str) -> Exception:
    shown = f"{list(shape[:8])}{'...' if len(shape) > 8 else ''}"
    return invalid_argument(
        f"the request's tensors have {what}, which is the limit (--{flag}); input {declared.name!r} has shape {shown}"
    )
