"""The C library's memory: it keeps what was freed, and every swap or large request would look like a leak."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any


@functools.cache
def _c_library() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("c"))


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim:
        trim(0)
