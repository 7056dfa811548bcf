from tfx.utils import dependency_utils

from components.beam import pipeline_arguments, runs_in_process


def test_nothing_is_packed_for_workers_that_are_not_there(monkeypatch):
    monkeypatch.setattr(dependency_utils, "build_ephemeral_package", lambda: "packed.tar.gz")
    here, elsewhere = (pipeline_arguments(runner, ["--parallelism=2"]) for runner in ("FnApiRunner", "FlinkRunner"))
    assert dependency_utils.make_beam_dependency_flags(here) == here
    assert dependency_utils.make_beam_dependency_flags(elsewhere) == [*elsewhere, "--extra_package=packed.tar.gz"]
    assert runs_in_process(here)
    assert not runs_in_process(elsewhere)
    assert "--parallelism=2" in here
