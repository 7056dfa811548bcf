"""The files that run the real thing: TensorFlow Serving and its surroundings, for one model.

Every query of the dashboard and the alert rules names a metric that TensorFlow Serving and `recsys-model-server` both
export (SHARED_METRICS; a test holds the list against a running server).
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Any

from serving.release import Release
from serving.server.status import Code, ServingError

PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
GRAFANA_IMAGE = "grafana/grafana:12.0.0"
MONITORING_NAMESPACE = "monitoring"
# Any number but root's: the server only reads.
USER_ID = 10001
METRICS_PATH = "/monitoring/prometheus/metrics"
SHARED_METRICS = (
    ":tensorflow:serving:request_count",
    ":tensorflow:serving:request_latency_bucket",
    ":tensorflow:serving:request_latency_sum",
    ":tensorflow:serving:request_latency_count",
    ":tensorflow:serving:runtime_latency_bucket",
    ":tensorflow:serving:runtime_latency_count",
    ":tensorflow:cc:saved_model:load_attempt_count",
)


@dataclass(frozen=True)
class Deployment:
    """What the files are about. `base_path` is where the server sees the model's versions."""

    model: str
    base_path: str
    image: str = "tensorflow/serving:2.19.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    replicas: int = 2
    cpu: str = "2"
    memory: str = "2Gi"
    volume_claim: str = "served-models"
    # TensorFlow Serving batches every signature or none, and refuses requests whose inputs differ in rows: `rank` (one
    # user, many items) and inputs left to their defaults work only without.
    batching: bool = False
    max_batch_size: int = 128
    batch_timeout_micros: int = 1000
    p99_budget_ms: float = 50.0
    # Ports of the Compose file on every address of the machine, not on loopback alone.
    expose: bool = False


