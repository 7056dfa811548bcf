"""Asks a model: over gRPC or REST, sync or async, or a SavedModel in this process, all with one interface.

    from serving.client import connect

    with connect("grpc://localhost:8500", "movielens") as client:
        client.predict([{"user_id": "1", "item_id": "7"}]).outputs["score"]
        client.rank({"user_id": "1"}, [{"item_id": "7"}, {"item_id": "9"}])  # one score an item

It works the same against TensorFlow Serving. Features are rows (list of dicts) or columns (dict of lists or arrays);
element types come from the model's signature, asked for once. Every call has a deadline. Only what cannot have changed
anything is tried again: these calls only read, and of their failures only UNAVAILABLE says that the server did not work
on the request; an overloaded server (RESOURCE_EXHAUSTED) is left alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import random
import time
import urllib.parse
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from serving.server.status import Code, ServingError

Features = Sequence[Mapping[str, Any]] | Mapping[str, Any]

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_RETRIES = 4
DEFAULT_SIGNATURE = "serving_default"
RANK_SIGNATURE = "rank"
FIRST_BACKOFF_SECONDS = 0.05


@dataclass(frozen=True)
class Prediction:
    """A model's answer: its outputs by name, and who gave it (REST does not tell the version: None)."""

    outputs: dict[str, np.ndarray]
    model: str
    signature: str
    version: int | None = None


@dataclass(frozen=True)
class VersionStatus:
    """One version of a model as the server sees it, such as AVAILABLE or LOADING."""

    version: int
    state: str
    error: str = ""


@dataclass(frozen=True)
class Which:
    """A model and, where not the latest, the version by number or by label."""

    model: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class TensorTypes:
    """A signature's element types: input and output names to DataType numbers."""

    inputs: dict[str, int]
    outputs: dict[str, int]


class ClientInterface(Protocol):
    """What every synchronous client offers; AsyncClient has the same methods as coroutines."""

    def predict(self, features: Features, **options: Any) -> Prediction:
        """Outputs for every row."""

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """One score an item, in the items' order."""

    def status(self) -> list[VersionStatus]:
        """The model's versions, newest first."""

    def close(self) -> None:
        """Let go of connections."""


def connect(
    target: str,
    model: str,
    *,
    version: int | None = None,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    retries: int = DEFAULT_RETRIES,
    root_certificates: bytes | None = None,
    client_certificate: tuple[bytes, bytes] | None = None,
) -> Client | SavedModelClient:
    """A client for `target`: grpc://, grpcs://, http:// or https://host:port, unix:/socket, or file:///model/folder.

    `client_certificate` is (key, certificate), both PEM; `root_certificates` PEM replaces the system's for grpcs and
    https. `timeout` is the deadline in seconds of a call, its retries included.
    """
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme == "file":
        return SavedModelClient(urllib.parse.unquote(urllib.parse.urlsplit(target).path), model)
    session = _Session(_wire(scheme, target), Which(model, version, label), timeout, retries)
    if scheme in ("http", "https"):
        return Client(session, _HttpTransport(target, root_certificates, client_certificate))
    return Client(session, _GrpcTransport(target, root_certificates, client_certificate))


def connect_async(
    target: str,
    model: str,
    *,
    version: int | None = None,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    retries: int = DEFAULT_RETRIES,
    root_certificates: bytes | None = None,
    client_certificate: tuple[bytes, bytes] | None = None,
) -> AsyncClient:
    """As `connect`, for use in an event loop; file:// is not for it."""
    scheme = urllib.parse.urlsplit(target).scheme
    session = _Session(_wire(scheme, target), Which(model, version, label), timeout, retries)
    if scheme in ("http", "https"):
        return AsyncClient(session, _AsyncHttpTransport(target, root_certificates, client_certificate))
    return AsyncClient(session, _AsyncGrpcTransport(target, root_certificates, client_certificate))


def _wire(scheme: str, target: str) -> _GrpcWire | _RestWire:
    if scheme in ("http", "https"):
        return _RestWire()
    if scheme in ("grpc", "grpcs", "unix"):
        return _GrpcWire()
    raise ServingError(
        Code.INVALID_ARGUMENT,
        f"{target!r}: expected grpc://, grpcs://, http:// or https://host:port, unix:/socket or file:///folder",
    )


