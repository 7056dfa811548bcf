"""A SavedModel on TensorFlow's C session: loaded and run without Python graph objects.

TensorFlow's own Python loaders build a Python object for every graph node and hold the interpreter lock while they
do; a server that swaps models under load cannot afford that. The C session is reached through the same private bindings
that `tf.compat.v1.Session` stands on, so TensorFlow is pinned and tests/serving/server/test_saved_model.py holds the
contract. A callable with `inter_op_thread_pool = -1` runs on the calling thread, which is several times cheaper than
calling the loaded signature.
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.server.status import Code, ServingError, invalid_argument

SERVE_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"
_INIT_OP_KEYS = ("saved_model_main_op", "legacy_init_op")
_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_INIT_OP_SIGNATURE = "__saved_model_init_op"
# Signatures that TensorFlow keeps for itself; never callable by a client.
_RESERVED_SIGNATURES = frozenset({_INIT_OP_SIGNATURE, "__saved_model_train_op"})


@dataclass(frozen=True)
class Input:
    """One named input of a signature: its graph tensor, element type and static shape (None: unknown rank)."""

    name: str
    tensor: str
    dtype: int
    numpy: np.dtype[Any]
    shape: tuple[int, ...] | None
    default: np.ndarray | None = None


@dataclass(frozen=True)
class Signature:
    """A signature as the server runs it: inputs by name in name order, outputs likewise."""

    name: str
    method: str
    inputs: dict[str, Input]
    outputs: dict[str, str]
    output_dtypes: dict[str, int]
    callable: RunCallable | _Unrunnable
    has_defaults: bool
    batchable: bool
    output_names: tuple[str, ...] = field(default=())

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All outputs in the order of `output_names` for `feeds` in the order of `inputs`."""
        return self.callable(feeds)


class RunCallable:
    """Some tensors to feed and some to fetch, compiled once for a session; safe to call from several threads."""

    def __init__(self, session: CSession, feeds: Sequence[str], fetches: Sequence[str], targets: Sequence[str] = ()):
        self._session = session
        self._positions: list[int] | None = None
        unique = list(dict.fromkeys(fetches))
        if len(unique) != len(fetches):  # two outputs of a signature may be one tensor; a callable fetches it once
            self._positions = [unique.index(name) for name in fetches]
        self._handle = session.make_callable(feeds, unique, targets)

    def __call__(self, feeds: Sequence[Any]) -> list[np.ndarray]:
        """The fetched arrays for the fed ones."""
        values = self._session.run_callable(self._handle, feeds)
        return values if self._positions is None else [values[position] for position in self._positions]


class _Unrunnable:
    """Stands for a signature whose tensors are not in the graph: says so whenever it is called."""

    def __init__(self, message: str):
        self._message = message

    def __call__(self, feeds: Sequence[Any]) -> list[np.ndarray]:
        raise invalid_argument(self._message)


class CSession:
    """TensorFlow's C session over an imported GraphDef."""

    def __init__(self, graph_def: bytes, config: Any):
        from tensorflow.python.client import pywrap_tf_session as c

        self._c = c
        self._graph = c.PyGraph()
        buffer = c.TF_NewBufferFromString(graph_def)
        options = c.TF_NewImportGraphDefOptions()
        try:
            results = c.TF_GraphImportGraphDefWithResults(self._graph, buffer, options)
            c.TF_DeleteImportGraphDefResults(results)
        finally:
            c.TF_DeleteImportGraphDefOptions(options)
            c.TF_DeleteBuffer(buffer)
        session_options = c.TF_NewSessionOptions(config=config)
        try:
            self._session = c.TF_NewSessionRef(self._graph, session_options)
        finally:
            c.TF_DeleteSessionOptions(session_options)
        try:
            c.ExtendSession(self._session)
        except BaseException:
            self.close()
            raise

    def make_callable(self, feeds: Sequence[str], fetches: Sequence[str], targets: Sequence[str]) -> int:
        """Compile (and optimize) the graph for these feeds and fetches; returns a handle."""
        from tensorflow.core.protobuf import config_pb2

        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches, target=targets)
        options.run_options.inter_op_thread_pool = -1
        buffer = self._c.TF_NewBufferFromString(options.SerializeToString())
        try:
            return self._c.TF_SessionMakeCallable(self._session, buffer)
        finally:
            self._c.TF_DeleteBuffer(buffer)

    def run_callable(self, handle: int, feeds: Sequence[Any]) -> list[np.ndarray]:
        """Run a compiled callable on this thread."""
        session = self._session
        if session is None:
            raise ServingError(Code.UNAVAILABLE, "The model was unloaded while the request ran.")
        try:
            return self._c.TF_SessionRunCallable(session, handle, feeds, None)
        except UnicodeDecodeError as error:
            # TensorFlow quotes the bytes it could not read, and its binding then fails to make a message of them.
            raise invalid_argument(error.object.decode("utf-8", "replace")) from error

    def close(self) -> None:
        """Free graph and variables."""
        session, self._session = self._session, None
        if session is not None:
            self._c.TF_CloseSession(session)
            self._c.TF_DeleteSession(session)
        self._graph = None


