"""Which earlier models may be judged on today's test rows: those that cannot have learnt from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tfx import types

from components.artifacts import COMPARED_WITH, SPLIT
from components.ingest.component import COUNTS_FILE
from components.verdict import read_json

_TRAINED_UNTIL = "trained_until"  # custom property of a blessing: seconds since 1970 of the last training row
_IN_ORDER = ("time", "span")  # ways of splitting in which test rows come after all training rows


@dataclass(frozen=True)
class Split:
    """How the rows of a run were divided: `digest` is equal where it was done alike. Times are None where unknown."""

    digest: str
    by: str
    trained_until: int | None = None
    tested_from: int | None = None

    @classmethod
    def read(cls, text: str, counts: str) -> Split:
        """Read it from JSON, and the times from the folder of ingest's counts."""
        path = os.path.join(counts, COUNTS_FILE)
        found = read_json(path) if os.path.exists(path) else {}
        return cls(
            **json.loads(text), trained_until=found.get("train.max.time"), tested_from=found.get("test.min.time")
        )

    def mark(self, blessing: types.Artifact, compared_with: int | None) -> None:
        """Write down in a blessing what later runs must know to compare with its model."""
        blessing.set_string_custom_property(SPLIT, self.digest)
        if self.trained_until is not None:
            blessing.set_int_custom_property(_TRAINED_UNTIL, int(self.trained_until))
        if compared_with is not None:
            blessing.set_int_custom_property(COMPARED_WITH, compared_with)

    def why_not(self, blessing: types.Artifact) -> str:
        """Return why the model of a blessing cannot be judged on this run's test rows; "" where it can."""
        before = "not comparable: the model last blessed "
        if not blessing.has_custom_property(SPLIT):
            return f"{before}does not say how its rows were split, and may have learnt from today's test rows"
        if blessing.get_string_custom_property(SPLIT) != self.digest:
            return f"{before}learnt from rows that were split another way, and perhaps from today's test rows"
        if self.by in _IN_ORDER and self.tested_from is not None and blessing.has_custom_property(_TRAINED_UNTIL):
            until = blessing.get_int_custom_property(_TRAINED_UNTIL)
            if until > self.tested_from:
                return (
                    f"{before}learnt from rows up to {_shown(until)}, and today's test rows begin at "
                    f"{_shown(self.tested_from)}"
                )
        return ""


def comparable(
    split: Split, models: Sequence[types.Artifact], blessings: Sequence[types.Artifact]
) -> tuple[list[types.Artifact], str]:
    """Return those of the earlier models, the last one first, that may be judged beside the candidate; else why not.

    `blessings` are theirs, in the same order.
    """
    pairs = list(zip(models, blessings, strict=True))
    if not pairs or (why := split.why_not(pairs[0][1])) == "":
        return [model for model, blessing in pairs if not split.why_not(blessing)], ""
    return [], why


def _shown(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
