"""The REST side: TensorFlow Serving's paths and bodies on aiohttp, in the gRPC server's event loop."""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
import time
import urllib.parse
from typing import Any

from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.server import inference, json_answers, json_tensor
from serving.server.large import Call
from serving.server.prediction_service import SIGNATURE_DEF_FIELD, PredictionService
from serving.server.saved_model import DEFAULT_SIGNATURE
from serving.server.status import Code, ServingError, from_exception, invalid_argument

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION_PATH = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_STATUS_PATH = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?P<metadata>/metadata)?",
    re.IGNORECASE,
)
_APIS = {"classify": "Classify", "regress": "Regress", "predict": "Predict"}
_INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class RestHandler:
    """Answers HTTP requests; give it to aiohttp.web.Server."""

    def __init__(
        self, service: PredictionService, *, timeout_seconds: float, metrics_path: str | None, cors: bool = False
    ):
        self._service = service
        self._headers = _CORS if cors else None
        self._timeout = timeout_seconds
        self._metrics_path = metrics_path

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer one request, whatever it is."""
        start = time.perf_counter()
        path = request.rel_url.raw_path
        if path == self._metrics_path and request.method == "GET":
            return web.Response(text=await self._service.metrics_page(), content_type="text/plain")
        match = _PREDICTION_PATH.fullmatch(path) if request.method == "POST" else None
        status = _STATUS_PATH.fullmatch(path) if request.method == "GET" else None
        whole = False
        try:
            if match:
                body = await request.read()
                whole = True
                with self._service.admission:
                    data = await asyncio.wait_for(self._infer(match, body), self._timeout)
                self._service.account(_name(match), _APIS[match["method"].lower()], "REST", start)
            elif status:
                data = await self._status(status)
            else:
                raise invalid_argument(f"Malformed request: {request.method} {path}")
        except Exception as error:
            failure = _failure(error)
            if match:
                self._service.account(_name(match), _APIS[match["method"].lower()], "REST", start, failure)
            body = json_answers.error_body(failure.message)
            return self._json(body, failure.http, close=self._service.admission.draining or not whole)
        return self._json(data)

    def _json(self, data: bytes, status: int = 200, close: bool = False) -> web.Response:
        response = web.Response(body=data, status=status, content_type="application/json", headers=self._headers)
        if close:
            response.force_close()
        return response

    async def _infer(self, match: re.Match[str], body: bytes) -> bytes:
        spec = _model_spec(match)
        method = match["method"].lower()
        async with self._service.large.turn(len(body)) as call:
            document = await call(json_tensor.parse_object, body)
            if method == "predict":
                return await self._predict(spec, document, len(body), call)
            kind = (
                classification_pb2.ClassificationRequest if method == "classify" else regression_pb2.RegressionRequest
            )
            request = kind(model_spec=spec)
            await call(json_tensor.fill_examples, document, request, self._service.limits)
            if method == "classify":
                return json_answers.classifications((await self._service.classify(request, call)).result)
            return json_answers.regressions((await self._service.regress(request, call)).result)

    async def _predict(self, spec: Any, document: dict[str, Any], size: int, call: Call) -> bytes:
        service = self._service
        name = json_tensor.signature_name(document) or DEFAULT_SIGNATURE
        with service.core.servable(spec) as servable:
            assert servable.bundle is not None
            signature = servable.bundle.signatures.get(name)
            if signature is None:
                raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
            budget = service.limits.budget(size)
            sent, rows = await call(json_tensor.predict_columns, document, signature, budget)
            columns = inference.complete(signature, sent)
            outputs = await service.run(servable, signature, columns, sent)
            named = json_answers.named(outputs, signature.output_names)
            data = await call(json_answers.predictions, named, rows)
            if servable.model in service.logger.sampled:
                self._log(servable, signature, columns, outputs)
        return data

    def _log(self, servable: Any, signature: Any, columns: Any, outputs: Any) -> None:
        """REST requests are logged in the same form as gRPC's."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.MergeFromString(self._service.spec(servable, signature.name))
        for (key, declared), array in zip(signature.inputs.items(), inference.feeds(signature, columns), strict=True):
            request.inputs[key].CopyFrom(tf.make_tensor_proto(array, dtype=declared.dtype))
        response = inference.encode_predict_response(
            self._service.spec(servable, signature.name), signature, outputs, range(len(outputs))
        )
        self._service.logger.offer(
            servable.model, servable.version, signature.name, "predict_log", request.SerializeToString(), response
        )

    async def _status(self, match: re.Match[str]) -> bytes:
        if not match["name"]:
            raise invalid_argument("Missing model name in request.")
        spec = _model_spec(match)
        if match["metadata"]:
            request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
            request.metadata_field.append(SIGNATURE_DEF_FIELD)
            response = await self._service.get_model_metadata(request)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            response.metadata[SIGNATURE_DEF_FIELD].Unpack(signatures)
            metadata = f'{{"signature_def": {_to_json(signatures)}}}'
            return f'{{\n"model_spec":{_to_json(response.model_spec)},\n"metadata": {metadata}\n}}\n'.encode()
        response = await self._service.get_model_status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
        return _to_json(response).encode()


def _to_json(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=1
    )


def _model_spec(match: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=_name(match))
    if match["version"]:
        if len(match["version"]) > _INT64_DIGITS or (version := int(match["version"])) > _INT64_MAX:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = version
    elif match["label"]:
        spec.version_label = urllib.parse.unquote(match["label"], errors="replace")
    return spec


def _name(match: re.Match[str]) -> str:
    return urllib.parse.unquote(match["name"], errors="replace")


def _failure(error: Exception) -> ServingError:
    if isinstance(error, TimeoutError):
        return ServingError(Code.DEADLINE_EXCEEDED, "The request took longer than --rest_api_timeout_in_ms.")
    if isinstance(error, web.HTTPException):
        return ServingError(Code.INVALID_ARGUMENT, error.text or error.reason)
    return from_exception(error)


def ssl_context(ssl_config: Any) -> ssl.SSLContext:
    """TLS for REST from the same SSLConfig as gRPC's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        with tempfile.NamedTemporaryFile(
            "w", suffix=".pem"
        ) as file:  # the ssl module reads certificates from files only
            file.write(ssl_config.server_key + "\n" + ssl_config.server_cert)
            file.flush()
            context.load_cert_chain(file.name)
        if ssl_config.custom_ca:
            context.load_verify_locations(cadata=ssl_config.custom_ca)
    except (ssl.SSLError, ValueError) as error:
        raise invalid_argument(f"--ssl_config_file: its PEM text cannot be used: {error}") from error
    if ssl_config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
