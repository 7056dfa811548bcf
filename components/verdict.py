"""The verdict: one record for all that judge, written by each of them and rendered by whoever tells of it."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from components.outcomes import NodeId

VERDICT_FILE = "verdict.json"
_MOST_REASONS = 8


class Ruling(enum.StrEnum):
    """What was decided."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    SKIPPED = "skipped"


class Direction(enum.StrEnum):
    """On which side of its limit a value has to be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Reason(_Record):
    """One thing that speaks against: a measure, where it was taken, and its limit. `text` says the same to people.

    `slice` is the slice of the examples or, for the data, the split. `value` and `limit` are None for
    what is no number.
    """

    text: str
    metric: str | None = None
    slice: str | None = None
    feature: str | None = None
    value: float | None = None
    limit: float | None = None
    direction: Direction | None = None
    against: str | None = None

    @field_validator("value", "limit")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        return None if value is None or value != value else value


class Verdict(_Record):
    """Who judged, how, why, and what to do next. `summary` is one line with the figures; `details` a file beside it."""

    by: str
    ruling: Ruling
    summary: str
    sentence: str = ""
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()  # what else its reader should know, whatever was decided
    next: str = ""
    details: str = VERDICT_FILE

    @property
    def accepted(self) -> bool:
        """Whether the run goes on."""
        return self.ruling is Ruling.ACCEPTED

    def text(self, folder: str) -> str:
        """Return the reasons, one a line, where all of them are, and what to do next."""
        shown = [f"  - {reason.text}" for reason in self.reasons[:_MOST_REASONS]]
        if len(self.reasons) > _MOST_REASONS:
            shown.append(f"  - and {len(self.reasons) - _MOST_REASONS} more")
        shown += [f"  {note}" for note in self.notes]
        return "\n".join([f"by {self.by}:", *shown, f"  All of it: {folder}/{self.details}", f"  {self.next}"])


def write_verdict(verdict: Verdict, folder: str, details: Mapping[str, Any] | None = None) -> None:
    """Write a verdict, and what else its judge keeps in the same file."""
    content = {**verdict.model_dump(mode="json"), **(details or {})}
    with open(os.path.join(folder, VERDICT_FILE), "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)


def read_verdict(folder: str) -> Verdict:
    """Read a verdict; those of gates that wrote no such record yet are made of what they left."""
    path = os.path.join(folder, VERDICT_FILE)
    found = read_json(path) if os.path.exists(path) else {}
    return Verdict.model_validate(found) if "by" in found else _of_earlier_version(folder, found)


def read_json(path: str) -> Any:
    """Read a JSON file."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def _of_earlier_version(folder: str, evaluated: Mapping[str, Any]) -> Verdict:
    """Read what gates wrote before they had one record: `findings.json`, `serving_check.json`, or judgements alone."""
    if evaluated:
        by, details, accepted = NodeId.EVALUATOR, VERDICT_FILE, evaluated["blessed"]
        failed = [j for j in evaluated["judgements"] if not j["passed"]]
        reasons = [
            Reason(
                text=f"{j['gate']}: {j['slice']}: {j['why']}", metric=j["metric"], slice=j["slice"], value=j["value"]
            )
            for j in failed
        ]
    elif os.path.exists(os.path.join(folder, "findings.json")):
        by, details = NodeId.DATA_GATE, "findings.json"
        found = read_json(os.path.join(folder, details))
        accepted = found["blessed"]
        reasons = [
            Reason(text=f"{f['feature']} in {f['split']}: {f['what']}; {f['value']}", metric=f["measure"],
                   slice=f["split"], feature=f["feature"])
            for f in found["findings"] if f["severity"] == "error"
        ]  # fmt: skip
    else:
        by, details = NodeId.SERVING_CHECK, "serving_check.json"
        problems = read_json(os.path.join(folder, details))["problems"]
        accepted, reasons = not problems, [Reason(text=problem) for problem in problems]
    ruling = Ruling.ACCEPTED if accepted else Ruling.REFUSED
    return Verdict(
        by=by, ruling=ruling, summary=ruling, sentence=f"{by}: {ruling}.", reasons=tuple(reasons), details=details
    )
