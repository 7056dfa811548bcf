"""Files of JSON lines that grow, read once each, in bounded memory; what is wrong in them is counted, not raised."""

from __future__ import annotations

import glob
import heapq
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson

log = logging.getLogger("recsys-router")

CHUNK_BYTES = 256 << 10  # a line that is longer is passed over


class Timed(Protocol):
    """What a line holds: it happened at a time, in seconds since 1970."""

    @property
    def time(self) -> float:
        """When."""


T = TypeVar("T", bound=Timed)


@dataclass
class _Place:
    offset: int = 0
    in_long_line: bool = False


class JsonLines:
    """The lines of all regular files that match some globs; rotated and truncated files are followed."""

    def __init__(self, globs: Sequence[str], parse: Callable[[dict[str, Any]], Any]):
        """`parse` makes an item with a `time` of a line's object, or raises."""
        self._globs = globs
        self._parse = parse
        self._places: dict[tuple[int, int], _Place] = {}
        self._complained: set[str] = set()
        self.unread = 0  # lines that are not what they should be
        self.unreadable = 0  # files, at the last reading

    def read(self) -> Iterator[Any]:
        """What was added since the last reading, by time if each file is."""
        return heapq.merge(*self._files(), key=lambda item: item.time)

    def _files(self) -> list[Iterator[Any]]:
        found, places = [], {}
        self.unreadable = 0
        for path in sorted({path for pattern in self._globs for path in glob.glob(pattern)}):
            try:
                status = os.stat(path)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError("not a file")
                with open(path, "rb"):
                    pass
            except OSError as error:
                self._complain(path, error)
                continue
            key = (status.st_dev, status.st_ino)  # a file that is renamed to rotate it is the same file
            place = places[key] = self._places.get(key, _Place())
            if status.st_size < place.offset:
                place.offset = 0
            found.append(self._lines(path, place, status.st_size))
        self._places = places
        return found

    def _lines(self, path: str, place: _Place, end: int) -> Iterator[Any]:
        while place.offset < end:
            try:
                with open(path, "rb") as file:
                    file.seek(place.offset)
                    chunk = file.read(min(CHUNK_BYTES, end - place.offset))
            except OSError as error:  # rotated away or closed to us since the last chunk
                self._complain(path, error)
                return
            whole = chunk.rfind(b"\n") + 1
            if not whole:
                if len(chunk) < CHUNK_BYTES:
                    return  # the last line is still being written
                place.offset, place.in_long_line = place.offset + len(chunk), True
                continue
            place.offset += whole
            for line in chunk[: whole - 1].split(b"\n"):
                if place.in_long_line:
                    place.in_long_line = False
                    self.unread += 1
                    continue
                try:
                    item = self._parse(orjson.loads(line))
                except Exception:  # whatever it is that a line can be, it must not end the reading
                    self.unread += 1
                else:
                    yield item

    def _complain(self, path: str, error: OSError) -> None:
        self.unreadable += 1
        if path not in self._complained and len(self._complained) < 100:
            self._complained.add(path)
            log.warning("%s: cannot be read and is left out: %s", path, error.strerror or error)
