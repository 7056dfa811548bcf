"""Which column is the user's, the item's, the event's time, the label's and the weight's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from configs import ConfigError
from configs.data import Label, TimeUnit
from pipeline.proposal import names, words
from pipeline.proposal.names import EXACT, HINTED, NAMED
from pipeline.proposal.sample import Column, Sample
from pipeline.proposal.times import Written, written

_CANDIDATES = 8
_MOST_LEVELS, _MOST_WORDS = 1000, 30
_TRUTHS = (
    {"0", "1"}, {"true", "false"}, {"t", "f"}, {"yes", "no"}, {"y", "n"}, {"ja", "nej"}, {"ja", "nein"}, {"ja", "nee"},
    {"si", "no"}, {"oui", "non"}, {"sim", "nao"}, {"да", "нет"}, {"是", "否"}, {"はい", "いいえ"}, {"예", "아니오"},
)  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What the caller knows about the logs: columns of roles, and how they are written."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    label: str | None = None
    positive: str | None = None
    positives_only: bool = False
    timeless: bool = False
    time_format: str | None = None
    time_unit: TimeUnit | None = None
    format: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class Guess:
    """What a column was taken for, and why."""

    column: str
    role: str
    why: str


@dataclass
class Roles:
    """The columns of roles, and the guesses behind them. Without a label every row is a positive."""

    user: Column
    item: Column
    time: Column | None = None
    written: Written | None = None
    label: Column | None = None
    positive: str = ""
    truth: np.ndarray | None = None  # of shape [rows]: 1 positive, 0 not, NaN where the label is missing
    weight: Column | None = None
    guesses: list[Guess] = field(default_factory=list)

    @property
    def columns(self) -> list[Column]:
        """The columns that have a role."""
        return [c for c in (self.user, self.item, self.time, self.label, self.weight) if c is not None]


def find_roles(sample: Sample, given: Given) -> Roles:
    """Return the roles of a sample's columns. Raises ConfigError, with the option to use, where one is unclear."""
    asked = {role: _asked(sample, role, getattr(given, role)) for role in ("user", "item", "time", "label")}
    taken = [c for c in asked.values() if c is not None]
    times = {c: w for c in sample.columns if (w := _times(c, given)) is not None} if not given.timeless else {}
    likely = _likely_time(times, asked["time"], taken)
    user, item, why = _user_and_item(sample, asked, [c for c in (likely, asked["time"]) if c], times.get(likely))  # type: ignore[arg-type]
    roles = Roles(user, item)
    roles.guesses += [Guess(user.plain, "user", why[0]), Guess(item.plain, "item", why[1])]
    _find_time(roles, sample, given, asked["time"], times)
    _find_label(roles, sample, given, asked["label"])
    if roles.label is None:
        _find_weight(roles, sample)
    return roles


def _asked(sample: Sample, role: str, name: str | None) -> Column | None:
    if name is None:
        return None
    found = sample.find(name)
    if found is None:
        known = ", ".join(c.name for c in sample.columns)
        raise ConfigError(f"{sample.file.path}: no column {name}; it has {known}")
    return found


def _times(column: Column, given: Given) -> Written | None:
    if column.present < 0.5:
        return None
    if (given.time_format or given.time_unit) and given.time in (column.name, column.plain):
        return written(column, given.time_format, given.time_unit)
    return written(column)


def _likely_time(times: dict[Column, Written], asked: Column | None, taken: list[Column]) -> Column | None:
    """Return the column that is surely the event's time by its name, if any."""
    if asked is not None:
        return asked if asked in times else None
    named = [c for c, w in times.items() if names.says("time", c.name) >= NAMED and w.moves and c not in taken]
    return max(named, key=lambda c: (names.says("time", c.name), c.distinct), default=None)


