"""An Airflow DAG for every `*.graph.json` in the folder of configs: one task a node, each `recsys run-node`.

This file runs in Airflow's environment and knows neither TFX nor this project's packages: what it needs of a config is
in the graph file that `recsys graph CONFIG --write` makes.

    RECSYS_CONFIGS   folder of configs and their graph files; default: the project's configs/
    RECSYS_COMMAND   the `recsys` that runs nodes on this machine; default: the project's .venv/bin/recsys
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink, CronDataIntervalTimetable, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from kubernetes.client import models as k8s

PROJECT = Path(__file__).resolve().parents[3]
CONFIGS = Path(os.environ.get("RECSYS_CONFIGS", PROJECT / "configs"))
COMMAND = os.environ.get("RECSYS_COMMAND", str(PROJECT / ".venv" / "bin" / "recsys"))

_TERM_SECONDS = 20


class ExitCodes:
    """What the exit codes of `recsys` mean, as the graph file has them."""

    def __init__(self, table: Mapping[str, Mapping[str, Any]]):
        self.skipped: int = table["skipped"]["code"]
        self._final = {each["code"]: each["means"] for each in table.values() if each["final"]}

    def why_final(self, code: int | None) -> str | None:
        """Return why running a node again changes nothing; None where it may."""
        means = self._final.get(code) if code not in (0, None) else None
        return None if means is None else f"exit code {code}: {means}; running it again changes nothing"


def arguments(config: str, node: str, spans: bool, context: Mapping[str, Any]) -> list[str]:
    """Return what `recsys` is called with for one node of a DAG run: its interval's day is the span."""
    run, params = context["dag_run"], context["params"]
    span = params["span"] or ""
    start = run.data_interval_start
    if not span and spans and start is not None and context["dag"].timetable.can_be_scheduled:
        span = start.strftime("%Y%m%d")
    run_id = re.sub(r"[^A-Za-z0-9_.-]", "_", run.run_id)
    given = ["--node", node, "--run-id", run_id, "--span", span, "--set", "\n".join(params["set"]), "--json"]
    return ["run-node", config, *given]


class ReportLink(BaseOperatorLink):
    """From a task to the report of its run."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Fill in the config's `orchestration.report_url`; empty where it has none."""
        run = re.sub(r"[^A-Za-z0-9_.-]", "_", ti_key.run_id)
        return (getattr(operator, "report_url", None) or "").format(run=run, node=ti_key.task_id)