# Features to columns


def as_columns(features: Features) -> dict[str, Any]:
    """Columns by name, from rows or columns; INVALID_ARGUMENT naming the first row that has other features."""
    if isinstance(features, Mapping):
        return dict(features)
    rows = list(features)
    if not rows:
        raise ServingError(Code.INVALID_ARGUMENT, "no rows were given")
    names = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != names:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"row {number} has features {sorted(row)}, the first one {sorted(names)}: all rows of a request need "
                "the same",
            )
    return {name: [row[name] for row in rows] for name in names}


def _array(name: str, values: Any, dtype: int) -> np.ndarray:
    import tensorflow as tf

    numpy = tf.dtypes.as_dtype(dtype).as_numpy_dtype
    try:
        if dtype == tf.string.as_datatype_enum:
            array = np.array(values, object)
            flat = [each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()]
            wrong = next((each for each in flat if not isinstance(each, bytes)), None)
            if wrong is not None:
                raise TypeError(f"{wrong!r} is not a string")
            made = np.empty(len(flat), object)
            made[:] = flat
            return np.atleast_1d(made.reshape(array.shape))
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "iufb":
            raise TypeError(f"{array.ravel()[0]!r} is not a number")
        if array.dtype.kind == "f" and np.dtype(numpy).kind in "iu" and (array != np.floor(array)).any():
            raise TypeError("a fraction was given for whole numbers")
        return np.atleast_1d(array.astype(numpy))
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"feature {name!r}: {error}") from error


def _check_names(columns: Mapping[str, Any], types: TensorTypes, signature: str) -> None:
    unknown = sorted(set(columns) - set(types.inputs))
    if unknown:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"signature {signature!r} has no input {unknown[0]!r}; it has {sorted(types.inputs)}",
        )


# What travels: calls to bytes and back, for each protocol


@dataclass(frozen=True)
class _Send:
    """One message to the server, and how long its answer may take."""

    method: str
    path: str
    body: bytes
    timeout: float


@dataclass(frozen=True)
class _Sleep:
    seconds: float


class _GrpcWire:
    _SERVICE = "/tensorflow.serving."

    def metadata(self, which: Which) -> tuple[str, str, bytes]:
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._spec(request.model_spec, which)
        return "POST", self._SERVICE + "PredictionService/GetModelMetadata", request.SerializeToString()

    def read_metadata(self, data: bytes) -> dict[str, TensorTypes]:
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
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        self._spec(request.model_spec, which)
        return "POST", self._SERVICE + "ModelService/GetModelStatus", request.SerializeToString()

    def read_status(self, data: bytes) -> list[VersionStatus]:
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
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest(output_filter=outputs)
        self._spec(request.model_spec, which)
        request.model_spec.signature_name = signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=types.inputs[name]))
        return "POST", self._SERVICE + "PredictionService/Predict", request.SerializeToString()

    def read_prediction(self, data: bytes, which: Which, signature: str, types: TensorTypes) -> Prediction:
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