def write(deployment: Deployment, folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Write every file under `folder`; returns their paths. What models.config holds is release state and is kept."""
    import yaml

    folder = pathlib.Path(folder)
    if not deployment.base_path.startswith("/") and "://" not in deployment.base_path:
        raise ServingError(Code.INVALID_ARGUMENT, f"base_path must be absolute or a URI; got {deployment.base_path}")
    models_config = folder / "models.config"
    Release(models_config, deployment.model, base_path=deployment.base_path).enter()
    texts = {
        "batching.config": batching_config(deployment),
        "monitoring.config": f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n',
        "compose.yaml": yaml.safe_dump(compose(deployment), sort_keys=False),
        "kubernetes.yaml": yaml.safe_dump_all(kubernetes(deployment, models_config.read_text()), sort_keys=False),
        "prometheus.yml": yaml.safe_dump(prometheus(deployment), sort_keys=False),
        "alerts.yml": yaml.safe_dump(alerts(deployment), sort_keys=False),
        "grafana/dashboard.json": json.dumps(dashboard(deployment), indent=2) + "\n",
    }
    for name, text in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return [folder / name for name in sorted({*texts, models_config.name})]


def batching_config(deployment: Deployment) -> str:
    """BatchingParameters for ranking: small waits, bounded queues."""
    return (
        f"max_batch_size {{ value: {deployment.max_batch_size} }}\n"
        f"batch_timeout_micros {{ value: {deployment.batch_timeout_micros} }}\n"
        "max_enqueued_batches { value: 100 }\nnum_batch_threads { value: 4 }\n"
    )


def server_flags(deployment: Deployment, config: str = "/config") -> list[str]:
    """Flags that TensorFlow Serving and `recsys-model-server` both take."""
    flags = [
        f"--port={deployment.grpc_port}",
        f"--rest_api_port={deployment.rest_port}",
        f"--model_config_file={config}/models.config",
        "--model_config_file_poll_wait_seconds=10",
        f"--monitoring_config_file={config}/monitoring.config",
        "--enable_model_warmup=true",
    ]
    if deployment.batching:
        flags += ["--enable_batching=true", f"--batching_parameters_file={config}/batching.config"]
    return flags


def compose(deployment: Deployment) -> dict[str, Any]:
    """A compose file: the server, Prometheus and Grafana. Versions keep their path inside the container."""

    def published(*ports: int) -> list[str]:
        return [f"{'' if deployment.expose else '127.0.0.1:'}{port}:{port}" for port in ports]

    mounted = [] if "://" in deployment.base_path else [f"{deployment.base_path}:{deployment.base_path}:ro"]
    return {
        "services": {
            "serving": {
                "image": deployment.image,
                "command": server_flags(deployment),
                "ports": published(deployment.grpc_port, deployment.rest_port),
                "volumes": [*mounted, ".:/config:ro"],
                "restart": "unless-stopped",
                "healthcheck": {
                    "test": ["CMD-SHELL", f"exec 3<>/dev/tcp/127.0.0.1/{deployment.rest_port}"],
                    "interval": "10s",
                },
            },
            "prometheus": {
                "image": PROMETHEUS_IMAGE,
                "volumes": [
                    "./prometheus.yml:/etc/prometheus/prometheus.yml:ro",
                    "./alerts.yml:/etc/prometheus/alerts.yml:ro",
                ],
                "ports": published(9090),
            },
            "grafana": {"image": GRAFANA_IMAGE, "ports": published(3000), "volumes": ["./grafana:/dashboards:ro"]},
        }
    }


def kubernetes(deployment: Deployment, models_config: str) -> list[dict[str, Any]]:
    """A ConfigMap, a Deployment with readiness and resources, a Service, a disruption budget and a network policy."""
    name = f"serving-{deployment.model}".replace("_", "-").lower()
    labels = {"app": name}
    bucket = "://" in deployment.base_path
    ready = {"httpGet": {"path": f"/v1/models/{deployment.model}", "port": deployment.rest_port}}
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": "/config"},
        {"name": "scratch", "mountPath": "/tmp"},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": name}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if not bucket:
        mounts.append({"name": "models", "mountPath": deployment.base_path, "readOnly": True})
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": deployment.volume_claim}})
    container = {
        "name": "serving",
        "image": deployment.image,
        "args": server_flags(deployment),
        "ports": [
            {"name": "grpc", "containerPort": deployment.grpc_port},
            {"name": "http", "containerPort": deployment.rest_port},
        ],
        "readinessProbe": {**ready, "periodSeconds": 5},
        "startupProbe": {**ready, "periodSeconds": 5, "failureThreshold": 60},
        "resources": {
            "requests": {"cpu": deployment.cpu, "memory": deployment.memory},
            "limits": {"memory": deployment.memory},
        },
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "terminationGracePeriodSeconds": 45,
        "automountServiceAccountToken": bucket,  # a bucket may be opened by the pod's identity
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": METRICS_PATH,
        "prometheus.io/port": str(deployment.rest_port),
    }
    config = {
        "models.config": models_config,
        "batching.config": batching_config(deployment),
        "monitoring.config": f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n',
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": config},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": deployment.replicas,
                "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": pod,
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "selector": labels,
                # One gRPC connection would pin a client to one pod: headless, so that clients see all of them.
                "clusterIP": "None",
                "ports": [
                    {"name": "grpc", "port": deployment.grpc_port},
                    {"name": "http", "port": deployment.rest_port},
                ],
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        },
        _network_policy(deployment, name, labels, bucket),
    ]


def _network_policy(deployment: Deployment, name: str, labels: dict[str, str], bucket: bool) -> dict[str, Any]:
    """Clients are pods of the same namespace, Prometheus may be in its own; the server itself calls nobody."""

    def ports(*numbers: int) -> list[dict[str, Any]]:
        return [{"protocol": "TCP", "port": number} for number in numbers]

    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING_NAMESPACE}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"] if bucket else ["Ingress", "Egress"],  # a bucket is somewhere outside
            "ingress": [
                {"from": [{"podSelector": {}}], "ports": ports(deployment.grpc_port, deployment.rest_port)},
                {"from": [monitoring], "ports": ports(deployment.rest_port)},
            ],
            **({} if bucket else {"egress": []}),
        },
    }


def prometheus(deployment: Deployment) -> dict[str, Any]:
    """Scrape and rule configuration."""
    return {
        "global": {"scrape_interval": "15s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {
                "job_name": "serving",
                "metrics_path": METRICS_PATH,
                "static_configs": [{"targets": [f"serving:{deployment.rest_port}"]}],
            }
        ],
    }


def _queries(model: str) -> dict[str, str]:
    named = f'{{model_name="{model}"}}'
    failed = f'{{model_name="{model}",status!="OK"}}'
    rate = "sum(rate(:tensorflow:serving:request_count{}[5m]))"
    quantile = "histogram_quantile({}, sum by (le) (rate(:tensorflow:serving:{}_latency_bucket{}[5m]))) / 1000"
    return {
        "requests": f"sum by (status) (rate(:tensorflow:serving:request_count{named}[5m]))",
        "errors": f"{rate.format(failed)} / {rate.format(named)}",
        "p50": quantile.format("0.5", "request", named),
        "p99": quantile.format("0.99", "request", named),
        "runtime_p99": quantile.format("0.99", "runtime", named),
        "loads": "sum by (status) (increase(:tensorflow:cc:saved_model:load_attempt_count[1h]))",
        "failed_loads": 'sum(increase(:tensorflow:cc:saved_model:load_attempt_count{status="fail"}[15m]))',
    }


def alerts(deployment: Deployment) -> dict[str, Any]:
    """Alert rules: errors, slowness, versions that do not load, a server that is gone."""
    queries = _queries(deployment.model)

    def rule(name: str, expression: str, minutes: int, summary: str) -> dict[str, Any]:
        return {
            "alert": name,
            "expr": expression,
            "for": f"{minutes}m",
            "labels": {"model": deployment.model},
            "annotations": {"summary": summary},
        }

    model = deployment.model
    return {
        "groups": [
            {
                "name": "serving",
                "rules": [
                    rule(
                        "ServingErrors", f"{queries['errors']} > 0.01", 5, f"More than 1 % of {model}'s requests fail."
                    ),
                    rule(
                        "ServingSlow",
                        f"{queries['p99']} > {deployment.p99_budget_ms:g}",
                        10,
                        f"{model}'s p99 is over {deployment.p99_budget_ms:g} ms.",
                    ),
                    rule(
                        "ServingVersionNotLoaded", f"{queries['failed_loads']} > 0", 1, "A model version does not load."
                    ),
                    rule("ServingDown", 'up{job="serving"} == 0', 1, "A model server does not answer Prometheus."),
                ],
            }
        ]
    }


def dashboard(deployment: Deployment) -> dict[str, Any]:
    """A Grafana dashboard: traffic, errors, latency inside and outside the runtime, loads."""
    queries = _queries(deployment.model)
    panels = [
        ("Requests by status", "reqps", {"{{status}}": queries["requests"]}),
        ("Share of errors", "percentunit", {"errors": queries["errors"]}),
        (
            "Latency, ms",
            "ms",
            {"p50": queries["p50"], "p99": queries["p99"], "p99 of the graph": queries["runtime_p99"]},
        ),
        ("Loads in the last hour", "short", {"{{status}}": queries["loads"]}),
    ]
    return {
        "title": f"Serving {deployment.model}",
        "uid": f"serving-{deployment.model}"[:40],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": [
            {
                "id": number,
                "type": "timeseries",
                "title": title,
                "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "datasource": {"type": "prometheus"},
                "targets": [
                    {"refId": chr(65 + position), "expr": expression, "legendFormat": legend}
                    for position, (legend, expression) in enumerate(expressions.items())
                ],
            }
            for number, (title, unit, expressions) in enumerate(panels)
        ],
    }
