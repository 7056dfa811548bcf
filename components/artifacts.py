"""Artifact types of ours; the rest are TFX's standard ones."""

from __future__ import annotations

from tfx.types.artifact import Artifact

from components.report import REPORT_TYPE

VERDICT = "blessed"  # custom property of a gate's output: 1 goes on, 0 stops the run (TFX's ModelBlessing has the same)

PUSHED = "pushed"  # custom property of the pusher's output: 0 where a newer span is served and nothing was pushed
SPAN = "span"  # custom property of a gate's output: the span that its run is for, 0 where the logs have none


class Catalogue(Artifact):
    """`users/` and `items/`: Parquet with each id's newest columns, for clients that need features of an id."""

    TYPE_NAME = "recsys.Catalogue"


class IngestReport(Artifact):
    """`counts.json`: rows, positives and cold rows a split. `dead_letters.jsonl`: malformed rows and why."""

    TYPE_NAME = "recsys.IngestReport"


class DataBlessing(Artifact):
    """`findings.json`: what the data gate found. `baseline.pb`: the statistics that the next run's drift is held to."""

    TYPE_NAME = "recsys.DataBlessing"


class RunReport(Artifact):
    """`report.html`: the page of a run. `report.json`: what it says, for other programs and later runs."""

    TYPE_NAME = REPORT_TYPE
