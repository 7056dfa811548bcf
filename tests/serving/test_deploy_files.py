from __future__ import annotations

import json
import re

import pytest
import yaml
from google.protobuf import text_format

from serving import deploy_files
from serving.deploy_files import SHARED_METRICS, Deployment
from serving.release import Release
from serving.server import config_protos, flags
from serving.server.metrics import ServerMetrics
from serving.server.status import ServingError

DEPLOYMENT = Deployment("movielens", "/models/movielens")


def test_the_files_are_what_a_server_reads(tmp_path):
    from tensorflow_serving.config import model_server_config_pb2

    written = deploy_files.write(DEPLOYMENT, tmp_path)
    assert all(file.exists() for file in written)
    text_format.Parse((tmp_path / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    config_protos.parse_text("BatchingParameters", (tmp_path / "batching.config").read_text())
    options = flags.parse(deploy_files.server_flags(DEPLOYMENT, str(tmp_path)))
    assert options.prometheus_path == deploy_files.METRICS_PATH
    assert options.batching is None  # TensorFlow Serving would refuse `rank` with it
    batching = Deployment("movielens", "/models/movielens", batching=True)
    assert flags.parse(deploy_files.server_flags(batching, str(tmp_path))).batching.max_batch_size == 128
    assert options.config.model_config_list.config[0].base_path == "/models/movielens"


def test_models_config_is_release_state_and_stays(tmp_path):
    for version in (1, 2):
        (tmp_path / "m" / str(version)).mkdir(parents=True)
    deployment = Deployment("movielens", str(tmp_path / "m"))
    deploy_files.write(deployment, tmp_path)
    config = tmp_path / "models.config"
    Release(config, "movielens").promote(1)
    before = config.read_text()
    deploy_files.write(deployment, tmp_path)
    assert config.read_text() == before
    deploy_files.write(Deployment("books", "/models/books"), tmp_path)
    assert config.read_text().startswith(before.rstrip().removesuffix("}"))
    assert 'name: "books"' in config.read_text()


def test_every_query_names_a_metric_both_servers_export(tmp_path):
    deploy_files.write(DEPLOYMENT, tmp_path)
    dashboard = json.loads((tmp_path / "grafana" / "dashboard.json").read_text())
    rules = yaml.safe_load((tmp_path / "alerts.yml").read_text())["groups"][0]["rules"]
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for rule in rules]
    named = {name for expression in expressions for name in re.findall(r":[a-z_:]+", expression)}
    assert named
    assert named <= set(SHARED_METRICS)
    exported = ServerMetrics().text()
    for name in SHARED_METRICS:
        assert (
            f"# TYPE {re.sub('_(bucket|sum|count)$', '', name)} histogram" in exported
            or f"# TYPE {name} counter" in exported
        )


def test_kubernetes_waits_for_the_model(tmp_path):
    deploy_files.write(DEPLOYMENT, tmp_path)
    documents = {each["kind"]: each for each in yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text())}
    (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/movielens"
    assert "--model_config_file=/config/models.config" in container["args"]
    bucket = deploy_files.kubernetes(Deployment("m", "gs://bucket/m"), "")[1]
    assert [each["name"] for each in bucket["spec"]["template"]["spec"]["volumes"]] == ["config", "scratch"]
    with pytest.raises(ServingError, match="absolute"):
        deploy_files.write(Deployment("m", "relative"), tmp_path)


def test_the_files_open_no_more_than_they_must(tmp_path):
    deploy_files.write(DEPLOYMENT, tmp_path)
    services = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all(":" in service["image"] for service in services.values())
    exposed = deploy_files.compose(Deployment("m", "/models/m", expose=True))["services"]["serving"]["ports"]
    assert exposed == ["8500:8500", "8501:8501"]
    documents = {each["kind"]: each for each in yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text())}
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == documents["Deployment"]["spec"]["selector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    assert "egress" not in deploy_files.kubernetes(Deployment("m", "gs://bucket/m"), "")[-1]["spec"]
