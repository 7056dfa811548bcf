"""What the names of columns say, in the languages that logs are often written in."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from pipeline.proposal import words
from pipeline.proposal.words import Role

EXACT, NAMED, HINTED = 100, 60, 15  # the name is the role's; holds a word of it; holds one beside that of a property

_AFTERWARDS = re.compile(
    r"propensity|pscore|logging_?policy|^policy$|policy_?(id|name|prob)|dwell|watch_?time|time_?spent|listen(ed)?_?(ms|sec|time)|"
    r"revenue|^reward$|order_?id|transaction_?id|conversion_?value"
)


_EVENT_IDS = re.compile(
    r"(session|impression|request|order|invoice|transaction|basket|receipt|visit|event|log|row|query)s? "
    r"(id|no|nr|num|number|key|uuid)"
    r"|index|unnamed \d+"
)


def fold(name: str) -> str:
    """Return a name in small letters without accents, its words parted by spaces."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.strip())
    letters = "".join(c for c in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(c)).lower()
    return re.sub(r"[\W_]+", " ", letters).strip()


def says(role: Role, name: str) -> int:
    """Return how surely a column's name says that it holds a role: EXACT, NAMED, HINTED or 0."""
    folded = fold(name)
    own = _folded_words(role)
    rest = [t for t in folded.split() if t not in _folded(words.IDS)]
    core = _without_id("".join(rest))
    found = core in own or any(_holds(folded, word) for word in own)
    if not found:
        return 0
    if core in own and len(rest) <= 1:
        return EXACT
    # A property beside the role's word: user_age, 用户年龄. Two words of the role are not: date_time.
    return HINTED if any(_holds(folded, p) for p in _beside(role) - own) else NAMED


def is_title(name: str) -> bool:
    """Whether a name is that of what people call an item."""
    folded = fold(name)
    return any(_holds(folded, word) for word in _folded(words.TITLES))


def is_code(name: str) -> bool:
    """Whether a name is that of codes, whose numbers mean no amount."""
    folded = fold(name)
    return any(_holds(folded, word) for word in _folded(words.CODES))


def is_known_afterwards(name: str) -> bool:
    """Whether a name is that of something which no request can know: how the event went on, or how it was logged."""
    return bool(_AFTERWARDS.search(name.strip().lower()))


def is_event_id(name: str) -> bool:
    """Whether a name is that of a number for the row, the sitting or the order, which never comes back."""
    return bool(_EVENT_IDS.fullmatch(fold(name)))


def _holds(folded: str, word: str) -> bool:
    """Whether a name holds a word: as a word of its own, or, of longer and of unspaced ones, as a part."""
    if not word.isascii():
        return word in folded
    tokens = folded.split()
    if word in tokens:
        return True
    # Compounds, as in Swedish and German: kundnummer, artikelid, klickdatum.
    return len(word) >= 4 and any(t.startswith(word) or (len(word) >= 5 and t.endswith(word)) for t in tokens)


def _without_id(core: str) -> str:
    """Return a compound without its ending for an id: anvandarid, 用户编号, userid."""
    for ending in ("nummer", "编号", "編號", "编码", "番号", "번호", "kod", "code", "id", "nr", "号"):
        ending = fold(ending)
        if core.endswith(ending) and len(core) > len(ending):
            return core.removesuffix(ending)
    return core


@cache
def _folded_words(role: Role) -> frozenset[str]:
    return _folded(words.ROLES[role])


@cache
def _beside(role: Role) -> frozenset[str]:
    """Return the words that make a name one of a property of the role's, not of the role."""
    properties = _folded(words.PROPERTIES)
    if role in ("user", "item"):
        return properties | _folded_words("time") | _folded_words("label") | _folded_words("weight")
    return properties - _folded("type typ tipo kind") if role == "label" else properties


@cache
def _folded(text: str) -> frozenset[str]:
    return frozenset(fold(word) for word in text.split())
