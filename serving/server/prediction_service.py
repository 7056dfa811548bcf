"""The inference and model APIs over a ServerCore: one method an RPC, whatever transport calls it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server import inference
from serving.server.batching import rows_of
from serving.server.large import LARGE_BYTES, Call, LargeRequests, here
from serving.server.limits import UNLIMITED, RequestLimits
from serving.server.metrics import ServerMetrics
from serving.server.model_control import ModelControl
from serving.server.request_logger import RequestLogger
from serving.server.saved_model import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    REGRESS_METHOD,
    SavedModelBundle,
    Signature,
)
from serving.server.server_core import Servable, ServerCore
from serving.server.status import Code, ServingError, invalid_argument
from serving.server.tensor_proto import Column
from serving.server.workers import METRICS, RELOAD, RELOAD_SECONDS, Peers, merge_metrics

SIGNATURE_DEF_FIELD = "signature_def"


class Admission:
    """How many requests may be in the server at once; the rest are told so at once instead of piling up."""

    def __init__(self, limit: int):
        self.limit = limit
        self.draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests in the server now."""
        return self._in_flight

    def __enter__(self) -> None:
        if self.draining:
            raise ServingError(Code.UNAVAILABLE, "The server is shutting down.")
        if self._in_flight >= self.limit:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED, f"{self._in_flight} requests are being served, which is the limit; try later."
            )
        self._in_flight += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def drained(self, seconds: float) -> bool:
        """Take no more requests and wait for those in the server; False where `seconds` did not suffice."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True


class PredictionService:
    """Answers requests. Every method raises ServingError for what the client is to be told."""

    def __init__(
        self,
        core: ServerCore,
        metrics: ServerMetrics,
        admission: Admission,
        limits: RequestLimits,
        large: LargeRequests,
        peers: Peers | None = None,
        *,
        control: ModelControl | None = None,
        check_method_names: bool = False,
    ):
        self.core = core
        self.metrics = metrics
        self.admission = admission
        self.logger = RequestLogger(metrics)
        self.limits = limits
        self.large = large
        self.peers = peers
        self._control = control or ModelControl()
        self._check_method_names = check_method_names

    # Predict

    async def predict_bytes(self, data: bytes) -> tuple[str, bytes]:
        """A serialized PredictRequest to a serialized PredictResponse; also the model's name, for the metrics."""
        if len(data) < LARGE_BYTES:
            return await self._predict(_parse(predict_pb2.PredictRequest, data), data, here)
        async with self.large.turn(len(data)) as call:
            return await self._predict(await call(_parse, predict_pb2.PredictRequest, data), data, call)

    async def _predict(self, request: Any, data: bytes, call: Call) -> tuple[str, bytes]:
        spec = request.model_spec
        with self.core.servable(spec) as servable:
            bundle = servable.bundle
            assert bundle is not None
            signature = inference.predict_signature(bundle, spec.signature_name)
            budget = self.limits.budget(len(data))
            columns = await call(inference.predict_columns, signature, request.inputs, budget)
            wanted = inference.selected_outputs(signature, request.output_filter)
            outputs = await self.run(servable, signature, columns, request.inputs)
            response = await call(
                inference.encode_predict_response, self.spec(servable, signature.name), signature, outputs, wanted
            )
            if servable.model in self.logger.sampled:
                self.logger.offer(servable.model, servable.version, signature.name, "predict_log", data, response)
        return servable.model, response

    async def run(
        self, servable: Servable, signature: Signature, columns: dict[str, Column], sent: Any
    ) -> list[np.ndarray]:
        """All outputs of a signature, batched with other requests where that is on and possible."""
        queue = self.core.queue(servable, signature)
        if queue is not None:
            if len(sent) != len(columns):
                columns = inference.level(columns, signature, sent)
            rows = rows_of(columns)
            if rows:
                self.limits.check_rows(rows)
                return await queue.run(columns, rows)
        feeds = inference.feeds(signature, columns)
        rows = max((len(each) for each in feeds if each.ndim), default=1)
        self.limits.check_rows(rows)
        outputs, micros = await self.core.runtime.run(id(signature), rows, lambda: signature.run(feeds))
        self.metrics.runtime_latency.add(servable.model, "Predict", "TF1", sample=micros)
        return outputs

    @staticmethod
    def spec(servable: Servable, signature_name: str) -> bytes:
        """The serialized ModelSpec that answers of this signature carry."""
        known = servable.specs.get(signature_name)
        if known is None:
            spec = inference.model_spec(servable.model, servable.version, signature_name)
            known = servable.specs[signature_name] = spec.SerializeToString()
        return known

    # Classify, Regress, MultiInference

    async def classify(self, request: Any, call: Call = here) -> Any:
        """ClassificationRequest to ClassificationResponse."""
        with self.core.servable(request.model_spec) as servable:
            response = classification_pb2.ClassificationResponse()
            ((outputs, examples),) = await self._infer(
                servable, request.input, [request.model_spec], [CLASSIFY_METHOD], call
            )
            await call(inference.fill_classifications, response.result, outputs, examples)
            self._finish(servable, request.model_spec, response.model_spec)
            self._log(servable, request, response, "classify_log")
        return response

    async def regress(self, request: Any, call: Call = here) -> Any:
        """RegressionRequest to RegressionResponse."""
        with self.core.servable(request.model_spec) as servable:
            response = regression_pb2.RegressionResponse()
            ((outputs, examples),) = await self._infer(
                servable, request.input, [request.model_spec], [REGRESS_METHOD], call
            )
            await call(inference.fill_regressions, response.result, outputs["outputs"], examples)
            self._finish(servable, request.model_spec, response.model_spec)
            self._log(servable, request, response, "regress_log")
        return response

    async def multi_inference(self, request: Any, call: Call = here) -> Any:
        """MultiInferenceRequest to MultiInferenceResponse: several tasks over one run of the graph."""
        specs = [task.model_spec for task in request.tasks]
        if not specs:
            raise invalid_argument("MultiInferenceRequest has no tasks.")
        if any(not spec.name for spec in specs):
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if len({spec.name for spec in specs}) > 1:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        names = [spec.signature_name or DEFAULT_SIGNATURE for spec in specs]
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
            seen.add(name)
        with self.core.servable(specs[0]) as servable:
            assert servable.bundle is not None
            for name, task in zip(names, request.tasks, strict=True):
                if name not in servable.bundle.signatures:
                    raise invalid_argument(f"Requested signature not found in model graph: {name}")
                if task.method_name not in (CLASSIFY_METHOD, REGRESS_METHOD):
                    raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
            methods = [task.method_name for task in request.tasks]
            response = inference_pb2.MultiInferenceResponse()
            answers = await self._infer(servable, request.input, specs, methods, call)
            for (outputs, examples), spec, method in zip(answers, specs, methods, strict=True):
                result = response.results.add()
                if method == CLASSIFY_METHOD:
                    await call(inference.fill_classifications, result.classification_result, outputs, examples)
                else:
                    await call(inference.fill_regressions, result.regression_result, outputs["outputs"], examples)
                self._finish(servable, spec, result.model_spec)
            self._log(servable, request, response, "multi_inference_log")
        return response

    async def _infer(
        self, servable: Servable, request_input: Any, specs: list[Any], methods: list[str], call: Call
    ) -> list[tuple[dict[str, np.ndarray], int]]:
        """For each task its named output arrays and the number of examples, all from one run."""
        assert servable.bundle is not None
        names = [spec.signature_name for spec in specs]
        tasks = example_tasks(servable.bundle, names, methods, self._check_method_names)
        examples_sent = await call(inference.serialized_examples, request_input, self.limits)
        answers, micros = await infer_examples(
            servable.bundle,
            examples_sent,
            tasks,
            lambda rows, work: self.core.runtime.run(id(servable), rows, work),
        )
        examples = answers[0][1]
        self.metrics.runtime_latency.add(
            servable.model, "Classify" if CLASSIFY_METHOD in methods else "Regress", "TF1", sample=micros
        )
        self.metrics.example_counts.add(servable.model, sample=examples)
        self.metrics.example_count_total.add(servable.model, by=examples)
        return answers

    @staticmethod
    def _finish(servable: Servable, asked: Any, answered: Any) -> None:
        answered.CopyFrom(inference.model_spec(servable.model, servable.version, asked.signature_name))

    def _log(self, servable: Servable, request: Any, response: Any, kind: str) -> None:
        if servable.model in self.logger.sampled:
            self.logger.offer(
                servable.model, servable.version, "", kind, request.SerializeToString(), response.SerializeToString()
            )

    # Models

    async def get_model_metadata(self, request: Any) -> Any:
        """GetModelMetadataRequest to GetModelMetadataResponse; only `signature_def` can be asked for."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for each in request.metadata_field:
            if each != SIGNATURE_DEF_FIELD:
                raise invalid_argument(f"Metadata field {each} is not supported")
        with self.core.servable(request.model_spec) as servable:
            assert servable.bundle is not None
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in servable.bundle.signature_def.items():
                signatures.signature_def[name].CopyFrom(definition)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = servable.model
            response.model_spec.version.value = servable.version
            response.metadata[SIGNATURE_DEF_FIELD].Pack(signatures)
        return response

    async def get_model_status(self, request: Any) -> Any:
        """GetModelStatusRequest to GetModelStatusResponse."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        response = get_model_status_pb2.GetModelStatusResponse()
        for servable in self.core.status(request.model_spec):
            entry = response.model_version_status.add(version=servable.version, state=servable.state)
            entry.status.error_code = servable.error.number if servable.error else 0
            entry.status.error_message = servable.error.message if servable.error else ""
        return response

    async def handle_reload_config_request(self, request: Any, peer: str, own_address: bool = False) -> Any:
        """ReloadConfigRequest to ReloadConfigResponse; the config file is not written.

        `peer` is who asks, as gRPC names it; `own_address` whether on the address of model control.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        self._control.check(request.config, peer, own_address=own_address)
        self.core.check_config(request.config)
        self._control.check_paths(request.config)
        await self.reload(request.config)
        if self.peers is not None:
            await self._reload_peers(request)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    async def reload(self, config: Any) -> None:
        """Serve a ModelServerConfig in this process."""
        await self.core.reload(config)
        self.logger.configure(config)

    async def _reload_peers(self, request: Any) -> None:
        import grpc

        assert self.peers is not None
        try:
            await self.peers.ask(RELOAD, request.SerializeToString(), RELOAD_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise ServingError(error.code(), f"Another process of the server refused: {error.details()}") from error

    async def metrics_page(self) -> str:
        """Prometheus' page, for all processes of the server."""
        if self.peers is None:
            return self.metrics.text()
        pages = await self.peers.ask(METRICS, b"")
        return merge_metrics([self.metrics.text(), *(page.decode() for page in pages)])

    # Accounts

    def account(self, model: str, api: str, entrypoint: str, start: float, error: ServingError | None = None) -> None:
        """Count a finished request. Names of models that are not served share one label: clients choose them."""
        name = model if model in self.core.models else ""
        self.metrics.request_count.add(name, error.code.name if error else "OK")
        if error is None:
            micros = (time.perf_counter() - start) * 1e6
            self.metrics.request_latency.add(name, api, entrypoint, sample=micros)


