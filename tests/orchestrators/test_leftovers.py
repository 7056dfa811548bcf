"""`recsys gc` on the days that were run: what it frees, what it never frees, and that runs go on after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.orchestrators.conftest import DAYS, Project

pytestmark = pytest.mark.slow


def run_day(project: Project, number: int, run: str) -> dict[str, dict]:
    """Run every node for a day and return what each printed."""
    nodes = [node["id"] for node in json.loads(project.call("graph", project.config, "--json").stdout)["nodes"]]
    made = {}
    for node in nodes:
        done = project.call(
            "run-node", project.config, "--node", node, "--run-id", run, "--span", f"{DAYS[number]:%Y%m%d}", "--json"
        )
        made[node] = json.loads(done.stdout) | {"code": done.returncode}
    return made


@pytest.fixture(scope="module")
def ran(project) -> Project:
    """The days, run by whichever tests came before; alone, two of them are run here."""
    if len(project.versions) < 2:
        for number in (3, 4):
            run_day(project, number, f"day-{number}")
    return project


def sizes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())


def test_a_day_run_again_is_taken_from_cache_and_pushes_nothing_over_a_newer_one(ran):
    """Its logs and what it is held to are as they were; it is older than the day that serves."""
    ran.config.with_name("films.schema.pbtxt").unlink(missing_ok=True)  # which a later day's test has accepted
    shutil.rmtree(ran.versions[0])
    versions = ran.versions
    again = run_day(ran, 3, "day-3-again")
    assert {again[node]["state"] for node in ("Ingest", "Transform", "Trainer", "Evaluator")} == {"cached"}
    assert (again["Pusher"]["code"], again["Pusher"]["state"]) == (4, "skipped")
    assert "not pushed: this run is for span" in again["Pusher"]["found"]
    assert ran.versions == versions


def test_gc_frees_the_bytes_it_says_and_nothing_that_is_needed(ran):
    artifacts = ran.folder / "runs" / "films" / "artifacts"
    before = sizes(artifacts)
    said = json.loads(ran.call("gc", ran.config, "--keep", "1", "--dry-run", "--json").stdout)
    assert said["bytes"] > 0
    assert sizes(artifacts) == before
    done = ran.call("gc", ran.config, "--keep", "1", "--json")
    assert done.returncode == 0, done.stderr
    freed = json.loads(done.stdout)
    assert (freed["bytes"], freed["artifacts"]) == (said["bytes"], said["artifacts"])
    assert before - sizes(artifacts) == freed["bytes"]
    assert not [a for a in freed["artifacts"] if Path(a["uri"]).exists()]
    newest = ran.versions[-1]
    manifest = json.loads((newest / "assets.extra" / "manifest.json").read_text())
    for uri in manifest["artifacts"].values():
        assert Path(uri).is_dir(), "the version that serves still has what it was made of"
    assert "nothing to free" in ran.call("gc", ran.config, "--keep", "1").stdout
    assert newest in ran.versions, "served versions are not gc's"


def test_gc_waits_for_a_run_that_is_not_over(ran):
    begun = ran.call(
        "run-node", ran.config, "--node", "Ingest", "--run-id", "begun", "--span", f"{DAYS[2]:%Y%m%d}", "--json"
    )
    made = json.loads(begun.stdout)["outputs"]["examples"][0]["uri"]
    ran.call("run-node", ran.config, "--node", "Ingest", "--run-id", "later", "--span", f"{DAYS[4]:%Y%m%d}")
    ran.call("gc", ran.config, "--keep", "1")
    assert Path(made).is_dir()
    ran.call("gc", ran.config, "--keep", "1", "--patience", "0")
    assert not Path(made).exists()
    again = ran.call(
        "run-node", ran.config, "--node", "Ingest", "--run-id", "begun", "--span", f"{DAYS[2]:%Y%m%d}", "--json"
    )
    assert json.loads(again.stdout)["state"] == "done"
    assert Path(json.loads(again.stdout)["outputs"]["examples"][0]["uri"]).is_dir(), "a freed node is run again"
