"""A node's cache key knows what it runs: our source that it comes to import, and the libraries' versions."""

import importlib.metadata
from pathlib import Path

import pytest

from configs import load_config
from pipeline.graph.digests import CODE, closure, digest_of
from pipeline.running.nodes import Graph

CONFIG = Path(__file__).parents[3] / "configs" / "movielens.yaml"
TRAINER = frozenset({"tfx.components.trainer.executor", "components.trainer"})


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    graph = Graph(load_config(CONFIG, [f"runs.folder={tmp_path_factory.mktemp('runs')}"]))
    nodes = {n.pipeline_node.node_info.id: n.pipeline_node.parameters.parameters for n in graph._pipeline.nodes}
    return {name: p[CODE].field_value.string_value for name, p in nodes.items() if CODE in p}


def test_every_node_that_runs_something_has_a_digest(codes):
    assert {"Ingest", "StatisticsGen", "ExampleValidator", "Transform", "Trainer", "Evaluator"} <= codes.keys()
    assert not {"LastBlessedModel", "LastAcceptedData"} & codes.keys()
    assert codes["Trainer"] == codes["Baseline.lr"]
    assert len({codes[n] for n in ("Ingest", "DataGate", "Transform", "Trainer", "Evaluator")}) == 5


def test_the_closure_goes_through_imports_walked_packages_and_processes():
    names = set(closure(TRAINER)[0].values())
    assert {"components.trainer", "configs.model", "models.deepfm", "transforms.preprocessing"} <= names
    assert "transforms.kinds.hashed" in names, "found by the package itself"
    assert "models.training.worker" in names, "run as a process of its own"
    gate = set(closure(frozenset({"components.data_gate"}))[0].values())
    assert "configs.model" in gate
    assert not any(name.startswith("models") for name in gate), "only named there"
    assert not any(name.startswith(("serving", "components.evaluator", "components.ingest")) for name in names)


@pytest.mark.parametrize(
    ("modules", "libraries"),
    [
        ({"tfx.components.statistics_gen.executor"}, {"tfx", "tensorflow-data-validation"}),
        (TRAINER, {"tfx", "tensorflow", "tf_keras", "tensorflow-transform"}),
        ({"components.evaluator.component"}, {"tensorflow_model_analysis", "apache-beam", "numpy", "pandas"}),
    ],
)
def test_another_version_of_a_library_is_another_digest(modules, libraries, monkeypatch):
    before, real = digest_of(modules), importlib.metadata.version
    for library in libraries:
        monkeypatch.setattr(importlib.metadata, "version", lambda name, of=library: "0" if name == of else real(name))
        assert digest_of(modules) != before, library
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "airflow" else real(name))
    assert digest_of(modules) == before


def test_changed_source_is_another_digest_only_where_it_is_imported(monkeypatch):
    changed, read = Path("models/deepfm.py").resolve(), Path.read_bytes
    trainer, gate = digest_of(TRAINER), digest_of({"components.data_gate"})
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"x" if path.resolve() == changed else read(path))
    assert digest_of(TRAINER) != trainer
    assert digest_of({"components.data_gate"}) == gate