def example_tasks(
    bundle: SavedModelBundle, signature_names: list[str], methods: list[str], check_methods: bool
) -> list[inference.ExampleTask]:
    """The classify and regress tasks that one run over a list of examples is to answer."""
    tasks = [
        inference.example_task(bundle, name, method, check_methods)
        for name, method in zip(signature_names, methods, strict=True)
    ]
    if len({task.input_tensor for task in tasks}) > 1:
        raise invalid_argument("Input tensor must be the same for all Signatures.")
    return tasks


async def infer_examples(
    bundle: SavedModelBundle,
    examples: np.ndarray,
    tasks: list[inference.ExampleTask],
    run: Callable[[int, Callable[[], list[np.ndarray]]], Any],
) -> tuple[list[tuple[dict[str, np.ndarray], int]], float]:
    """Run classify and regress tasks over one array of serialized examples, fetching every tensor once."""
    fetches = sorted({tensor for task in tasks for tensor in task.outputs.values()})
    values, micros = await run(len(examples), lambda: bundle.run({tasks[0].input_tensor: examples}, fetches))
    by_tensor = dict(zip(fetches, values, strict=True))
    return [({key: by_tensor[tensor] for key, tensor in task.outputs.items()}, len(examples)) for task in tasks], micros


def replay(bundle: SavedModelBundle, log: Any) -> None:
    """Run one warmup record against a version that is not served yet."""
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        signature = inference.predict_signature(bundle, request.model_spec.signature_name)
        budget = UNLIMITED.budget(0)
        signature.run(inference.feeds(signature, inference.predict_columns(signature, request.inputs, budget)))
        return
    if kind == "classify_log":
        requests, methods = [log.classify_log.request], [CLASSIFY_METHOD]
        shared = requests[0].input
    elif kind == "regress_log":
        requests, methods = [log.regress_log.request], [REGRESS_METHOD]
        shared = requests[0].input
    elif kind == "multi_inference_log":
        requests = list(log.multi_inference_log.request.tasks)
        methods = [task.method_name for task in requests]
        shared = log.multi_inference_log.request.input
    else:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")

    async def at_once(rows: int, work: Callable[[], list[np.ndarray]]) -> tuple[list[np.ndarray], float]:
        return work(), 0.0

    names = [each.model_spec.signature_name for each in requests]
    tasks = example_tasks(bundle, names, methods, check_methods=False)
    asyncio.run(infer_examples(bundle, inference.serialized_examples(shared, UNLIMITED), tasks, at_once))


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        # What gRPC itself answers to a message it cannot read.
        raise ServingError(Code.INTERNAL, f"Error parsing {kind.DESCRIPTOR.name}: {error}") from error


Handler = Callable[..., Any]


def rpcs(service: PredictionService) -> dict[str, tuple[Any, Handler]]:
    """Every message RPC beside Predict and HandleReloadConfigRequest: full method name to (request class, handler)."""
    prediction, model = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
    return {
        prediction + "Classify": (classification_pb2.ClassificationRequest, service.classify),
        prediction + "Regress": (regression_pb2.RegressionRequest, service.regress),
        prediction + "MultiInference": (inference_pb2.MultiInferenceRequest, service.multi_inference),
        prediction + "GetModelMetadata": (
            get_model_metadata_pb2.GetModelMetadataRequest,
            service.get_model_metadata,
        ),
        model + "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, service.get_model_status),
    }


def parse_request(kind: Any, data: bytes) -> Any:
    """A request message from the wire; INTERNAL where it cannot be read."""
    return _parse(kind, data)


def model_name(request: Any) -> str:
    """The model a request names, for the metrics."""
    if isinstance(request, inference_pb2.MultiInferenceRequest):
        return request.tasks[0].model_spec.name if request.tasks else ""
    return request.model_spec.name if hasattr(request, "model_spec") else ""