def _user_and_item(
    sample: Sample, asked: dict[str, Column | None], times: Iterable[Column], when: Written | None
) -> tuple[Column, Column, tuple[str, str]]:
    """Return the two columns that fit best together, by their names and by how they go together."""
    free = [c for c in sample.columns if c not in times and c is not asked["label"]]
    users = [asked["user"]] if asked["user"] else _ids(free, "user")
    items = [asked["item"]] if asked["item"] else _ids(free, "item")
    pairs = [(u, i) for u in users for i in items if u is not i]
    if not pairs:
        raise ConfigError(
            f"{sample.file.path}: cannot tell which columns are the user's and the item's of "
            f"{', '.join(c.name for c in sample.columns)}; say them with --user COLUMN and --item COLUMN"
        )
    scores = {pair: _pair_score(sample, *pair, when, asked) for pair in pairs}
    user, item = best = max(pairs, key=lambda pair: scores[pair])
    turned = scores.get((item, user), -np.inf)
    sure = scores[best] - turned > 10
    reasons = []
    for role, column in (("user", user), ("item", item)):
        count = f"{column.distinct:,} different value{'s' if column.distinct != 1 else ''}"
        if asked[role] is not None:
            reasons.append("you said so")
        elif names.says(role, column.name) >= NAMED:  # type: ignore[arg-type]
            reasons.append(f"its name; {count}")
        else:
            doubt = "" if sure else "; user and item may be the other way about: --user and --item say it"
            reasons.append(f"{count}, as ids have{doubt}")
    return user, item, (reasons[0], reasons[1])


def _ids(columns: list[Column], role: names.Role) -> list[Column]:
    """Return the columns that could be ids, the likeliest first."""

    def fits(column: Column) -> bool:
        named = names.says(role, column.name)
        if column.present < 0.5 or (column.is_number and not column.is_whole) or names.is_event_id(column.name):
            return False
        if named >= NAMED:
            return column.distinct >= 1
        other = max(names.says(r, column.name) for r in ("label", "time", "weight"))
        if other >= NAMED and named == 0:
            return False
        return 2 < column.distinct < 0.9 * column.rows

    fitting = [c for c in columns if fits(c)]
    return sorted(fitting, key=lambda c: (names.says(role, c.name), c.distinct), reverse=True)[:_CANDIDATES]


def _pair_score(
    sample: Sample, user: Column, item: Column, when: Written | None, asked: dict[str, Column | None]
) -> float:
    score = float(names.says("user", user.name) + names.says("item", item.name))
    score -= 0.5 * (names.says("item", user.name) + names.says("user", item.name))
    score += 6 * (np.log10(min(user.distinct, 10_000)) + np.log10(min(item.distinct, 10_000)))
    both = (user.codes >= 0) & (item.codes >= 0)
    pairs = len(np.unique(user.codes[both].astype(np.int64) * item.distinct + item.codes[both]))
    if user.distinct > 1 and pairs <= 1.02 * max(user.distinct, item.distinct) and pairs < 0.9 * both.sum():
        score -= 80.0  # one follows from the other: a property, or another name for the same
    score += 1.0 if sample.columns.index(user) < sample.columns.index(item) else 0.0
    score += 2.0 if user.distinct > item.distinct else 0.0  # of most logs
    if when is not None:
        score += 10.0 * float(np.clip(np.log2(_gap(item, when) / _gap(user, when)), -1, 1))
    return score


def _gap(column: Column, when: Written) -> float:
    """Return how far apart an id's events are against those of ids that come by chance: people act in sittings."""
    known = (column.codes >= 0) & np.isfinite(when.seconds)
    ids, seconds = column.codes[known], when.seconds[known]
    order = np.lexsort((seconds, ids))
    same = ids[order][1:] == ids[order][:-1]
    gaps = np.diff(seconds[order])[same]
    span = max(float(np.ptp(seconds)), 1.0) if len(seconds) else 1.0
    rows = len(seconds) / max(len(np.unique(ids)), 1)
    return (float(np.median(gaps)) + 1.0) / (span / max(rows, 1.0)) if len(gaps) else 1.0