class SavedModelBundle:
    """A loaded SavedModel: its signatures, ready to run."""

    def __init__(
        self,
        path: str | pathlib.Path,
        *,
        tags: frozenset[str] = frozenset({SERVE_TAG}),
        intra_op_parallelism: int = 0,
        inter_op_parallelism: int = 0,
    ):
        """Load the SavedModel in folder `path`; raises ServingError saying what is wrong with it."""
        from tensorflow.core.protobuf import config_pb2

        self.path = pathlib.Path(path)
        meta_graph = _meta_graph(self.path, tags)
        config = config_pb2.ConfigProto(
            intra_op_parallelism_threads=intra_op_parallelism, inter_op_parallelism_threads=inter_op_parallelism
        )
        config.allow_soft_placement = True
        self._session = CSession(meta_graph.graph_def.SerializeToString(), config)
        self._one_shots: dict[tuple[tuple[str, ...], tuple[str, ...]], RunCallable] = {}
        self._one_shot_lock = threading.Lock()
        try:
            self._restore(meta_graph)
            self.signature_def = {
                name: definition
                for name, definition in sorted(meta_graph.signature_def.items())
                if name not in _RESERVED_SIGNATURES
            }
            self.signatures = {
                name: _signature(name, definition, self._session) for name, definition in self.signature_def.items()
            }
        except BaseException:
            self.close()
            raise

    def run(self, feeds: dict[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Fetch graph tensors by their own names, as MultiInference needs; the callable is made once and kept."""
        key = (tuple(feeds), tuple(fetches))
        with self._one_shot_lock:
            run = self._one_shots.get(key)
            if run is None:
                run = self._one_shots[key] = RunCallable(self._session, key[0], key[1])
        return run(list(feeds.values()))

    def close(self) -> None:
        """Free the session and its variables. No request may be running."""
        self._session.close()

    def _restore(self, meta_graph: Any) -> None:
        assets, values = [], []
        for asset in meta_graph.asset_file_def:
            assets.append(asset.tensor_info.name)
            values.append(_string(str(self.path / "assets" / asset.filename)))
        if not assets and "saved_model_assets" in meta_graph.collection_def:
            from tensorflow.core.protobuf import meta_graph_pb2

            for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
                asset = meta_graph_pb2.AssetFileDef()
                packed.Unpack(asset)
                assets.append(asset.tensor_info.name)
                values.append(_string(str(self.path / "assets" / asset.filename)))
        variables = self.path / "variables" / "variables"
        saver = meta_graph.saver_def
        if saver.restore_op_name and variables.with_name("variables.index").exists():
            feeds = [saver.filename_tensor_name, *assets]
            RunCallable(self._session, feeds, [], [saver.restore_op_name])([_string(str(variables)), *values])
        elif saver.restore_op_name and _has_variables(meta_graph.graph_def):
            raise ServingError(Code.NOT_FOUND, f"{variables}.index is missing: the version is not whole")
        init = _init_op(meta_graph)
        if init:
            RunCallable(self._session, assets, [], [init])(values)


def _string(value: str) -> np.ndarray:
    return np.array(value.encode(), dtype=object)


def _meta_graph(path: pathlib.Path, tags: frozenset[str]) -> Any:
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel()
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.exists():
            saved_model.ParseFromString(binary.read_bytes())
        elif text.exists():
            text_format.Parse(text.read_text(), saved_model)
        else:
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}.",
            )
    except (DecodeError, text_format.ParseError) as error:
        raise ServingError(Code.DATA_LOSS, f"Can't parse {binary} as binary proto: {error}") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    found = [sorted(meta_graph.meta_info_def.tags) for meta_graph in saved_model.meta_graphs]
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }} in {path}; "
        f"it has {found}.",
    )


def _has_variables(graph_def: Any) -> bool:
    bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    return any(node.op in _VARIABLE_OPS for body in bodies for node in body)


def _init_op(meta_graph: Any) -> str:
    if _INIT_OP_SIGNATURE in meta_graph.signature_def:
        return meta_graph.signature_def[_INIT_OP_SIGNATURE].outputs[_INIT_OP_SIGNATURE].name
    for key in _INIT_OP_KEYS:
        names = meta_graph.collection_def[key].node_list.value if key in meta_graph.collection_def else ()
        if names:
            return names[0]
    return ""


def _shape(info: Any) -> tuple[int, ...] | None:
    return None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)


def _signature(name: str, definition: Any, session: CSession) -> Signature:
    import tensorflow as tf

    inputs = {}
    for key, info in sorted(definition.inputs.items()):
        default = tf.make_ndarray(definition.defaults[key]) if key in definition.defaults else None
        numpy = np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype)
        inputs[key] = Input(key, info.name, info.dtype, numpy, _shape(info), default)
    outputs = {key: info.name for key, info in sorted(definition.outputs.items())}
    # Rows of different requests may share a run only where every input and output has rows: an open first dimension.
    shapes = [_shape(info) for info in (*definition.inputs.values(), *definition.outputs.values())]
    batchable = bool(inputs) and all(shape is not None and shape[:1] == (-1,) for shape in shapes)
    run: RunCallable | _Unrunnable
    try:
        run = RunCallable(session, [each.tensor for each in inputs.values()], list(outputs.values()))
    except Exception as error:  # the version's other signatures still serve
        run = _Unrunnable(f"Signature {name!r} cannot be run: {error}")
    return Signature(
        name=name,
        method=definition.method_name,
        inputs=inputs,
        outputs=outputs,
        output_dtypes={key: info.dtype for key, info in definition.outputs.items()},
        callable=run,
        has_defaults=any(each.default is not None for each in inputs.values()),
        batchable=batchable,
        output_names=tuple(outputs),
    )