class RunNode(BaseOperator):
    """Runs a node as a process of this machine. Its artifacts are the task's XCom."""

    operator_extra_links = (ReportLink(),)
    ui_color = "#e8f0fe"

    def __init__(self, *, config: str, node: str, spans: bool, report_url: str | None, codes: ExitCodes, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.node = node
        self.spans = spans
        self.report_url = report_url
        self.codes = codes
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> Any:
        """Run it, with its words in the task's log, and turn its exit code into what Airflow does next."""
        command = [COMMAND, *arguments(self.config, self.node, self.spans, context)]
        self.log.info("running %s", command)
        # What Airflow sets for its own Python is not for ours.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV"))}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
            self._process = subprocess.Popen(
                command, stdout=answer, stderr=subprocess.PIPE, env=clean, start_new_session=True,
                text=True, encoding="utf-8", errors="replace",
            )  # fmt: skip
            assert self._process.stderr is not None
            for line in self._process.stderr:
                self.log.info(line.rstrip())
            code = self._process.wait()
            answer.seek(0)
            made = json.loads(answer.read() or "{}")
        if made:
            self.log.info("%s: %s %s", self.node, made["state"], made["found"])
        if code == self.codes.skipped:
            raise AirflowSkipException(made.get("found", ""))
        why = _why(made)
        if (final := self.codes.why_final(code)) is not None:
            raise AirflowFailException(f"{why}\n{final}")
        if code != 0:
            raise AirflowException(f"{why}\nexit code {code}")
        return made

    def on_kill(self) -> None:
        """Stop the process and all that it started."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


def _why(made: Mapping[str, Any]) -> str:
    """Return a node's own account of why it did not end well: its verdict's reasons, or its error."""
    verdict = made.get("verdict")
    if not verdict or not verdict["reasons"]:
        return made.get("found", "")
    return "\n".join([verdict["sentence"], *(f"  - {each['text']}" for each in verdict["reasons"]), verdict["next"]])


class RunNodeInPod(KubernetesPodOperator):
    """Runs a node as a pod of the project's image."""

    operator_extra_links = (ReportLink(),)

    def __init__(self, *, config: str, node: str, spans: bool, report_url: str | None, codes: ExitCodes, **kwargs: Any):
        super().__init__(cmds=["recsys"], skip_on_exit_code=codes.skipped, do_xcom_push=False, **kwargs)
        self.config = config
        self.node = node
        self.spans = spans
        self.report_url = report_url
        self.codes = codes

    def execute(self, context: Any) -> Any:
        """Run it; a pod that an earlier try left is taken up again."""
        self.arguments = arguments(self.config, self.node, self.spans, context)
        return super().execute(context)

    def cleanup(self, pod: Any, remote_pod: Any, *args: Any, **kwargs: Any) -> None:
        """Turn the container's exit code into what Airflow does next."""
        try:
            super().cleanup(pod, remote_pod, *args, **kwargs)
        except AirflowSkipException:
            raise
        except AirflowException as error:
            code = _exit_code(remote_pod, self.base_container_name)
            if (final := self.codes.why_final(code)) is not None:
                raise AirflowFailException(f"{final}. {error}") from error
            raise


def _exit_code(pod: Any, container: str) -> int | None:
    for status in (pod.status.container_statuses or []) if pod is not None and pod.status else []:
        if status.name == container and status.state and status.state.terminated:
            return status.state.terminated.exit_code
    return None


def make_dag(path: Path) -> DAG:
    """Return the DAG of a graph file."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    how = plan["orchestration"]
    if "exit_codes" not in plan:
        raise AirflowException(
            f"{path} is an older recsys' graph file; `recsys graph {plan['config']} --write` renews it"
        )
    codes = ExitCodes(plan["exit_codes"])
    dag = DAG(
        dag_id=plan["name"],
        description=f"Recommender {plan['name']}: logs to a pushed version",
        schedule=CronDataIntervalTimetable(how["schedule"], timezone="UTC") if how["schedule"] else None,
        start_date=datetime.fromisoformat(how["start"]).replace(tzinfo=UTC),
        catchup=how["catch_up"],
        max_active_runs=how["runs_at_once"],
        max_active_tasks=how["nodes_at_once"],
        params={
            "set": Param([], type="array", items={"type": "string"}, title="Config overrides",
                         description="KEY.PATH=VALUE, one a line, as in training.epochs=3"),
            "span": Param(None, type=["null", "string"], title="Span",
                          description="Day or number to run for; empty: the interval's day, or the newest logs"),
        },
        default_args={
            "owner": "recsys",
            "retries": how["retries"],
            "retry_delay": timedelta(seconds=how["retry_after"]),
            "execution_timeout": timedelta(seconds=how["timeout"]),
        },
        tags=["recsys"],
        doc_md=__doc__,
    )  # fmt: skip
    tasks: dict[str, BaseOperator] = {}
    for node in plan["nodes"]:
        common = {
            "task_id": node["id"], "dag": dag, "node": node["id"], "spans": plan["spans"],
            "report_url": how["report_url"], "codes": codes,
            "doc_md": f"{node['kind']}{', a gate: its no stops the run' if node['gate'] else ''}",
        }  # fmt: skip
        if how["runs_nodes_as"] == "pod":
            task: BaseOperator = RunNodeInPod(config=how["config"], **common, **_pod(plan["name"], node["id"], how))
        else:
            task = RunNode(config=str(path.parent / plan["config"]), **common)
        tasks[node["id"]] = task
        for up in node["needs"]:
            tasks[up] >> task
    for node in plan["nodes"]:
        if node["always"]:
            # A teardown runs however those before it ended, and does not hide from the run that one of them failed.
            tasks[node["id"]].as_teardown()
    return dag


def _pod(name: str, node: str, how: Mapping[str, Any]) -> dict[str, Any]:
    wanted = how["nodes"].get(node, how["resources"])
    amounts = {"cpu": wanted["cpu"], "memory": wanted["memory"]}
    amounts |= {"nvidia.com/gpu": str(wanted["gpus"])} if wanted["gpus"] else {}
    return {
        "name": re.sub(r"[^a-z0-9-]+", "-", f"{name}-{node}".lower()),
        "namespace": how["namespace"],
        "image": how["image"],
        "container_resources": k8s.V1ResourceRequirements(requests=amounts, limits=amounts),
        "volumes": [
            k8s.V1Volume(
                name=f"volume-{number}",
                persistent_volume_claim=k8s.V1PersistentVolumeClaimVolumeSource(claim_name=volume["claim"]),
            )
            for number, volume in enumerate(how["volumes"])
        ],
        "volume_mounts": [
            k8s.V1VolumeMount(name=f"volume-{number}", mount_path=volume["mount"])
            for number, volume in enumerate(how["volumes"])
        ],
        "secrets": [Secret("env", variable, key["secret"], key["key"]) for variable, key in how["secrets"].items()],
        "reattach_on_restart": True,
        "get_logs": True,
    }


for graph in sorted(CONFIGS.glob("*.graph.json")):
    dag = make_dag(graph)
    globals()[f"dag_{dag.dag_id}"] = dag
