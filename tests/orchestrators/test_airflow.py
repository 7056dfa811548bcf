"""The DAG in a real Airflow: whole runs by `dags test`, and a schedule with a task killed under it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tests.orchestrators.conftest import DAYS, ROOT, Project

pytestmark = pytest.mark.slow

AIRFLOW = ROOT / "orchestrators" / "airflow"
NODES = [
    "Ingest", "LastAcceptedData", "LastBlessedModel", "StatisticsGen", "CuratedSchema", "ExampleValidator", "DataGate",
    "Transform", "Trainer", "Assembler", "Evaluator", "ServingCheck", "Pusher", "Report",
]  # fmt: skip


@dataclass(frozen=True)
class Airflow:
    """An Airflow of its own, with the project's DAG in it."""

    home: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess:
        command = ["bash", "-c", 'source "$0" && exec airflow "$@"', str(AIRFLOW / "environment.sh"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def rows(self, query: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def states(self, run: str) -> dict[str, str]:
        return dict(self.rows(f"SELECT task_id, state FROM task_instance WHERE run_id = '{run}'"))

    def newest_run(self) -> tuple[str, str]:
        return self.rows("SELECT run_id, state FROM dag_run ORDER BY id DESC LIMIT 1")[0]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, project, recsys) -> Airflow:
    """What `make airflow` runs on, installed from the committed lock, its database in a folder of the test."""
    subprocess.run(["make", "-s", ".tools/airflow/.synced"], cwd=ROOT, check=True, timeout=600)
    home = tmp_path_factory.mktemp("airflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "VIRTUAL_ENV", "PYTHON"))}
    environment = kept | {
        "AIRFLOW_HOME": str(home), "AIRFLOW_PORT": str(port), "RECSYS_COMMAND": str(recsys),
        "RECSYS_CONFIGS": str(project.config.parent),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    }  # fmt: skip
    started = Airflow(home, environment)
    assert project.call("graph", project.config, "--write").returncode == 0
    migrated = started("db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    return started


def dags_test(airflow: Airflow, day: int) -> tuple[int, dict[str, str], str]:
    """Run the DAG for a day's interval, which ends as the next day begins."""
    tested = airflow("dags", "test", "films", (DAYS[day] + timedelta(days=1)).isoformat())
    run, state = airflow.newest_run()
    return tested.returncode, airflow.states(run), f"{state}\n{tested.stdout}\n{tested.stderr}"


LOADED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import recommenders
print(json.dumps({
    "edges": [f"{up} -> {task.task_id}" for task in recommenders.dag.tasks for up in sorted(task.upstream_task_ids)],
    "frameworks": sorted({"tfx", "tensorflow", "apache_beam", "pipeline", "configs"} & set(sys.modules)),
}))
"""


def test_the_dag_has_the_graphs_edges_and_loads_no_framework(airflow, project):
    python = ROOT / ".tools" / "airflow" / "bin" / "python"
    command = [python, "-c", LOADED, str(AIRFLOW / "dags")]
    loaded = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, timeout=120)
    assert loaded.returncode == 0, loaded.stderr
    found = json.loads(loaded.stdout.splitlines()[-1])
    plan = json.loads((project.config.parent / "films.graph.json").read_text())
    assert [node["id"] for node in plan["nodes"]] == NODES
    assert set(found["edges"]) == {f"{up} -> {node['id']}" for node in plan["nodes"] for up in node["needs"]}
    assert found["frameworks"] == []


PODS = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import recommenders
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import models as k8s

dag = recommenders.make_dag(pathlib.Path(sys.argv[2]))
task = dag.get_task("Trainer")
for needs_a_cluster in (
    "is_istio_enabled", "patch_already_checked", "process_pod_deletion", "_read_pod_container_states",
    "_read_pod_events",
):
    setattr(KubernetesPodOperator, needs_a_cluster, lambda *args, **kwargs: None)

def ends(code):
    state = k8s.V1ContainerState(terminated=k8s.V1ContainerStateTerminated(exit_code=code))
    status = k8s.V1ContainerStatus(name="base", image="i", image_id="i", ready=False, restart_count=0, state=state)
    pod = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="p"), spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")]),
        status=k8s.V1PodStatus(phase="Failed" if code else "Succeeded", container_statuses=[status]),
    )
    try:
        task.cleanup(pod, pod)
    except Exception as error:
        return type(error).__name__
    return "done"

print(json.dumps({
    "ends": {code: ends(code) for code in range(5)},
    "config": task.config,
    "image": task.image,
    "limits": task.container_resources.limits,
    "others": dag.get_task("Ingest").container_resources.limits,
    "mounts": [m.mount_path for m in task.volume_mounts],
    "secrets": [(s.deploy_target, s.secret, s.key) for s in task.secrets],
    "teardowns": [t.task_id for t in dag.tasks if t.is_teardown],
}))
"""


def test_pods_are_the_config_s_and_their_exit_codes_mean_the_same(airflow, project, tmp_path):
    plan = json.loads((project.config.parent / "films.graph.json").read_text())
    plan["orchestration"] |= {
        "runs_nodes_as": "pod",
        "image": "registry.example/recsys:1",
        "volumes": [{"claim": "work", "mount": "/home/recsys/work"}],
        "secrets": {"DB_PASSWORD": {"secret": "recsys-db", "key": "password"}},
        "resources": {"cpu": "500m", "memory": "2Gi", "gpus": 0},
        "nodes": {"Trainer": {"cpu": "4", "memory": "16Gi", "gpus": 1}},
    }
    (tmp_path / "pods.graph.json").write_text(json.dumps(plan))
    python = ROOT / ".tools" / "airflow" / "bin" / "python"
    command = [python, "-c", PODS, str(AIRFLOW / "dags"), str(tmp_path / "pods.graph.json")]
    done = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "ends": {
            "0": "done", "1": "AirflowException", "2": "AirflowFailException", "3": "AirflowFailException",
            "4": "AirflowSkipException",
        },
        "config": "/home/recsys/work/configs/films.yaml",
        "image": "registry.example/recsys:1",
        "limits": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"},
        "others": {"cpu": "500m", "memory": "2Gi"},
        "mounts": ["/home/recsys/work"],
        "secrets": [["DB_PASSWORD", "recsys-db", "password"]],
        "teardowns": ["Report"],
    }  # fmt: skip


def test_a_day_ends_in_a_pushed_version(airflow, project):
    code, states, said = dags_test(airflow, 3)
    assert code == 0, said
    assert states == dict.fromkeys(NODES, "success"), said
    (version,) = project.versions
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text())
    assert manifest["span"] == int(f"{DAYS[3]:%Y%m%d}")
    made = airflow.rows("SELECT value FROM xcom WHERE task_id = 'Pusher' AND key = 'return_value'")
    assert manifest["run"] in str(made)
    links = airflow.rows("SELECT value FROM xcom WHERE task_id = 'DataGate' AND key = '_link_ReportLink'")
    assert f"http://127.0.0.1:1/{manifest['run']}/DataGate" in str(links)


def test_an_anomaly_fails_the_gate_once_and_nothing_after_it_runs(airflow, project, days):
    assert project.call("schema", "accept", project.config).returncode == 0
    odd = days[5].copy()
    odd["gender"] = "?!"
    project.write_day(5, odd)
    code, states, said = dags_test(airflow, 5)
    assert code != 0, said
    assert [node for node, state in states.items() if state == "failed"] == ["DataGate"], said
    after = NODES[NODES.index("Transform") : NODES.index("Report")]
    assert {states[node] for node in after} == {"upstream_failed"}
    assert {states[node] for node in NODES if node not in (*after, "DataGate")} == {"success"}, "with its report"
    run, _ = airflow.newest_run()
    tries = airflow.rows(f"SELECT try_number FROM task_instance WHERE run_id = '{run}' AND task_id = 'DataGate'")
    assert tries == [(1,)], "a gate's no is not tried again"
    assert "gender" in said
    assert "exit code 3" in said
    assert len(project.versions) == 1


@pytest.fixture
def standalone(airflow) -> Iterator[Callable[[], None]]:
    """`make airflow`'s own script; all it started is stopped at the end."""
    started: list[subprocess.Popen] = []

    def start() -> None:
        environment = airflow.environment | {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
        with open(airflow.home / "script.log", "w") as log:
            started.append(
                subprocess.Popen(
                    ["timeout", "1500", str(AIRFLOW / "standalone.sh")],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    yield start
    for script in started:
        family = list(psutil.Process(script.pid).children(recursive=True)) if script.poll() is None else []
        script.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            script.wait(20)
        for process in [p for p in family if p.is_running()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        script.wait(10)


def wait_for(what: Callable[[], bool], seconds: float, airflow: Airflow) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            log = airflow.home / "standalone.log"
            raise AssertionError(log.read_text()[-5000:] if log.exists() else "nothing was logged")
        time.sleep(0.5)


def test_a_schedule_survives_a_killed_task_in_one_run(airflow, project, days, standalone):
    """The next interval, held to what the first one left; its Transform is killed with -9 once."""
    project.write_day(5, days[5])
    graph = project.config.parent / "films.graph.json"
    plan = json.loads(graph.read_text()) | {"name": "films-daily"}
    plan["orchestration"]["start"] = DAYS[5].isoformat()  # one interval of the schedule lies behind us since
    graph.unlink()
    (project.config.parent / "films-daily.graph.json").write_text(json.dumps(plan))
    before = len(project.versions)
    standalone()

    def scheduled() -> list[tuple]:
        return airflow.rows("SELECT run_id, state FROM dag_run WHERE dag_id = 'films-daily' ORDER BY id")

    wait_for(lambda: bool(scheduled()), 240, airflow)
    ((run, _),) = scheduled()
    wait_for(lambda: airflow.states(run).get("Transform") == "running", 240, airflow)
    pids = "SELECT pid FROM task_instance WHERE run_id = '{}' AND task_id = 'Transform' AND pid IS NOT NULL"
    wait_for(lambda: bool(airflow.rows(pids.format(run))), 60, airflow)
    ((pid,),) = airflow.rows(pids.format(run))
    time.sleep(2)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: scheduled()[0][1] in ("success", "failed"), 480, airflow)
    assert scheduled() == [(run, "success")], airflow.states(run)
    assert airflow.states(run) == dict.fromkeys(NODES, "success")
    tries = dict(airflow.rows(f"SELECT task_id, try_number FROM task_instance WHERE run_id = '{run}'"))
    assert tries["Transform"] == 2, tries
    assert len(project.versions) == before + 1
    manifest = json.loads((project.versions[-1] / "assets.extra" / "manifest.json").read_text())
    assert manifest["span"] == int(f"{DAYS[5]:%Y%m%d}")
    assert set(manifest["metrics"]) == {"candidate", "blessed"}, (
        "the model of the first interval is evaluated beside it"
    )
    assert manifest["run"] in runs_with_a_push(project)


def runs_with_a_push(project: Project) -> list[str]:
    """Return the run ids of the metadata store under which the day of the schedule was pushed."""
    query = (
        "SELECT DISTINCT c.name FROM Context c JOIN Type t ON t.id = c.type_id "
        "JOIN Association a ON a.context_id = c.id WHERE t.name = 'pipeline_run' AND c.name LIKE 'scheduled%'"
    )
    with contextlib.closing(sqlite3.connect(project.folder / "runs/films/metadata.sqlite")) as store:
        found = [name for (name,) in store.execute(query)]
    assert len(found) == 1, found
    return found