class _RestWire:
    def metadata(self, which: Which) -> tuple[str, str, bytes]:
        return "GET", self._path(which) + "/metadata", b""

    def read_metadata(self, data: bytes) -> dict[str, TensorTypes]:
        from tensorflow.core.framework import types_pb2

        def numbers(infos: Mapping[str, Any]) -> dict[str, int]:
            return {key: types_pb2.DataType.Value(info["dtype"]) for key, info in infos.items()}

        signatures = json.loads(data)["metadata"]["signature_def"]["signature_def"]
        return {
            name: TensorTypes(numbers(each["inputs"]), numbers(each["outputs"])) for name, each in signatures.items()
        }

    def status(self, which: Which) -> tuple[str, str, bytes]:
        return "GET", self._path(which), b""

    def read_status(self, data: bytes) -> list[VersionStatus]:
        return [
            VersionStatus(int(each["version"]), each["state"], each.get("status", {}).get("error_message", ""))
            for each in json.loads(data)["model_version_status"]
        ]

    def predict(
        self, which: Which, signature: str, arrays: Mapping[str, np.ndarray], types: TensorTypes, outputs: Sequence[str]
    ) -> tuple[str, str, bytes]:
        unknown = sorted(set(outputs) - set(types.outputs))
        if unknown:
            raise ServingError(Code.INVALID_ARGUMENT, f"signature {signature!r} has no output {unknown[0]!r}")
        # Plain json: it writes NaN and Infinity bare, which is what the API reads.
        body = {"signature_name": signature, "inputs": {name: _json_values(array) for name, array in arrays.items()}}
        return "POST", self._path(which) + ":predict", json.dumps(body).encode()

    def read_prediction(self, data: bytes, which: Which, signature: str, types: TensorTypes) -> Prediction:
        answered = json.loads(data)["outputs"]
        if len(types.outputs) == 1:
            answered = {next(iter(types.outputs)): answered}
        outputs = {
            name: _array(name, _from_base64(values), types.outputs[name]) if isinstance(values, list) else
            _array(name, _from_base64(values), types.outputs[name])[0]
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


# The conversation, without I/O: generators that yield what to send and are given what came back


_Answer = TypeVar("_Answer")
_Steps = Generator[_Send | _Sleep, bytes | None, _Answer]


@dataclass
class _Session:
    wire: _GrpcWire | _RestWire
    which: Which
    timeout: float
    retries: int
    _types: dict[Which, dict[str, TensorTypes]] = field(default_factory=dict)

    def predict(
        self,
        features: Features,
        *,
        signature: str = DEFAULT_SIGNATURE,
        outputs: Sequence[str] = (),
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> _Steps[Prediction]:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        which = self._chosen(version, label)
        columns = as_columns(features)
        known = which in self._types
        types = yield from self._signature(which, signature, deadline)
        try:
            return (yield from self._predict(which, signature, columns, types, outputs, deadline))
        except ServingError as error:
            if not known or error.code not in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION):
                raise
        # The signature may have changed with the version since it was asked for.
        del self._types[which]
        types = yield from self._signature(which, signature, deadline)
        return (yield from self._predict(which, signature, columns, types, outputs, deadline))

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> _Steps[np.ndarray]:
        columns = as_columns(items)
        for name, value in user.items():
            columns[name] = [value]
        prediction = yield from self.predict(columns, signature=RANK_SIGNATURE, **options)
        return _scores(prediction)

    def status(self) -> _Steps[list[VersionStatus]]:
        which = self.which
        data = yield from self._call(self.wire.status(which), time.monotonic() + self.timeout)
        return self.wire.read_status(data)

    def _chosen(self, version: int | None, label: str | None) -> Which:
        if version is None and label is None:
            return self.which
        return Which(self.which.model, version, label)

    def _signature(self, which: Which, signature: str, deadline: float) -> _Steps[TensorTypes]:
        if which not in self._types:
            data = yield from self._call(self.wire.metadata(which), deadline)
            self._types[which] = self.wire.read_metadata(data)
        try:
            return self._types[which][signature]
        except KeyError:
            found = sorted(self._types.pop(which))
            raise ServingError(
                Code.FAILED_PRECONDITION, f"model {which.model!r} has no signature {signature!r}; it has {found}"
            ) from None

    def _predict(
        self,
        which: Which,
        signature: str,
        columns: Mapping[str, Any],
        types: TensorTypes,
        outputs: Sequence[str],
        deadline: float,
    ) -> _Steps[Prediction]:
        _check_names(columns, types, signature)
        arrays = {name: _array(name, values, types.inputs[name]) for name, values in columns.items()}
        data = yield from self._call(self.wire.predict(which, signature, arrays, types, outputs), deadline)
        prediction = self.wire.read_prediction(data, which, signature, types)
        if not outputs:
            return prediction
        wanted = {name: prediction.outputs[name] for name in outputs}
        return Prediction(wanted, prediction.model, prediction.signature, prediction.version)

    def _call(self, message: tuple[str, str, bytes], deadline: float) -> _Steps[bytes]:
        method, path, body = message
        for attempt in range(self.retries + 1):
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed before the server answered")
            try:
                return cast(bytes, (yield _Send(method, path, body, left)))
            except ServingError as error:
                # Some milliseconds, doubling, none of them the same for two clients of a server that comes back.
                pause = FIRST_BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.0)
                last = attempt == self.retries or deadline - time.monotonic() <= pause
                if error.code is not Code.UNAVAILABLE or last:
                    raise
            yield _Sleep(pause)
        raise AssertionError("unreachable")


