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


@pytest.mark.parametrize("index", [0, 1])
def test_pods_of_the_indexed_job_know_their_place(index, tmp_path):
    service, job = manifests("job.yaml")
    container = job["spec"]["template"]["spec"]["containers"][0]
    workers = {e["name"]: e["value"] for e in container["env"]}
    assert int(workers["WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    recsys = tmp_path / "recsys"
    recsys.write_text('#!/bin/sh\necho "$@"\necho "$TF_CONFIG"\n')
    recsys.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index), **workers}
    said = subprocess.run([*container["command"], *container["args"]], env=environment, capture_output=True, text=True)
    command, told = said.stdout.splitlines()
    assert command.startswith("train ")
    config = json.loads(told)
    assert config["task"] == {"type": "worker", "index": index}
    # Names that the headless service gives the pods of an indexed Job.
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert subdomain == service["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    assert config["cluster"]["worker"] == [f"{name}-{i}.{subdomain}:{port}" for i in range(2)]


def test_the_operator_finds_the_container_it_looks_for():
    (job,) = manifests("tfjob.yaml")
    replicas = job["spec"]["tfReplicaSpecs"]["Worker"]
    (container,) = replicas["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow"
    assert container["command"][:2] == ["recsys", "train"]
