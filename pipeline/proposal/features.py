"""What the other columns become: features, the item's name, or nothing, each with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from components import leaks
from pipeline.proposal import names
from pipeline.proposal.roles import Guess, Roles
from pipeline.proposal.sample import Column, Sample

MANY_VALUES = 1_000_000
_HASH_FROM = 100_000
_RARELY = 0.02  # share of rows below which a column is left out
_SAME = 0.9  # share of an owner's ids whose value never changes that makes a column the owner's
_SMALL_NUMBERS = 12
_CODES, _ROWS_A_CODE = 1000, 20
_PAST = 200
_SEPARATORS = ("|", ";", ",")


class Features:
    """The feature table of a sample, the column that names items, and the guesses behind both."""

    def __init__(self, sample: Sample, roles: Roles):
        self._sample = sample
        self._roles = roles
        self.guesses: list[Guess] = []
        self.display: str | None = None
        self.table: dict[str, dict[str, Any]] = {}
        self.table[roles.user.plain] = _text("user", roles.user.distinct, oov=4)
        self.table[roles.item.plain] = _text("item", roles.item.distinct, oov=4)
        for column in sample.columns:
            if column not in roles.columns:
                self._add(column)
        self._add_times()

    def _add(self, column: Column) -> None:
        if any(guess.column == column.plain and guess.role == "left out" for guess in self._roles.guesses):
            return
        why_not = self._left_out(column)
        if why_not is not None:
            self.guesses.append(Guess(column.plain, "left out", why_not))
            return
        owner, why = self._owner(column)
        if column.is_number and not _is_code(column):
            self.table[column.plain] = {"kind": "bucketized", "of": owner, "buckets": 10}
            self.guesses.append(Guess(column.plain, f"{owner}, number in 10 quantile buckets", why))
            return
        if self._names_items(column, owner):
            self.display = column.plain
            self.guesses.append(Guess(column.plain, "display", "names an item to people; not a feature"))
            return
        separator = _separator(column)
        if separator is None and column.distinct > 0.2 * column.counts.sum():
            why = f"{column.distinct:,} different values of {int(column.counts.sum()):,}"
            self.guesses.append(Guess(column.plain, "left out", why))
            return
        self.table[column.plain] = _text(owner, column.distinct, separator=separator)
        several = f" split on {separator!r}" if separator else ""
        kind = "number of a code, read as text" if column.is_number and column.distinct > _SMALL_NUMBERS else "text"
        self.guesses.append(Guess(column.plain, f"{owner}, {kind}{several}", why))

    def _left_out(self, column: Column) -> str | None:
        if column.distinct == 0:
            return "it is always empty"
        if column.distinct < 2 and column.present > 0.98:
            return "it never changes"
        if column.present < _RARELY:
            return f"only {column.present:.1%} of rows have it"
        if names.is_event_id(column.name):
            return "its name is that of an event's own number, which never comes back"
        if self._same_as_an_id(column):
            return "it says the same as an id"
        if names.is_known_afterwards(column.name):
            return "its name is that of something known only after the event, or by the logging alone"
        leak = self._leak(column)
        if leak is not None and leak.suspicious:
            return f"it gives the label away: {leak}"
        return None

    def _leak(self, column: Column) -> leaks.Leak | None:
        truth = self._roles.truth
        if truth is None:
            return None
        known = np.isfinite(truth) & (self._roles.user.codes >= 0)
        values = column.numbers if column.is_number else column.codes
        return leaks.measure(values[known], truth[known], self._roles.user.codes[known])

    def _same_as_an_id(self, column: Column) -> bool:
        """Whether a column is the user's or item's id once more, in another system."""
        if not names.is_code(column.name):
            return False
        for owner in (self._roles.user, self._roles.item):
            pairs = len(np.unique(owner.codes.astype(np.int64) * (column.distinct + 1) + column.codes))
            if owner.distinct > 20 and column.distinct == owner.distinct == pairs:
                return True
        return False

    def _owner(self, column: Column) -> tuple[str, str]:
        roles = self._roles
        same = {role: column.same_within(owner) or 0.0 for role, owner in (("user", roles.user), ("item", roles.item))}
        if roles.user.distinct == 1:
            same["user"] = 0.0
        best = max(same, key=lambda role: same[role])
        if same[best] > _SAME:
            return best, f"the same for {same[best]:.0%} of {best}s"
        return "context", "changes for users and for items"

    def _names_items(self, column: Column, owner: str) -> bool:
        if self.display is not None or column.present < 0.5 or column.is_number:
            return False
        if owner != "item" and not (names.is_title(column.name) and self._roles.item.same_within(column) is None):
            return False
        several = column.distinct > 0.5 * self._roles.item.distinct
        return several and (names.is_title(column.name) or _separator(column) is None) and column.distinct > 20

    def _add_times(self) -> None:
        written = self._roles.written
        if written is None:
            return
        taken = {c.plain.lower() for c in self._sample.columns}
        for part in ("hour", "weekday"):
            if part == "hour" and not written.has_hours:
                continue
            name = part if part not in taken else f"event_{part}"
            if name in taken:
                continue
            self.table[name] = {"kind": "time", "part": part}
        if self._roles.label is None:
            # What a user met up to the event: so that a model need not be trained again to know of it.
            name = next(n for n in ("past", "past_items", f"past_{self._roles.item.plain}") if n not in taken)
            self.table[name] = {"kind": "sequence", "feature": self._roles.item.plain, "length": _PAST}


def _is_code(column: Column) -> bool:
    """Whether the numbers of a column are names: few of them, with leading zeros, or of places and kinds."""
    if column.distinct <= _SMALL_NUMBERS:
        return True
    if not column.is_whole:
        return False
    zeros = column.levels.str.strip().str.match(r"0\d")
    if float((column.counts * zeros.to_numpy(bool)).sum() / max(column.counts.sum(), 1)) > 0.01:
        return True
    rows = int(column.counts.sum())
    if names.is_code(column.name):
        return column.distinct <= 0.2 * rows
    # Amounts lie close to one another; codes leave gaps. Where each is there often, nothing is lost by names.
    numbers = column.level_numbers[np.isfinite(column.level_numbers)]
    sparse = column.distinct < 0.05 * (numbers.max() - numbers.min())
    round_numbers = float((numbers % 10 == 0).mean()) > 0.5 or float((numbers % 100 == 99).mean()) > 0.3
    return bool(sparse and not round_numbers and column.distinct <= _CODES and rows >= _ROWS_A_CODE * column.distinct)


def _text(owner: str, distinct: int, oov: int = 1, separator: str | None = None) -> dict[str, Any]:
    if distinct > _HASH_FROM:
        return {"kind": "hashed", "of": owner, "buckets": MANY_VALUES}
    feature: dict[str, Any] = {"kind": "vocabulary", "of": owner}
    if oov > 1:
        feature["oov"] = oov
    if distinct > 10_000:
        feature["min_count"] = 2
    if separator:
        feature["separator"] = separator
    return feature


def _separator(column: Column) -> str | None:
    """Return what parts several values in the cells of a column, if they hold several that come back in other cells."""
    levels = column.levels
    for separator in _SEPARATORS:
        has = levels.str.contains(separator, regex=False).to_numpy(bool)
        if not has.any() or float((column.counts * has).sum() / column.counts.sum()) <= 0.15:
            continue
        cells = levels[has].head(2000)
        parts = [part.strip() for cell in cells for part in cell.split(separator)]
        if separator == "," and _are_numbers_with_commas(cells):
            continue
        if len(set(parts)) < 0.5 * len(parts) and (len(set(parts)) < 0.5 * len(cells) or len(set(parts)) <= 50):
            return separator
    return None


def _are_numbers_with_commas(cells: pd.Series) -> bool:
    return bool(cells.str.fullmatch(r"\s*[^\d\s]?\s*[+-]?\d+(?:,\d+)(?:[.,]\d+)*\s*[^\d\s]{0,3}\s*").mean() > 0.9)