def _scores(prediction: Prediction) -> np.ndarray:
    if "scores" in prediction.outputs:
        return prediction.outputs["scores"]
    if len(prediction.outputs) == 1:
        return next(iter(prediction.outputs.values()))
    raise ServingError(
        Code.FAILED_PRECONDITION, f"signature 'rank' answers {sorted(prediction.outputs)}, and none of it is 'scores'"
    )


# Clients


class Client:
    """A synchronous client; make it with `connect`. Safe to share between threads."""

    def __init__(self, session: _Session, transport: Any):
        self._session = session
        self._transport = transport

    def predict(self, features: Features, **options: Any) -> Prediction:
        """Outputs for every row of `features`.

        Options: signature, outputs (names; all by default), version or label, timeout (seconds).
        """
        return self._drive(self._session.predict(features, **options))

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """One score an item, shape [len(items)], in the items' order; `user` has one value a feature."""
        return self._drive(self._session.rank(user, items, **options))

    def status(self) -> list[VersionStatus]:
        """The model's versions, newest first."""
        return self._drive(self._session.status())

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, steps: _Steps[_Answer]) -> _Answer:
        try:
            step = next(steps)
            while True:
                if isinstance(step, _Sleep):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = self._transport.send(step)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            return stop.value


class AsyncClient:
    """An asynchronous client; make it with `connect_async`. The methods are Client's, as coroutines."""

    def __init__(self, session: _Session, transport: Any):
        self._session = session
        self._transport = transport

    async def predict(self, features: Features, **options: Any) -> Prediction:
        """See Client.predict."""
        return await self._drive(self._session.predict(features, **options))

    async def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """See Client.rank."""
        return await self._drive(self._session.rank(user, items, **options))

    async def status(self) -> list[VersionStatus]:
        """See Client.status."""
        return await self._drive(self._session.status())

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _drive(self, steps: _Steps[_Answer]) -> _Answer:
        try:
            step = next(steps)
            while True:
                if isinstance(step, _Sleep):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = await self._transport.send(step)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            return stop.value


class SavedModelClient:
    """Client's interface on a SavedModel folder, loaded in this process: for tests, checks and batch jobs."""

    def __init__(self, folder: str | pathlib.Path, model: str = "default"):
        """`folder` is a version's folder, or a base path whose highest version is taken."""
        from serving.server.saved_model import SavedModelBundle
        from serving.server.source import versions_on_disk

        path = pathlib.Path(folder)
        self._version: int | None = int(path.name) if path.name.isdigit() else None
        if not (path / "saved_model.pb").exists():
            versions = versions_on_disk(str(path))
            if not versions:
                raise ServingError(Code.NOT_FOUND, f"{path} is neither a SavedModel nor a folder of versions")
            self._version = max(versions)
            path = versions[self._version]
        self._model = model
        self._bundle = SavedModelBundle(path)

    def predict(
        self, features: Features, *, signature: str = DEFAULT_SIGNATURE, outputs: Sequence[str] = (), **_: Any
    ) -> Prediction:
        """See Client.predict; version, label and timeout mean nothing here."""
        from serving.server import inference

        found = inference.predict_signature(self._bundle, signature)
        types = TensorTypes({name: each.dtype for name, each in found.inputs.items()}, found.output_dtypes)
        columns = as_columns(features)
        _check_names(columns, types, signature)
        arrays: dict[str, Any] = {name: _array(name, values, types.inputs[name]) for name, values in columns.items()}
        inference.check_inputs(found, arrays)
        values = found.run(inference.feeds(found, inference.complete(found, arrays)))
        wanted = inference.selected_outputs(found, outputs)
        answered = {found.output_names[position]: values[position] for position in wanted}
        return Prediction(answered, self._model, signature, self._version)

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """See Client.rank."""
        columns = as_columns(items)
        columns.update({name: [value] for name, value in user.items()})
        return _scores(self.predict(columns, signature=RANK_SIGNATURE, **options))

    def status(self) -> list[VersionStatus]:
        """The one version there is."""
        return [VersionStatus(self._version or 0, "AVAILABLE")]

    def close(self) -> None:
        """Free the model."""
        self._bundle.close()

    def __enter__(self) -> SavedModelClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Transports


