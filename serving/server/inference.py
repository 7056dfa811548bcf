"""What the four inference APIs do to one loaded version, apart from how the request came and where it is run.

Each API is three plain steps: a request becomes a `Run` (what to feed), the run is made, its outputs become a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.server import tensor_proto
from serving.server.limits import Budget, RequestLimits
from serving.server.saved_model import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    REGRESS_METHOD,
    SavedModelBundle,
    Signature,
)
from serving.server.status import Code, ServingError, invalid_argument
from serving.server.tensor_proto import Column, as_array, column, varint

_EXTRA_NAMED = 100  # so many inputs more than the signature has are named in the error


def predict_signature(bundle: SavedModelBundle, name: str) -> Signature:
    """The signature a PredictRequest asks for."""
    signature = bundle.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
    return signature


def predict_columns(signature: Signature, tensors: Any, budget: Budget | None = None) -> dict[str, Column]:
    """The inputs of `tensors` (a map of TensorProto) in the signature's order, defaults filled in."""
    declared = signature.inputs
    if len(tensors) > len(declared) + _EXTRA_NAMED:
        raise invalid_argument(f"input size does not match signature: {len(tensors)}!={len(declared)}")
    sent = dict(tensors.items())  # one pass through the protobuf runtime; its maps cost at every look
    if sent.keys() != declared.keys():
        check_inputs(signature, sent)
    return {
        name: column(sent[name], each, position, budget) if name in sent else _default(each)
        for position, (name, each) in enumerate(declared.items())
    }


def check_inputs(signature: Signature, sent: Any) -> None:
    """INVALID_ARGUMENT where `sent` lacks an input without a default or has one that the signature does not know."""
    declared = signature.inputs
    missing = sorted(name for name, each in declared.items() if name not in sent and each.default is None)
    extra = sorted(set(sent) - set(declared))
    if missing or extra:
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(declared))}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def _default(declared: Any) -> np.ndarray:
    if declared.default is None:
        raise invalid_argument(f"Missing but required input: {declared.name}")
    return declared.default


def complete(signature: Signature, sent: dict[str, Column]) -> dict[str, Column]:
    """The columns sent, in the signature's order, defaults filled in."""
    return {name: sent[name] if name in sent else _default(each) for name, each in signature.inputs.items()}


def level(columns: dict[str, Column], signature: Signature, sent: Any) -> dict[str, Column]:
    """Columns whose one-row defaults are repeated to the rows of what was sent, so that the request can be batched."""
    counts = {len(values) for name in sent if isinstance(values := columns[name], list) or values.ndim}
    if len(counts) != 1 or 1 in counts:
        return columns
    (rows,) = counts
    return {
        name: np.repeat(values, rows, axis=0)
        if name not in sent and isinstance(values, np.ndarray) and values.shape[:1] == (1,)
        else values
        for name, values in columns.items()
    }


def feeds(signature: Signature, columns: dict[str, Column]) -> list[np.ndarray]:
    """The arrays of `columns` in the order the signature's callable takes them."""
    return [as_array(columns[name], declared) for name, declared in signature.inputs.items()]


def selected_outputs(signature: Signature, output_filter: Sequence[str]) -> Sequence[int]:
    """Positions of the outputs a PredictRequest wants; all where it names none."""
    if not output_filter:
        return range(len(signature.output_names))
    seen: dict[str, int] = {}
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(signature.output_names)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen[alias] = signature.output_names.index(alias)
    return list(seen.values())


def model_spec(name: str, version: int, signature_name: str) -> Any:
    """The effective ModelSpec every response carries."""
    from tensorflow_serving.apis import model_pb2

    spec = model_pb2.ModelSpec(name=name, signature_name=signature_name or DEFAULT_SIGNATURE)
    spec.version.value = version
    return spec


def encode_predict_response(
    spec: bytes, signature: Signature, outputs: Sequence[np.ndarray], wanted: Sequence[int]
) -> bytes:
    """A PredictResponse on the wire, from the serialized ModelSpec and the outputs."""
    parts = []
    for position in wanted:
        name = signature.output_names[position]
        tensor = tensor_proto.encode(outputs[position], signature.output_dtypes[name])
        key = name.encode()
        entry = b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(tensor)) + tensor
        parts.append(b"\x0a" + varint(len(entry)) + entry)  # PredictResponse.outputs = 1, a map
    parts.append(b"\x12" + varint(len(spec)) + spec)  # PredictResponse.model_spec = 2
    return b"".join(parts)


