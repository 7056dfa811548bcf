"""Artifact types of ours; the rest are TFX's standard ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfx.types.artifact import Artifact

from components.report import REPORT_TYPE
from components.verdict import Verdict, write_verdict

VERDICT = "blessed"  # custom property of a gate's output: 1 goes on, 0 stops the run (TFX's ModelBlessing has the same)

PUSHED = "pushed"  # custom property of the pusher's output: 0 where a newer span is served and nothing was pushed
SPAN = "span"  # custom property of a gate's output: the span that its run is for, 0 where the logs have none

SPLIT = "split"  # of a model's blessing: digest of how the rows were divided, see components/evaluator/comparable.py
COMPARED_WITH = "compared_with"  # of a model's blessing: id of the blessing whose model was evaluated beside it


class Catalogue(Artifact):
    """`users/` and `items/`: Parquet with each id's newest columns, for clients that need features of an id."""

    TYPE_NAME = "recsys.Catalogue"


class IngestReport(Artifact):
    """`counts.json`: rows, positives and cold rows a split. `dead_letters.jsonl`: malformed rows and why."""

    TYPE_NAME = "recsys.IngestReport"


class DataBlessing(Artifact):
    """`verdict.json`; `findings.json`: its findings; `baseline.pb`: what the next run's drift is held to."""

    TYPE_NAME = "recsys.DataBlessing"


class RunReport(Artifact):
    """`report.html`: the page of a run. `report.json`: what it says, for other programs and later runs."""

    TYPE_NAME = REPORT_TYPE


def publish(verdict: Verdict, artifact: Artifact, span: int, details: Mapping[str, Any] | None = None) -> None:
    """Write a gate's verdict into its artifact, and mark the artifact for resolvers and the metadata store."""
    write_verdict(verdict, artifact.uri, details)
    artifact.set_int_custom_property(VERDICT, int(verdict.accepted))
    artifact.set_int_custom_property(SPAN, span)
    artifact.set_string_custom_property("summary", verdict.summary)