def _channel_arguments(
    target: str, root_certificates: bytes | None, client_certificate: tuple[bytes, bytes] | None
) -> tuple[str, Any, list[tuple[str, int]]]:
    import grpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        return target, None, options
    credentials = None
    if scheme == "grpcs":
        key, certificate = client_certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(root_certificates, key, certificate)
    return rest.removeprefix("//"), credentials, options


class _GrpcTransport:
    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        import grpc

        address, credentials, options = _channel_arguments(target, roots, certificate)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._calls: dict[str, Any] = {}

    def send(self, message: _Send) -> bytes:
        import grpc

        call = self._calls.get(message.path)
        if call is None:
            call = self._calls[message.path] = self._channel.unary_unary(message.path)
        try:
            return call(message.body, timeout=message.timeout)
        except grpc.RpcError as error:
            raise ServingError(error.code(), error.details() or "") from error

    def close(self) -> None:
        self._channel.close()


class _AsyncGrpcTransport:
    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        self._arguments = _channel_arguments(target, roots, certificate)
        self._channel: Any = None
        self._calls: dict[str, Any] = {}

    async def send(self, message: _Send) -> bytes:
        import grpc

        if self._channel is None:  # an asynchronous channel belongs to the loop it is made in
            address, credentials, options = self._arguments
            if credentials is None:
                self._channel = grpc.aio.insecure_channel(address, options)
            else:
                self._channel = grpc.aio.secure_channel(address, credentials, options)
        call = self._calls.get(message.path)
        if call is None:
            call = self._calls[message.path] = self._channel.unary_unary(message.path)
        try:
            return await call(message.body, timeout=message.timeout)
        except grpc.aio.AioRpcError as error:
            raise ServingError(error.code(), error.details() or "") from error

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


_FROM_HTTP = {
    400: Code.INVALID_ARGUMENT,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def _http_answer(response: Any) -> bytes:
    if response.status_code == 200:
        return response.content
    try:
        text = json.loads(response.content)["error"]
    except (ValueError, KeyError, TypeError):
        text = response.text[:500]
    raise ServingError(_FROM_HTTP.get(response.status_code, Code.UNKNOWN), text)


def _http_failure(error: Exception) -> ServingError:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return ServingError(Code.DEADLINE_EXCEEDED, f"no answer in time: {error!r}")
    return ServingError(Code.UNAVAILABLE, f"{error!r}")


def _tls_context(roots: bytes | None, certificate: tuple[bytes, bytes] | None) -> Any:
    import ssl
    import tempfile

    context = ssl.create_default_context(cadata=roots.decode() if roots else None)
    if certificate:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # the ssl module reads certificates from files only
            file.write(b"\n".join(certificate))
            file.flush()
            context.load_cert_chain(file.name)
    return context


class _HttpTransport:
    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        import httpx

        self._client = httpx.Client(base_url=target, verify=_tls_context(roots, certificate), trust_env=False)

    def send(self, message: _Send) -> bytes:
        import httpx

        try:
            response = self._client.request(
                message.method, message.path, content=message.body or None, timeout=message.timeout
            )
        except httpx.TransportError as error:
            raise _http_failure(error) from error
        return _http_answer(response)

    def close(self) -> None:
        self._client.close()


class _AsyncHttpTransport:
    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        import httpx

        self._client = httpx.AsyncClient(base_url=target, verify=_tls_context(roots, certificate), trust_env=False)

    async def send(self, message: _Send) -> bytes:
        import httpx

        try:
            response = await self._client.request(
                message.method, message.path, content=message.body or None, timeout=message.timeout
            )
        except httpx.TransportError as error:
            raise _http_failure(error) from error
        return _http_answer(response)

    async def close(self) -> None:
        await self._client.aclose()