def _find_time(roles: Roles, sample: Sample, given: Given, asked: Column | None, times: dict[Column, Written]) -> None:
    if given.timeless:
        roles.guesses.append(Guess("(none)", "time", "you said so: no order, so no splits or features by time"))
        return
    if asked is not None:
        if asked not in times:
            shown = ", ".join(map(repr, asked.levels.head(3)))
            raise ConfigError(
                f"--time {asked.name}: {shown} is no time that could be read; say how it is written with "
                "--time-format, such as '%d/%m/%Y %H:%M', or with --time-unit s, ms, us, ns or iso8601"
            )
        _take_time(roles, asked, times[asked], "you said so")
        return
    free = [c for c in times if c not in (roles.user, roles.item)]
    still = [c for c in free if not times[c].moves]
    moving = [c for c in free if times[c].moves]
    own = [c for c in moving if _property_of(c, roles) is None]
    found = max(own, key=lambda c: (names.says("time", c.name), c.distinct), default=None)
    for column in still:
        roles.guesses.append(Guess(column.plain, "left out", "a time, but all are equal: it tells no order"))
    if found is None:
        known = (*times, roles.user, roles.item)
        unread = [
            c for c in sample.columns if c not in known and names.says("time", c.name) >= NAMED and not c.is_number
        ]
        why = "no column is the time of the event: no order, so no splits or features by time"
        if unread:
            why += f"; {unread[0].name} may be one: --time and --time-format say how it is written"
        roles.guesses.append(Guess("(none)", "time", why))
        return
    others = [c.name for c in moving if c is not found]
    why = (
        "its name" if names.says("time", found.name) else "the only column that could be" if not others else "it moves"
    )
    _take_time(roles, found, times[found], why + (f"; also possible: {', '.join(others)}" if others else ""))


def _take_time(roles: Roles, column: Column, how: Written, why: str) -> None:
    roles.time, roles.written = column, how
    form = (
        f"written as {how.form}" if how.form else "ISO 8601" if how.unit == "iso8601" else f"in {how.unit} since 1970"
    )
    doubt = f"; {how.other} would fit too: --time-format says it" if how.other else ""
    roles.guesses.append(Guess(column.plain, "time", f"{why}; {form}{doubt}"))


def _property_of(column: Column, roles: Roles, fewest: int = 10) -> str | None:
    """Return whose property a column is: always the same for nearly every user, or item; None where it changes.

    Where fewer ids than `fewest` have several rows, nothing can be told.
    """
    for role, owner in (("user", roles.user), ("item", roles.item)):
        same = column.same_within(owner, fewest)
        if owner.distinct > 1 and same is not None and same > 0.97:
            return role
    return None


def _find_label(roles: Roles, sample: Sample, given: Given, asked: Column | None) -> None:
    if given.positives_only:
        roles.guesses.append(Guess("(none)", "label", "you said so: every row is a positive"))
        return
    free = [c for c in sample.columns if c not in roles.columns]
    column, why = asked, "you said so"
    if column is None:
        column, why = _likely_label(free, roles)
    if column is None:
        roles.guesses.append(Guess("(none)", "label", why))
        return
    positive = given.positive or _positive(column)
    roles.label, roles.positive = column, positive
    roles.truth = _truth(column, positive)
    share = float(np.nanmean(roles.truth)) if np.isfinite(roles.truth).any() else 0.0
    if share in (0.0, 1.0):
        if asked is not None or given.positive:
            what = "every" if share else "no"
            raise ConfigError(f"{sample.file.path}: {what} row has {column.name} {positive}; say another --positive")
        roles.label, roles.truth = None, None
        roles.guesses.append(Guess("(none)", "label", f"{column.name} is always the same: every row is a positive"))
        return
    roles.guesses.append(Guess(column.plain, "label", why))
    roles.guesses.append(Guess(column.plain, "label", f"positive where {positive}: {share:.1%} of rows"))


