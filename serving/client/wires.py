"""Calls to bytes and back, for each protocol."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.client.columns import array_of
from serving.client.messages import Prediction, TensorTypes, VersionStatus, Which
from serving.server.status import Code, ServingError


class GrpcWire:
    """Calls as TensorFlow Serving's protobuf messages."""

    _SERVICE = "/tensorflow.serving."

    def metadata(self, which: Which) -> tuple[str, str, bytes]:
        """What to send to learn the signatures: method, path and body."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._spec(request.model_spec, which)
        return "POST", self._SERVICE + "PredictionService/GetModelMetadata", request.SerializeToString()

    def read_metadata(self, data: bytes) -> dict[str, TensorTypes]:
        """Element types by signature name."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        signatures = get_model_metadata_pb2.SignatureDefMap()
        get_model_metadata_pb2.GetModelMetadataResponse.FromString(data).metadata["signature_def"].Unpack(signatures)
        return {
            name: TensorTypes(
                {key: info.dtype for key, info in each.inputs.items()},
                {key: info.dtype for key, info in each.outputs.items()},
            )
            for name, each in signatures.signature_def.items()
        }

    def status(self, which: Which) -> tuple[str, str, bytes]:
        """What to send to learn the versions' states."""
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        self._spec(request.model_spec, which)
        return "POST", self._SERVICE + "ModelService/GetModelStatus", request.SerializeToString()

    def read_status(self, data: bytes) -> list[VersionStatus]:
        """The versions, newest first."""
        from tensorflow_serving.apis import get_model_status_pb2

        response = get_model_status_pb2.GetModelStatusResponse.FromString(data)
        names = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(each.version, names.Name(each.state), each.status.error_message)
            for each in response.model_version_status
        ]

    def predict(
        self, which: Which, signature: str, arrays: Mapping[str, np.ndarray], types: TensorTypes, outputs: Sequence[str]
    ) -> tuple[str, str, bytes]:
        """What to send to have `arrays` predicted."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest(output_filter=outputs)
        self._spec(request.model_spec, which)
        request.model_spec.signature_name = signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=types.inputs[name]))
        return "POST", self._SERVICE + "PredictionService/Predict", request.SerializeToString()

    def read_prediction(self, data: bytes, which: Which, signature: str, types: TensorTypes) -> Prediction:
        """The outputs of an answer."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        response = predict_pb2.PredictResponse.FromString(data)
        outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
        return Prediction(outputs, which.model, signature, response.model_spec.version.value)

    @staticmethod
    def _spec(spec: Any, which: Which) -> None:
        spec.name = which.model
        if which.version is not None:
            spec.version.value = which.version
        if which.label is not None:
            spec.version_label = which.label


class RestWire:
    """Calls as TensorFlow Serving's JSON."""

    def metadata(self, which: Which) -> tuple[str, str, bytes]:
        """What to send to learn the signatures: method, path and body."""
        return "GET", self._path(which) + "/metadata", b""

    def read_metadata(self, data: bytes) -> dict[str, TensorTypes]:
        """Element types by signature name."""
        from tensorflow.core.framework import types_pb2

        def numbers(infos: Mapping[str, Any]) -> dict[str, int]:
            return {key: types_pb2.DataType.Value(info["dtype"]) for key, info in infos.items()}

        signatures = json.loads(data)["metadata"]["signature_def"]["signature_def"]
        return {
            name: TensorTypes(numbers(each["inputs"]), numbers(each["outputs"])) for name, each in signatures.items()
        }

    def status(self, which: Which) -> tuple[str, str, bytes]:
        """What to send to learn the versions' states."""
        return "GET", self._path(which), b""

    def read_status(self, data: bytes) -> list[VersionStatus]:
        """The versions, newest first."""
        return [
            VersionStatus(int(each["version"]), each["state"], each.get("status", {}).get("error_message", ""))
            for each in json.loads(data)["model_version_status"]
        ]

    def predict(
        self, which: Which, signature: str, arrays: Mapping[str, np.ndarray], types: TensorTypes, outputs: Sequence[str]
    ) -> tuple[str, str, bytes]:
        """What to send to have `arrays` predicted."""
        unknown = sorted(set(outputs) - set(types.outputs))
        if unknown:
            raise ServingError(Code.INVALID_ARGUMENT, f"signature {signature!r} has no output {unknown[0]!r}")
        # Plain json: it writes NaN and Infinity bare, which is what the API reads.
        body = {"signature_name": signature, "inputs": {name: _json_values(array) for name, array in arrays.items()}}
        return "POST", self._path(which) + ":predict", json.dumps(body).encode()

    def read_prediction(self, data: bytes, which: Which, signature: str, types: TensorTypes) -> Prediction:
        """The outputs of an answer."""
        answered = json.loads(data)["outputs"]
        if len(types.outputs) == 1:
            answered = {next(iter(types.outputs)): answered}
        outputs = {
            name: array_of(name, _from_base64(values), types.outputs[name]) if isinstance(values, list) else
            array_of(name, _from_base64(values), types.outputs[name])[0]
            for name, values in answered.items()
        }  # fmt: skip
        return Prediction(outputs, which.model, signature)

    @staticmethod
    def _path(which: Which) -> str:
        path = "/v1/models/" + urllib.parse.quote(which.model, safe="")
        if which.version is not None:
            return f"{path}/versions/{which.version}"
        return f"{path}/labels/{urllib.parse.quote(which.label, safe='')}" if which.label is not None else path


def _json_values(array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(each) for each in value]
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}

    return text(array.tolist())


def _from_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_base64(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
