"""The C library's memory: it keeps what was freed, and every swap or large request would look like a leak."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any

_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 4 << 20


@functools.cache
def _c_library() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("c"))


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim:
        trim(0)


def keep_large_blocks_apart() -> None:
    """Have large blocks returned as soon as they are freed.

    glibc raises the size from which blocks are mapped by themselves each time such a block is freed; after a few large
    requests the next ones would be cut from the heap and leave holes in it.
    """
    set_option = getattr(_c_library(), "mallopt", None)
    if set_option:
        set_option(_M_MMAP_THRESHOLD, _MMAP_BYTES)
