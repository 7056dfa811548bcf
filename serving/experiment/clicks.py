"""Which clicks belong to which showings, as both come in, in bounded memory."""

from __future__ import annotations

import heapq
import math
import os
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serving.experiment.json_lines import JsonLines
from serving.experiment.loss import LossTest
from serving.release_state import CANARY, STABLE

WITHIN_SECONDS = 3600.0
SHOWINGS = 1_000_000  # that clicks are looked for in; about 130 bytes each
_LONGEST_ID = 512


@dataclass(frozen=True)
class Exposure:
    """An item shown to a user by an arm, as the router logs it.

    `share` is the canary's share at that moment, in percent, and `canary` names the start of the canary that ran.
    """

    time: float
    user: str
    item: str
    arm: str
    share: float
    canary: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Exposure:
        """From a line's object; ValueError, KeyError or TypeError where it is something else."""
        arm, share = row["arm"], float(row["share"])
        if arm not in (STABLE, CANARY) or not 0 <= share <= 100:
            raise ValueError("no arm of a canary")
        return cls(_time(row), _text(row, "user"), _text(row, "item"), arm, share, _text(row, "canary"))

    def as_row(self) -> dict[str, Any]:
        """The object that `of` reads."""
        return asdict(self)


@dataclass(frozen=True)
class Click:
    """A click, as the product logs it."""

    time: float
    user: str
    item: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Click:
        """From a line's object; ValueError, KeyError or TypeError where it is something else."""
        return cls(_time(row), _text(row, "user"), _text(row, "item"))


def _time(row: dict[str, Any]) -> float:
    time = float(row["time"])
    if not math.isfinite(time):
        raise ValueError("no time")
    return time


def _text(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError(f"{key} is no text")
    text = str(value)
    if len(text) > _LONGEST_ID:
        raise ValueError(f"{key} is too long")
    return text


class ClickJoin:
    """Counts each showing once and each click for the latest showing of the item to the user, within an hour of it.

    Showings and clicks are taken in by time. The last million showings are kept for clicks to come.
    """

    def __init__(self, test: LossTest, showings: int = SHOWINGS):
        """Counts into `test`; clicks are looked for in the last `showings` showings."""
        self._test = test
        self._size = showings
        self._next = 0  # the number of the next showing; its slot is that modulo the size
        self._latest: dict[int, int] = {}  # user and item -> number of their latest showing
        self._keys, self._before = array("q"), array("q")
        self._times, self._rows, self._columns = array("d"), array("l"), array("h")
        self._clicked = bytearray()
        self._arms = bytearray()

    def shown(self, exposure: Exposure) -> None:
        """Take a showing into account."""
        if not 0 < exposure.share < 100:
            return  # there is no other arm to compare with
        place = self._test.table.place(exposure.user, exposure.share / 100)
        if place is None:
            return
        self._test.table.add(place, exposure.arm, 0, 1)
        row, column = place
        key = hash((exposure.user, exposure.item))
        slot = self._next % self._size
        if slot < len(self._keys):
            if self._latest.get(self._keys[slot]) == self._next - self._size:
                del self._latest[self._keys[slot]]
            self._keys[slot], self._before[slot] = key, self._latest.get(key, -1)
            self._times[slot], self._rows[slot], self._columns[slot] = exposure.time, row, column
            self._clicked[slot], self._arms[slot] = 0, exposure.arm == CANARY
        else:
            self._keys.append(key)
            self._before.append(self._latest.get(key, -1))
            self._times.append(exposure.time)
            self._rows.append(row)
            self._columns.append(column)
            self._clicked.append(0)
            self._arms.append(exposure.arm == CANARY)
        self._latest[key] = self._next
        self._next += 1

    def clicked(self, click: Click) -> None:
        """Take a click into account; a second one on the same showing is no second click."""
        number = self._latest.get(hash((click.user, click.item)), -1)
        while number >= max(0, self._next - self._size):
            slot = number % self._size
            if self._times[slot] <= click.time:
                if click.time - self._times[slot] <= WITHIN_SECONDS and not self._clicked[slot]:
                    self._clicked[slot] = 1
                    arm = CANARY if self._arms[slot] else STABLE
                    self._test.table.add((self._rows[slot], self._columns[slot]), arm, 1, 0)
                return
            number = self._before[slot]


class ClickLog:
    """The files of showings and clicks, joined as they grow. Not safe for several threads."""

    def __init__(self, exposures: Sequence[str], clicks: Sequence[str]):
        """Both are globs of JSON lines."""
        self._exposures = JsonLines(exposures, Exposure.of)
        self._clicks = JsonLines(clicks, Click.of)

    def read(self, join: ClickJoin, canary: str) -> None:
        """Take in what was added since the last reading; showings of another start of a canary do not count."""
        clicks = self._clicks.read()  # their ends are taken first: what was clicked was shown before
        for each in heapq.merge(self._exposures.read(), clicks, key=lambda item: item.time):
            if isinstance(each, Click):
                join.clicked(each)
            elif each.canary == canary:
                join.shown(each)

    @property
    def unread(self) -> int:
        """Lines so far that are not what they should be."""
        return self._exposures.unread + self._clicks.unread

    @property
    def unreadable(self) -> int:
        """Files that match and cannot be read."""
        return self._exposures.unreadable + self._clicks.unreadable


def append_rows(path: str | os.PathLike[str], lines: bytes) -> int:
    """Add whole lines to a file in one write; returns its size after."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        while lines:
            lines = lines[os.write(descriptor, lines) :]
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
