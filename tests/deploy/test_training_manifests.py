"""What can be checked of the training manifests without a cluster: they parse, and their shell makes a TF_CONFIG."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

FOLDER = Path(__file__).parents[2] / "deploy" / "training"


def manifests(name: str) -> list:
    return list(YAML(typ="safe").load_all((FOLDER / name).read_text()))


def told_to_the_pod(container: dict, folder: Path, **environment: str) -> dict:
    """Run a container's command with a `recsys` that only says its TF_CONFIG, and return that."""
    recsys = folder / "recsys"
    recsys.write_text('#!/bin/sh\necho "$@"\necho "$TF_CONFIG"\n')
    recsys.chmod(0o755)
    given = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **given, **environment}
    said = subprocess.run([*container["command"], *container["args"]], env=environment, capture_output=True, text=True)
    command, told = said.stdout.splitlines()
    assert command.startswith("train ")
    return json.loads(told)


@pytest.mark.parametrize("index", [0, 1])
def test_pods_of_the_indexed_job_know_their_place(index, tmp_path):
    service, job = manifests("job.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    config = told_to_the_pod(container, tmp_path, JOB_COMPLETION_INDEX=str(index))
    assert config["task"] == {"type": "worker", "index": index}
    # Names that the headless service gives the pods of an indexed Job.
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert subdomain == service["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert config["cluster"]["worker"] == [f"{name}-{i}.{subdomain}:{port}" for i in range(2)]


@pytest.mark.parametrize("index", [0, 1])
def test_pods_of_the_train_job_know_their_place(index, tmp_path):
    runtime, job = manifests("trainjob.yaml")
    assert job["spec"]["runtimeRef"] == {"kind": "TrainingRuntime", "name": runtime["metadata"]["name"]}
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    jobset = job["metadata"]["name"]
    config = told_to_the_pod(container, tmp_path, JOB_COMPLETION_INDEX=str(index), JOBSET=jobset)
    assert config["task"] == {"type": "worker", "index": index}
    # A JobSet names its pods JOBSET-REPLICATED_JOB-0-INDEX, in a subdomain of its own name.
    names = [
        f"{jobset}-{replicated['name']}-0-{i}.{jobset}:2222" for i in range(runtime["spec"]["mlPolicy"]["numNodes"])
    ]
    assert config["cluster"]["worker"] == names


def test_the_operator_finds_the_container_it_looks_for():
    (job,) = manifests("tfjob.yaml")
    replicas = job["spec"]["tfReplicaSpecs"]["Worker"]
    (container,) = replicas["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow"
    assert container["command"][:2] == ["recsys", "train"]
