"""Interaction logs of any size from a model we know, so that the best score any other model could reach is known too.

Users come in sessions, items are shown by Zipf's law, some users and items appear only later, tastes and the mix of
devices drift, values are missing or not ASCII. Each row's click probability p is a function of its columns alone:

    logit p = b + user + item + drift(item, t) + <taste(user), style(item)> + country x category + age x category
              + device + device x hour + price

and the label is one draw from it. Memory does not grow with the rows: one chunk, and the tables of users and items.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interactions.files import Target, split_name

START = datetime(2024, 1, 1, tzinfo=UTC)

_CHUNK = 1 << 17
_BINS = 1 << 16
_COUNTRIES = ("Deutschland", "Österreich", "España", "Ελλάδα", "Россия", "日本", "Brasil", "India", None)
_COUNTRY_SHARES = (0.2, 0.08, 0.12, 0.05, 0.1, 0.12, 0.13, 0.15, 0.05)
_CATEGORIES = (
    "art",
    "ciência",
    "comédie",
    "drama",
    "история",
    "jazz",
    "krimi",
    "メカ",
    "nature",
    "sport",
    "туры",
    "zoo",
)
_DEVICES = ("phone", "tablet", "télé", "web", None)
_DEVICE_SHARES = ((0.3, 0.15, 0.13, 0.4, 0.02), (0.55, 0.1, 0.13, 0.2, 0.02))  # at the start, at the end
_HOUR_SHARES = (2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 6, 6, 5, 5, 5, 6, 7, 9, 10, 9, 6, 4)
_TASTES = 4
_MEAN_SESSION = 6
_MEAN_GAP_SECONDS = 40


@dataclass(frozen=True)
class Ceiling:
    """What the true probabilities score on the labels drawn: no model does better but by chance.

    `logloss` is exact, in nats. `auc` comes from a histogram of 65,536 bins; it is right within `auc_error`, which is
    half the share of positive-negative pairs that fall into one bin. Both are NaN where all labels are equal.
    """

    rows: int
    click_rate: float
    logloss: float
    auc: float
    auc_error: float


@dataclass(frozen=True)
class Generated:
    """The files written, in order of time, and the ceilings on all rows and on the newest tenth."""

    files: tuple[Path, ...]
    all: Ceiling
    newest: Ceiling


def generate(
    path: str | Path,
    rows: int,
    seed: int = 1,
    *,
    files: int = 1,
    users: int | None = None,
    items: int | None = None,
    days: float = 28.0,
    click_rate: float = 0.2,
    late: float = 0.3,
    drift: float = 1.0,
    probability: bool = False,
    advance: Callable[[int], None] = lambda rows: None,
) -> Generated:
    """Write `rows` rows of logs, in the format that `path`'s name ends in, and return files and ceilings.

    Columns: `user_id`, `item_id`, `timestamp` (s since 1970), `clicked` (0 or 1), `country`, `age`, `device`,
    `categories` (separated by `|`), `price`, `title`, and with `probability` the true `click_probability`. The same
    arguments give the same bytes; neither the format nor `files` changes the rows. They are in order of time but where
    sessions run over the end of a chunk of 131,072 rows. With more than one file they are
    named NAME-00000-of-00004.EXT and so on. `late` is the share of users and of items that appear after the start,
    `drift` scales how much items rise and fall over time.
    `advance` is told the rows of each chunk as they are written. Raises ValueError for arguments out of range and
    OSError where a file cannot be written; each file appears by one rename.
    """
    path = Path(path)
    stem, extension = split_name(path)
    users = min(max(rows // 40, 50), 1_000_000) if users is None else users
    items = min(max(rows // 100, 30), 200_000) if items is None else items
    _require(rows >= 1, f"rows: expected at least 1, got {rows}")
    _require(1 <= files <= rows, f"files: expected from 1 to the number of rows, got {files}")
    _require(users >= 2 and items >= 2, f"users and items: expected at least 2 each, got {users} and {items}")
    _require(days > 0, f"days: expected above 0, got {days}")
    _require(0 < click_rate < 1, f"click_rate: expected between 0 and 1, got {click_rate}")
    _require(0 <= late <= 0.9, f"late: expected from 0 to 0.9, got {late}")

    world = _World(np.random.default_rng([seed, 0]), users, items, late, days, click_rate, drift)
    names = [path] if files == 1 else [path.with_name(f"{stem}-{n:05}-of-{files:05}{extension}") for n in range(files)]
    ends = [rows * (n + 1) // files for n in range(files)]
    whole, newest = _Scores(), _Scores()
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with contextlib.ExitStack() as leftovers:
        target = Target(names[0], extension, leftovers)
        current = 0
        for table, p in world.chunks(rows, seed):
            clicked = table["clicked"].to_numpy()
            whole.add(p, clicked)
            first_new = max(0, rows * 9 // 10 - done)
            newest.add(p[first_new:], clicked[first_new:])
            table = table.append_column("click_probability", pa.array(p)) if probability else table
            start = 0
            while start < len(table):
                count = min(len(table) - start, ends[current] - done)
                target.write(table.slice(start, count))
                start, done = start + count, done + count
                if done == ends[current]:
                    target.finish()
                    current += 1
                    if current < files:
                        target = Target(names[current], extension, leftovers)
            advance(len(table))
    return Generated(tuple(names), whole.ceiling(), newest.ceiling())


def config_text(path: str | Path, files: int = 1) -> str:
    """Return a config for the logs that `generate` writes to `path`, to be kept in the same folder."""
    path = Path(path)
    stem, extension = split_name(path)
    source = path.name if files == 1 else f"{stem}-*-of-{files:05}{extension}"
    return _CONFIG.format(source=json.dumps(source, ensure_ascii=False))  # a JSON text is a YAML text


_CONFIG = """\
# Logs made by `recsys data synthetic`: will this user click this item?
#   recsys run synthetic.yaml
name: synthetic
data:
  source: {source}
  user: user_id
  item: item_id
  time: timestamp
  label: {{column: clicked, positive: "== 1"}}
  split: {{by: time, eval: 0.1, test: 0.1}}
  display: title