def serialized_examples(request_input: Any, limits: RequestLimits) -> np.ndarray:
    """The Examples of an Input message, serialized, each with the shared context before it."""
    kind = request_input.WhichOneof("kind")
    if kind == "example_list":
        limits.check_rows(len(request_input.example_list.examples))
        examples = [example.SerializeToString() for example in request_input.example_list.examples]
    elif kind == "example_list_with_context":
        both = request_input.example_list_with_context
        limits.check_rows(len(both.examples))
        context = both.context.SerializeToString()
        limits.check_bytes(len(context) * len(both.examples))
        examples = [context + example.SerializeToString() for example in both.examples]
    else:
        examples = []
    if not examples:
        raise invalid_argument("Input is empty.")
    return np.array(examples, object)


@dataclass(frozen=True)
class ExampleTask:
    """A Classify or Regress task resolved against a version: the graph tensors it feeds and fetches."""

    method: str
    input_tensor: str
    outputs: dict[str, str]


def example_task(bundle: SavedModelBundle, name: str, method: str, check_method: bool = False) -> ExampleTask:
    """Check that signature `name` can be used as `method` (classify or regress).

    `check_method` asks for the signature to be named so as well (--enable_signature_method_name_check): signatures of
    TensorFlow 2 are all of the predict method, whatever their outputs.
    """
    signature = bundle.signatures.get(name or DEFAULT_SIGNATURE)
    kind = "classification" if method == CLASSIFY_METHOD else "regression"
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")
    if check_method and signature.method != method:
        raise invalid_argument(f"Expected {kind} signature method_name to be {method}. Was: {signature.method}")
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise ServingError(Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef: {signature.name}")
    if method == REGRESS_METHOD:
        if len(signature.outputs) != 1:
            raise invalid_argument("Expected one output Tensor.")
        allowed: tuple[str, ...] = ("outputs",)
    else:
        if len(signature.outputs) not in (1, 2):
            raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
        allowed = ("classes", "scores")
    outputs = {key: signature.outputs[key] for key in allowed if key in signature.outputs}
    if not outputs:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Expected {kind} signature outputs to contain at least one of {list(allowed)}. "
            f"It has {list(signature.outputs)}",
        )
    return ExampleTask(method, signature.inputs["inputs"].tensor, outputs)


def fill_classifications(result: Any, outputs: dict[str, np.ndarray], examples: int) -> None:
    """Fill a ClassificationResult from the `classes` and `scores` tensors, either of which may be missing."""
    for name, array in outputs.items():
        if array.ndim != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)} of {name!r}"
            )
        if array.shape[0] != examples:
            raise invalid_argument(f"Expected {name} output batch size of {examples}. Got: {array.shape[0]}")
    classes, scores = outputs.get("classes"), outputs.get("scores")
    if classes is not None and classes.dtype != object:
        raise invalid_argument(f"Expected classes Tensor of DT_STRING. Got: {classes.dtype}")
    if scores is not None and scores.dtype != np.float32:
        raise invalid_argument(f"Expected scores Tensor of DT_FLOAT. Got: {scores.dtype}")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    for row in range(examples):
        classification = result.classifications.add()
        labels = classes[row] if classes is not None else None
        values = scores[row] if scores is not None else None
        for position in range(len(labels) if labels is not None else len(values)):  # type: ignore[arg-type]
            entry = classification.classes.add()
            if labels is not None:
                entry.label = labels[position]
            if values is not None:
                entry.score = float(values[position])


def fill_regressions(result: Any, outputs: np.ndarray, examples: int) -> None:
    """Fill a RegressionResult from the `outputs` tensor of shape [batch] or [batch, 1]."""
    if outputs.ndim not in (1, 2) or (outputs.ndim == 2 and outputs.shape[1] != 1):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(outputs.shape)}"
        )
    if outputs.shape[0] != examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {examples} vs. {outputs.shape[0]}")
    if outputs.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT. Got: {outputs.dtype}")
    for value in outputs.ravel().tolist():
        result.regressions.add().value = value