def _likely_label(free: list[Column], roles: Roles) -> tuple[Column | None, str]:
    """Return the column that says how it went, and why; or None and why not."""
    fitting = [
        c for c in free if c.present > 0.5 and c.distinct >= 2 and _few_levels(c) and _property_of(c, roles) is None
    ]
    named = [c for c in fitting if names.says("label", c.name) >= NAMED]
    if named:
        best = max(named, key=lambda c: (names.says("label", c.name) == EXACT, -free.index(c)))
        others = [c.name for c in named if c is not best]
        return best, "its name" + (f"; also possible: {', '.join(others)}" if others else "")
    truths = [c for c in fitting if _is_truth(c)]
    hinted = [c for c in truths if names.says("label", c.name) == HINTED] or truths
    if len(hinted) > 1:
        raise ConfigError(
            f"cannot tell which column is the label: {', '.join(c.name for c in hinted)} would do; say it with --label "
            "COLUMN, or --positives-only where every row is a positive"
        )
    if hinted:
        return hinted[0], "the only column that says yes or no"
    return None, "no column says how it went: every row is a positive"


def _few_levels(column: Column) -> bool:
    return column.distinct <= (_MOST_LEVELS if column.is_number else _MOST_WORDS)


def _is_truth(column: Column) -> bool:
    return column.distinct == 2 and {names.fold(level) or level for level in column.levels} in _TRUTHS


def _positive(column: Column) -> str:
    """Return the condition that makes a row positive."""
    found = {names.fold(level) or level: level for level in column.levels}
    if found.keys() <= {"true", "false"}:
        return "> 0"
    if column.is_number:
        known = np.isfinite(column.numbers)
        numbers = column.numbers[known]
        levels = np.unique(numbers)
        if len(levels) < 2:
            return f">= {levels[0]:g}" if len(levels) else "> 0"
        if len(levels) == 2:
            return "> 0" if levels[0] == 0 else f">= {levels[1]:g}"
        # Ratings: the upper ones that hold nearest to half of the rows.
        shares = [abs((numbers >= level).mean() - 0.5) for level in levels[1:]]
        return f">= {levels[1:][int(np.argmin(shares))]:g}"
    for word in map(names.fold, words.POSITIVES.split()):
        if word in found:
            return f"== {found[word]}"
    return f"== {column.levels[int(np.argmin(column.counts))]}"


def _truth(column: Column, positive: str) -> np.ndarray:
    """Return which rows are positive, NaN where the label is missing."""
    label = Label(column=column.plain if column.plain else "label", positive=positive)
    if isinstance(label.operand, float):
        said = column.levels.str.strip().str.lower()
        values = np.where(said == "true", 1.0, np.where(said == "false", 0.0, column.level_numbers))
        known = np.isfinite(values)
    else:
        values, known = column.levels.to_numpy(), np.ones(column.distinct, bool)
    compare = {
        ">=": np.greater_equal, "<=": np.less_equal, ">": np.greater, "<": np.less, "==": np.equal, "!=": np.not_equal,
    }[label.operator]  # fmt: skip
    truth = np.where(known, compare(values, label.operand), np.nan).astype(np.float64)
    return np.append(truth, np.nan)[column.codes]


def _find_weight(roles: Roles, sample: Sample) -> None:
    """Take a count of plays or pieces as what a positive counts."""
    for column in sample.columns:
        if column in roles.columns or names.says("weight", column.name) < NAMED or not column.is_number:
            continue
        numbers = column.numbers
        if column.distinct > 1 and column.present > 0.99 and np.nanmin(numbers) > 0 and not _property_of(column, roles):
            roles.weight = column
            roles.guesses.append(Guess(column.plain, "weight", "its name; how much a positive counts"))
            return