features:
  user_id:    {{kind: vocabulary, of: user, top: 100000, min_count: 2, oov: 8}}
  item_id:    {{kind: vocabulary, of: item, top: 100000, min_count: 2, oov: 8}}
  country:    {{kind: vocabulary, of: user}}
  age:        {{kind: bucketized, of: user, buckets: 8}}
  device:     {{kind: vocabulary, of: context}}
  categories: {{kind: vocabulary, of: item, separator: "|"}}
  price:      {{kind: numeric, of: item, scale: log}}
  hour:       {{kind: time, part: hour}}
  country_device: {{kind: crossed, cross: [country, device], buckets: 100}}
model: {{type: deepfm, embedding_dim: 8, hidden: [64, 32], dropout: 0.2}}
evaluation:
  slices: [[device], [cold_user], [user_activity]]
  gates:
    - {{metric: auc, beats: item_mean, by: 0.01}}
    - {{metric: auc, not_below: blessed, by: 0.01}}
runs: {{folder: runs}}
serving: {{folder: served}}
"""


class _World:
    """Users, items and the true model. Tables are indexed by user or item number."""

    def __init__(
        self,
        rng: np.random.Generator,
        users: int,
        items: int,
        late: float,
        days: float,
        click_rate: float,
        drift: float = 1.0,
    ) -> None:
        self._days = days
        self._users = _Population(rng, users, 0.7, late)
        self._items = _Population(rng, items, 1.05, late)

        country = rng.choice(len(_COUNTRIES), users, p=_COUNTRY_SHARES)
        age = rng.gamma(6.0, 5.0, users).astype(np.int64) + 12
        no_age = rng.random(users) < 0.1
        age_band = np.where(no_age, 7, np.clip(age // 10 - 1, 0, 6))
        belongs = rng.permuted(np.tile(np.arange(len(_CATEGORIES)), (items, 1)), axis=1)[:, :3]
        kept = np.arange(3) < rng.integers(1, 4, (items, 1))
        membership = np.zeros((items, len(_CATEGORIES)), np.float32)
        np.put_along_axis(membership, belongs, kept.astype(np.float32), axis=1)
        membership /= membership.sum(axis=1, keepdims=True)
        price = np.round(np.exp(rng.normal(2.5, 1.2, items)), 2)
        no_price = rng.random(items) < 0.05

        self._country, self._age_band = country, age_band
        self._country_item = (rng.normal(0, 0.6, (len(_COUNTRIES), len(_CATEGORIES))) @ membership.T).astype(np.float32)
        self._age_item = (rng.normal(0, 0.6, (8, len(_CATEGORIES))) @ membership.T).astype(np.float32)
        self._taste = rng.normal(0, 0.6, (users, _TASTES)).astype(np.float32)
        self._style = rng.normal(0, 0.6, (items, _TASTES)).astype(np.float32)
        self._user_effect = rng.normal(0, 0.5, users)
        self._item_effect = rng.normal(0, 0.7, items) - np.where(no_price, 0.3, 0.25 * (np.log(price) - 2.5))
        self._item_trend = drift * rng.normal(0, 0.6, items)
        self._device_hour = rng.normal(0, 0.2, (len(_DEVICES), 24)) + rng.normal(0, 0.3, (len(_DEVICES), 1))

        self._user_ids = _numbered(users)
        letters = pa.array(["a", "é", "ж", "日"]).take(pa.array(np.arange(items) % 4))
        self._item_ids = pc.binary_join_element_wise(letters, _numbered(items), "-")
        categories = pa.array(_CATEGORIES)
        lists = pa.ListArray.from_arrays(
            np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32),
            categories.take(pa.array(belongs[kept])),
        )
        self._categories = pc.binary_join(lists, "|")
        self._titles = pc.binary_join_element_wise(categories.take(pa.array(belongs[:, 0])), _numbered(items), " № ")
        self._countries = pa.array(_COUNTRIES)
        self._ages = pa.array(age, mask=no_age)
        self._prices = pa.array(price, mask=no_price)

        self._bias = 0.0
        sample = self._events(rng, 1 << 15, 0.0, 1.0)
        self._bias = _bias_for(click_rate, self._logits(*sample))

    def chunks(self, rows: int, seed: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield tables of logs and their true click probabilities, [rows of the chunk] float64, in order of time."""
        for number, begin in enumerate(range(0, rows, _CHUNK)):
            count = min(_CHUNK, rows - begin)
            rng = np.random.default_rng([seed, 1, number])
            user, item, device, seconds = self._events(rng, count, begin / rows, (begin + count) / rows)
            p = 1.0 / (1.0 + np.exp(-self._logits(user, item, device, seconds)))
            clicked = (rng.random(count) < p).astype(np.int64)
            by_user, by_item = pa.array(user), pa.array(item)
            columns = {
                "user_id": self._user_ids.take(by_user),
                "item_id": self._item_ids.take(by_item),
                "timestamp": pa.array(seconds + int(START.timestamp())),
                "clicked": pa.array(clicked),
                "country": self._countries.take(pa.array(self._country[user])),
                "age": self._ages.take(by_user),
                "device": pa.array(_DEVICES).take(pa.array(device)),
                "categories": self._categories.take(by_item),
                "price": self._prices.take(by_item),
                "title": self._titles.take(by_item),
            }
            yield pa.table(columns), p

    def _events(
        self, rng: np.random.Generator, count: int, begin: float, end: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw `count` events of sessions that start in this part of the time: user, item, device, whole seconds."""
        lengths = rng.geometric(1 / _MEAN_SESSION, count)
        sessions = int(np.searchsorted(np.cumsum(lengths), count)) + 1
        lengths = lengths[:sessions]
        session = np.repeat(np.arange(sessions), lengths)[:count]
        starts = np.sort(rng.uniform(begin, end, sessions))
        user = self._users.draw(rng, starts)[session]
        shares = starts[:, None] * np.diff(_DEVICE_SHARES, axis=0) + _DEVICE_SHARES[0]
        device = (rng.random((sessions, 1)) > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)[session]
        item = self._items.draw(rng, starts[session])

        waited = np.cumsum(rng.exponential(_MEAN_GAP_SECONDS, count))
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        clock = _daily_rhythm(starts * self._days) * 86400.0
        seconds = (clock[session] + waited - waited[first][session]).astype(np.int64)
        order = np.argsort(seconds, kind="stable")
        return user[order], item[order], device[order], seconds[order]

    def _logits(self, user: np.ndarray, item: np.ndarray, device: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        t = seconds / (self._days * 86400.0)
        return (
            self._bias
            + self._user_effect[user]
            + self._item_effect[item]
            + self._item_trend[item] * (t - 0.5)
            + np.einsum("nk,nk->n", self._taste[user], self._style[item])
            + self._country_item[self._country[user], item]
            + self._age_item[self._age_band[user], item]
            + self._device_hour[device, seconds // 3600 % 24]
        )


class _Population:
    """Numbers drawn by Zipf's law among those that have arrived: weight 1 / rank^exponent, ranks in random order."""

    def __init__(self, rng: np.random.Generator, size: int, exponent: float, late: float) -> None:
        self._by_rank = rng.permutation(size)
        self._arrival = np.where(rng.random(size) < late, rng.random(size), 0.0)  # as a share of the whole time
        self._arrival[self._by_rank[0]] = 0.0
        weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._there = self._by_rank[self._arrival[self._by_rank] == 0.0]
        there = weights[self._arrival[self._by_rank] == 0.0]
        self._there_cumulative = np.cumsum(there) / there.sum()

    def draw(self, rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
        """Draw one number for each time, from 0 to 1; one not arrived yet gives way to one there from the start."""
        drawn = self._by_rank[_inverse(self._cumulative, rng.random(len(times)))]
        early = self._arrival[drawn] > times
        drawn[early] = self._there[_inverse(self._there_cumulative, rng.random(int(early.sum())))]
        return drawn


class _Scores:
    """LogLoss and AUC of probabilities, summed up as chunks come."""

    def __init__(self) -> None:
        self._loss = 0.0
        self._histogram = np.zeros((2, _BINS), np.int64)  # by label, by probability

    def add(self, p: np.ndarray, clicked: np.ndarray) -> None:
        self._loss -= float(np.log(np.where(clicked == 1, p, 1.0 - p)).sum())
        bins = np.minimum((p * _BINS).astype(np.int64), _BINS - 1) + clicked * _BINS
        self._histogram += np.bincount(bins, minlength=2 * _BINS).reshape(2, _BINS)

    def ceiling(self) -> Ceiling:
        negatives, positives = self._histogram.astype(np.float64)
        rows, pairs = float(self._histogram.sum()), float(negatives.sum() * positives.sum())
        tied = 0.5 * float(positives @ negatives)
        below = float(positives @ (np.cumsum(negatives) - negatives))
        auc, auc_error = ((below + tied) / pairs, tied / pairs) if pairs else (float("nan"), float("nan"))
        return Ceiling(int(rows), float(positives.sum()) / rows, self._loss / rows, auc, auc_error)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _numbered(count: int) -> pa.Array:
    """Return 0 to count - 1 as text with leading zeros, at least six digits."""
    return pc.utf8_lpad(pa.array(np.arange(count)).cast(pa.string()), max(6, len(str(count - 1))), "0")


def _inverse(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(cumulative, uniform, side="right"), len(cumulative) - 1)


def _daily_rhythm(days: np.ndarray) -> np.ndarray:
    """Move times within each day, keeping their order, so that hours get the shares of `_HOUR_SHARES`."""
    cumulative = np.concatenate([[0], np.cumsum(_HOUR_SHARES)]) / sum(_HOUR_SHARES)
    return np.floor(days) + np.interp(days % 1.0, cumulative, np.arange(25) / 24)


def _bias_for(rate: float, logits: np.ndarray) -> float:
    """Find b, by halving, so that the mean of sigmoid(logits + b) is `rate`."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if float(np.mean(1 / (1 + np.exp(-logits - middle)))) < rate else (low, middle)
    return (low + high) / 2
