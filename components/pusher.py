"""The pusher: a blessed model becomes the next served version, whole, in one rename."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.artifacts import PUSHED, VERDICT, Catalogue, IngestReport
from components.evaluator.component import JUDGED_SPLIT
from components.examples import read_batches
from components.ingest.component import COUNTS_FILE
from components.outcomes import NodeId
from components.refusal import RefusedError
from components.requests import named_columns
from components.uncached import UncachedDriver
from components.verdict import VERDICT_FILE, Direction, Reason, Ruling, Verdict, write_verdict
from components.versions import artifacts_of, manifest_of, manifest_path, signatures_of, versions
from configs import Config, digest
from configs.features import RawColumn, columns_from_json
from models.recommend import RECOMMEND
from models.recommend.best_items import DEFAULT_K
from transforms.raw import default_values

WARMUP_FILE = "tf_serving_warmup_requests"
_PARTIAL = ".partial-"
_HOST = socket.gethostname().replace(".", "-")
_FOREIGN_SECONDS = 24 * 3600.0
_RANKED_ITEMS = 100


def push(model: str, folder: str, manifest: Mapping[str, Any], warmup: list[prediction_log_pb2.PredictionLog]) -> str:
    """Copy a SavedModel into `folder` as its next version and return the version's path.

    Versions are seconds since 1970 or one more than the last, so they only grow. Until it is whole the copy lies
    under a name that no server takes for a version. Pushes to one folder wait for each other.
    """
    base = Path(folder)
    base.mkdir(parents=True, exist_ok=True)
    with _alone(base):
        remove_unfinished(base)
        partial = base / f"{_PARTIAL}{_HOST}.{os.getpid()}.{uuid.uuid4().hex}"
        try:
            shutil.copytree(model, partial)
            extra = partial / "assets.extra"
            extra.mkdir(exist_ok=True)
            with tf.io.TFRecordWriter(str(extra / WARMUP_FILE)) as writer:
                for log in warmup:
                    writer.write(log.SerializeToString())
            version = max([int(time.time()), *(v + 1 for v in versions(base))])
            text = json.dumps({"version": version, **manifest}, indent=1, sort_keys=True)
            manifest_path(partial).write_text(text, encoding="utf-8")
            for path in partial.rglob("*"):
                if path.is_file():
                    _sync(path)
            final = base / str(version)
            partial.rename(final)
            _sync(base)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return str(final)


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """One push to a folder at a time, whoever makes it; the others wait."""
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # the folder itself: a file for it would lie among the versions
        yield
    finally:
        os.close(folder)


def newer_span(folder: str | Path, span: int) -> tuple[str, int] | None:
    """Return path and span of the newest version where it is of a later span than `span`."""
    for version in reversed(versions(folder).values()):
        manifest = manifest_of(version)
        if "span" in manifest:  # else somebody else put it there
            found = manifest["span"]
            return (str(version), found) if isinstance(found, int) and found > span > 0 else None
    return None


def version_of(folder: str | Path, model: str) -> str | None:
    """Return the path of the newest version that was pushed from the model artifact at `model`, if any."""
    newest_first = reversed(versions(folder).values())
    return next((str(version) for version in newest_first if artifacts_of(version).get("model") == model), None)


def remove_unfinished(base: Path) -> None:
    """Remove what pushes that were killed have left. The caller holds the folder's lock, so none of ours runs.

    A lock may not reach other machines that share the folder: what they began lately is theirs.
    """
    for partial in base.glob(f"{_PARTIAL}*"):
        host, dot, _ = partial.name.removeprefix(_PARTIAL).partition(".")
        try:
            foreign = bool(dot) and host != _HOST and time.time() - partial.stat().st_mtime < _FOREIGN_SECONDS
        except FileNotFoundError:
            continue
        if not foreign:
            shutil.rmtree(partial, ignore_errors=True)


def warmup_requests(
    model_name: str, columns: Mapping[str, RawColumn], batch: pa.RecordBatch, count: int, recommends: bool = False
) -> list[prediction_log_pb2.PredictionLog]:
    """Return recorded requests made of real rows: each row alone, its user with a list of items to rank and, where the
    model `recommends`, its user alone.
    """
    dtypes = {name: value.dtype for name, value in default_values(columns.values()).items()}
    cells = named_columns(columns, batch)
    logs = []
    for row in range(min(count, batch.num_rows)):
        named = {name: tf.constant([cells[name][row]], dtype) for name, dtype in dtypes.items()}
        logs.append(_predict_log(model_name, "serving_default", named))
        ranked = {
            name: tf.repeat(value, _RANKED_ITEMS) if columns[name].of == "item" else value
            for name, value in named.items()
        }
        logs.append(_predict_log(model_name, "rank", ranked))
        if recommends:
            asked = {name: value for name, value in named.items() if columns[name].of != "item"}
            asked |= {"k": tf.constant([DEFAULT_K], tf.int64), "exclude": tf.constant([[""]])}
            logs.append(_predict_log(model_name, RECOMMEND, asked))
    return logs


def _predict_log(model_name: str, signature: str, inputs: Mapping[str, tf.Tensor]) -> prediction_log_pb2.PredictionLog:
    spec = model_pb2.ModelSpec(name=model_name, signature_name=signature)
    request = predict_pb2.PredictRequest(
        model_spec=spec, inputs={name: tf.make_tensor_proto(value) for name, value in inputs.items()}
    )
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PusherSpec(ComponentSpec):
    """`columns` is JSON."""

    PARAMETERS = {
        "model_name": ExecutionParameter(type=str),
        "folder": ExecutionParameter(type=str),
        "columns": ExecutionParameter(type=str),
        "config_digest": ExecutionParameter(type=str),
        "warmup_requests": ExecutionParameter(type=int),
        "asked_at": ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "report": ChannelParameter(type=IngestReport),
        "catalogue": ChannelParameter(type=Catalogue),
    }
    OUTPUTS = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class PusherExecutor(base_executor.BaseExecutor):
    """Pushes."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Push a blessed model. Raises RefusedError for one that is not."""
        blessing = artifact_utils.get_single_instance(input_dict["blessing"])
        if blessing.get_int_custom_property(VERDICT) != 1:
            raise RefusedError("the model is not blessed, so it is not pushed; the Evaluator's verdict says why")
        if artifact_utils.get_single_instance(input_dict["infra_blessing"]).get_int_custom_property(VERDICT) != 1:
            raise RefusedError("the model failed the serving check, so it is not pushed; ServingCheck says why")
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_instance(output_dict["pushed_model"])
        folder = exec_properties["folder"]
        if served := version_of(folder, model.uri):
            _describe(output, served, f"version {os.path.basename(served)} already holds this model")
            return
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        if (newer := newer_span(folder, examples.span or 0)) is not None:
            text = f"not pushed: this run is for span {examples.span}, and {newer[0]} of span {newer[1]} is there"
            reason = Reason(text=text, metric="span", value=examples.span, limit=newer[1], direction=Direction.AT_LEAST)
            _publish(output, Verdict(by=NodeId.PUSHER, ruling=Ruling.SKIPPED, summary=text, reasons=(reason,)))
            return
        columns = columns_from_json(exec_properties["columns"])
        with open(os.path.join(blessing.uri, VERDICT_FILE)) as stream:
            verdict = json.load(stream)
        with open(os.path.join(artifact_utils.get_single_uri(input_dict["report"]), COUNTS_FILE)) as stream:
            counts = json.load(stream)
        name = exec_properties["model_name"]
        manifest = {
            "model": name,
            "run": self._context.pipeline_run_id if self._context else None,
            "config_digest": exec_properties["config_digest"],
            "blessed_by": verdict["judgements"],
            "metrics": verdict["metrics"],
            "data": counts,
            "span": examples.span or None,
            "artifacts": {
                "model": model.uri,
                "examples": examples.uri,
                "catalogue": artifact_utils.get_single_uri(input_dict["catalogue"]),
            },
            "pushed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        batch = next(read_batches(examples, JUDGED_SPLIT, max(exec_properties["warmup_requests"], 1)))
        saved = path_utils.serving_model_path(model.uri)
        recommends = RECOMMEND in signatures_of(Path(saved))
        warmup = warmup_requests(name, columns, batch, exec_properties["warmup_requests"], recommends)
        path = push(saved, folder, manifest, warmup)
        _describe(output, path, f"version {os.path.basename(path)} in {folder}")


def _describe(output: types.Artifact, path: str, summary: str) -> None:
    output.set_string_custom_property("pushed_destination", path)
    output.set_string_custom_property("pushed_version", os.path.basename(path))
    _publish(output, Verdict(by=NodeId.PUSHER, ruling=Ruling.ACCEPTED, summary=summary))


def _publish(output: types.Artifact, verdict: Verdict) -> None:
    write_verdict(verdict, output.uri)
    output.set_int_custom_property(PUSHED, int(verdict.accepted))
    output.set_string_custom_property("summary", verdict.summary)


class Pusher(base_component.BaseComponent):
    """Makes a blessed model the newest served version."""

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(PusherExecutor)
    DRIVER_CLASS = UncachedDriver  # what matters is whether the version is in the served folder now

    def __init__(self, config: Config, columns: str, **inputs: types.BaseChannel):
        super().__init__(
            spec=PusherSpec(
                model_name=config.model_name,
                folder=config.model_folder,
                columns=columns,
                config_digest=digest(config),
                warmup_requests=config.serving.warmup_requests,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
                **inputs,
            )
        )
