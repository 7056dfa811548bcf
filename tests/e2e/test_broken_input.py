"""Broken input ends in a message that names the place, the right exit code, and nothing half-written."""

from __future__ import annotations

import gzip
import shutil

import pytest

from tests.e2e.conftest import interactions

pytestmark = pytest.mark.slow

REFUSED, WRONG = 3, 2


def ends(project, capfd, code: int, *words: str) -> str:
    """Run, and check code and message, and that nothing was left behind."""
    assert project.recsys("run", project.config) == code
    said = capfd.readouterr()
    for word in words:
        assert word in said.err, said.err
    assert "Traceback" not in said.err
    assert not project.versions
    artifacts = project.folder / "runs" / "shop" / "artifacts"
    assert not list(artifacts.glob("Pusher/*")) or not list(artifacts.glob("Pusher/pushed_model/*"))
    return said.err


def left_by_ingest(project) -> list:
    return [p for p in (project.folder / "runs/shop/artifacts/Ingest").glob("[a-z]*/*") if p.is_dir()]


def test_truncated_gzip(project, capfd):
    whole = gzip.compress(project.logs.read_bytes())
    project.logs.unlink()
    (project.folder / "logs.csv.gz").write_bytes(whole[: len(whole) // 2])
    text = project.config.read_text().replace("../logs.csv", "../logs.csv.gz")
    project.config.write_text(text)
    ends(project, capfd, REFUSED, "logs.csv.gz", "cut off")
    assert not left_by_ingest(project)


def test_wrong_delimiter(project, capfd):
    interactions().to_csv(project.logs, index=False, sep=";")
    ends(project, capfd, REFUSED, "logs.csv", "'cliente'", "data.delimiter")
    assert not left_by_ingest(project)


def test_a_column_gone(project, capfd):
    project.write(interactions().drop(columns="edad"))
    ends(project, capfd, REFUSED, "logs.csv", "no column 'edad'", "rename")
    assert not left_by_ingest(project)


def test_a_type_changed(project, capfd):
    logs = interactions()
    logs["edad"] = "treinta"
    project.write(logs)
    ends(project, capfd, REFUSED, "logs.csv", "'edad'", "'treinta' is not a number", "line 2", "dead_letters.jsonl")
    assert not left_by_ingest(project)
    assert (project.folder / "runs/shop/refused/dead_letters.jsonl").read_text().count("\n") == 4000


def test_all_labels_equal(project, capfd):
    logs = interactions()
    logs["compra"] = "no"
    project.write(logs)
    ends(project, capfd, REFUSED, "logs.csv", "'compra'", "negative", "label.positive")
    assert not left_by_ingest(project)
    assert project.recsys("run", project.config) == REFUSED
    assert "cleaned up" not in capfd.readouterr().out  # a refused step was finished with the run that it stopped


@pytest.mark.parametrize("content", ["", ",".join(interactions(1).columns) + "\n"], ids=["no byte", "header only"])
def test_empty_file(project, capfd, content):
    project.logs.write_text(content)
    ends(project, capfd, REFUSED, "logs.csv")
    assert not left_by_ingest(project)


def test_absurd_timestamps(project, capfd):
    logs = interactions()
    logs["momento"] *= 1000
    project.write(logs)
    ends(project, capfd, REFUSED, "logs.csv", "'momento'", "outside 1990-01-01")
    assert not left_by_ingest(project)


def test_a_ten_megabyte_field(project, capfd):
    logs = interactions()
    logs.loc[77, "titulo"] = "x" * (10 << 20)
    project.write(logs)
    project.config.write_text(project.config.read_text().replace("data:\n", "data:\n  max_malformed: 0.0\n"))
    message = ends(project, capfd, REFUSED, "line 79", "'titulo'", "10,485,760 bytes", "max_field_bytes")
    assert len(message) < 3000
    assert not left_by_ingest(project)


def test_a_schema_that_contradicts_the_data(ran_schema, project, capfd):
    shutil.copy(ran_schema, project.config.with_name("shop.schema.pbtxt"))
    logs = interactions()
    logs.loc[logs.index % 2 == 0, "temas"] = "ópera"
    project.write(logs)
    ends(project, capfd, REFUSED, "DataGate", "temas", "ópera", "schema diff", "findings.json")


@pytest.fixture(scope="module")
def ran_schema(ran):
    """The schema of the logs as they should be."""
    assert ran.recsys("schema", "accept", ran.config) == 0
    kept = ran.config.with_name("shop.schema.pbtxt")
    return shutil.move(kept, ran.folder / "kept.pbtxt")


def test_one_class_in_a_slice_that_a_gate_judges(ran, capfd):
    versions = len(ran.versions)
    gates = "evaluation.gates=[{metric: auc, at_least: 0.1, each: [ciudad], min_examples: 10}]"
    logs = interactions()
    logs.loc[logs["ciudad"] == "Köln", "compra"] = "no"
    with ran.other_logs(logs):
        assert ran.recsys("run", ran.config, "--set", gates) == REFUSED
    said = capfd.readouterr().err
    assert "refused: by Evaluator" in said
    assert "ciudad=Köln" in said
    assert "all" in said
    assert "negative" in said
    assert "The version now served stays" in said
    assert len(ran.versions) == versions


def test_a_drift_since_the_last_accepted_run_stops_the_next(ran, capfd):
    logs = interactions()
    logs["ciudad"] = "Köln"
    with ran.other_logs(logs):
        assert ran.recsys("run", ran.config) == REFUSED
    said = capfd.readouterr().err
    assert "ciudad" in said
    assert "drift since the last accepted run" in said
    assert "'Köln'" in said


def test_a_missing_file_is_a_wrong_call(project, capfd):
    project.logs.unlink()
    assert project.recsys("run", project.config) == WRONG
    assert "no file matches" in capfd.readouterr().err


def test_a_wrong_config_costs_nothing(project, capfd):
    assert project.recsys("run", project.config, "--set", "training.epoch=3") == WRONG
    assert "training.epoch: unknown key" in capfd.readouterr().err
    assert not (project.folder / "runs").exists()
    assert project.recsys("run", project.folder / "none.yaml") == WRONG


def test_one_run_at_a_time(project, capfd):
    import fcntl

    folder = project.folder / "runs" / "shop"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as held:
        held.write("4711")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert project.recsys("run", project.config) == 1
    assert "another run is under way (process 4711)" in capfd.readouterr().err
