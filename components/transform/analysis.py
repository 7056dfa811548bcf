"""TFT's analysis of one machine's data, without Beam.

TFT describes an analysis as a graph of operations, which it then builds as stages of Beam: a hundred of them for a
dozen features, whose set-up takes longer than a million rows. Here the same graph is walked over record batches:
the graph, what is fed to its analyzers, TFT's own combiners and the export are TFT's; only who calls them is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tensorflow_transform import (
    analyzer_nodes,
    analyzers,
    annotators,
    graph_context,
    graph_tools,
    impl_helper,
    nodes,
    tf2_utils,
)
from tensorflow_transform import tf_utils as tft_utils
from tensorflow_transform.beam import analysis_graph_builder, beam_nodes
from tensorflow_transform.output_wrapper import TFTransformOutput

from components.counts import COUNT, VALUE, ValueCounts, most_frequent_first

Tensors = Mapping[str, Any]
Preprocessing = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NotOnOneMachineError(Exception):
    """The analysis has an operation that is only known on Beam."""


class _Accumulator(Protocol):
    def add(self, values: Tensors) -> None:
        """Take a batch's tensors by name."""

    def result(self) -> Any:
        """Return what the operation hands on."""


class _Combined:
    """One of TFT's combiners, such as of moments or quantiles."""

    def __init__(self, combiner: analyzer_nodes.Combiner, keys: tuple[str, ...]):
        self._combiner, self._keys = combiner, keys
        self._accumulator = combiner.create_accumulator()

    def add(self, values: Tensors) -> None:
        self._accumulator = self._combiner.add_input(self._accumulator, tuple(values[k] for k in self._keys))

    def result(self) -> Any:
        return self._accumulator


class _Packed:
    """Several combiners in one operation, by label."""

    def __init__(self, operation: analyzer_nodes.PackedCombineAccumulate):
        self._parts = {c.label: _Combined(c.combiner, tuple(c.keys)) for c in operation.combiners}

    def add(self, values: Tensors) -> None:
        for part in self._parts.values():
            part.add(values)

    def result(self) -> Any:
        return {label: part.result() for label, part in self._parts.items()}


class _Counted:
    """How often each token of a vocabulary was seen."""

    def __init__(self, key: str):
        self._key, self._counts = key, ValueCounts()

    def add(self, values: Tensors) -> None:
        self._counts.add(pa.array(values[self._key], pa.large_binary()))

    def result(self) -> pa.Table:
        return self._counts.table()


class Analysis:
    """What a `preprocessing_fn` has to learn from data, and the export of what it learnt.

    `specs` are the raw columns' types, `temporary` a folder for what TFT writes on the way. Raises NotOnOneMachineError
    where `preprocessing_fn` uses an analyzer that is not known here.
    """

    def __init__(self, preprocessing_fn: Preprocessing, specs: Mapping[str, tf.TypeSpec], temporary: str):
        self._preprocessing_fn, self._specs, self._temporary = preprocessing_fn, specs, temporary
        self._graph, self._inputs, outputs = impl_helper.trace_preprocessing_function(
            preprocessing_fn, specs, False, temporary
        )
        self._assets = annotators.get_asset_annotations(self._graph)
        annotators.clear_asset_annotations(self._graph)
        self._fingerprint = graph_tools.get_analyzers_fingerprint(self._graph, self._inputs)
        self._root, _, _ = analysis_graph_builder.build(self._graph, self._inputs, outputs)
        self._accumulators = _accumulators(self._root)
        self._outputs = outputs

    @property
    def columns(self) -> list[str]:
        """The raw columns that are needed; the others change nothing."""
        wanted = [*tf.nest.flatten(self._outputs, expand_composites=True)]
        for operation in _operations(self._root):
            match operation.operation_def:
                case beam_nodes.CreateSavedModel() as model if model is not self._root.parent_operation.operation_def:
                    wanted.extend(model.output_signature.values())
        return sorted(graph_tools.get_dependent_inputs(self._graph, self._inputs, wanted))

    def run(self, batches: Callable[[], Iterable[Tensors]], folder: str) -> None:
        """Learn from batches of tensors, which `batches` yields anew at each call, and export the transform graph.

        `folder` gets `transform_fn` and `transformed_metadata`, what TFT's `WriteTransformFn` writes.
        """
        visitor = _Visitor(self._root, self._graph, self._temporary, self._phase(batches))
        replacements = nodes.Traverser(visitor).visit_value_node(self._root)
        model = os.path.join(folder, TFTransformOutput.TRANSFORM_FN_DIR)
        impl_helper.trace_and_write_v2_saved_model(
            model, self._preprocessing_fn, self._specs, self._temporary, self._fingerprint, replacements, None, None
        )
        metadata = os.path.join(folder, TFTransformOutput.TRANSFORMED_METADATA_DIR)
        os.replace(os.path.join(model, impl_helper.METADATA_DIR_NAME), metadata)
        if self._assets:
            with open(os.path.join(metadata, TFTransformOutput.ASSET_MAP), "w", encoding="utf-8") as stream:
                json.dump(self._assets, stream)

    def _phase(self, batches: Callable[[], Iterable[Tensors]]) -> Callable[[int, Tensors, Tensors], dict[str, Any]]:
        """Return what runs a phase: every batch's analyzer inputs go to the accumulators, in one pass."""

        def run(phase: int, replacements: Tensors, signature: Tensors) -> dict[str, Any]:
            context = graph_context.TFGraphContext(
                module_to_export=tf.Module(), temp_dir=self._temporary, evaluated_replacements=dict(replacements)
            )
            names = {key: tensor.name for key, tensor in signature.items()}
            with annotators.object_tracker_scope(annotators.ObjectTracker()):
                function = impl_helper.get_traced_transform_fn(
                    self._preprocessing_fn, self._specs, context, output_keys_to_name_map=names
                ).get_concrete_function()
            accumulators = {label: make() for label, make in self._accumulators[phase].items()}
            for tensors in batches():
                absent = [name for name in self._specs if name not in tensors]
                if absent:  # asked for none, TFT supplies all
                    rows = int(next(iter(tensors.values())).shape[0])
                    tensors = {**tensors, **tf2_utils.supply_missing_inputs(self._inputs, rows, absent)}
                values = {key: tensor.numpy() for key, tensor in function(tensors).items()}
                for accumulator in accumulators.values():
                    accumulator.add(values)
            return {label: accumulator.result() for label, accumulator in accumulators.items()}

        return run


class _Visitor(nodes.Visitor):
    """Gives every operation its value. That of the root is what replaces the analyzers' outputs, by tensor."""

    def __init__(
        self,
        root: nodes.ValueNode,
        graph: tf.Graph,
        temporary: str,
        run: Callable[[int, Tensors, Tensors], dict[str, Any]],
    ):
        self._root, self._graph, self._temporary, self._run = root.parent_operation.operation_def, graph, temporary, run
        self._results: dict[str, Any] = {}

    def validate_value(self, value: Any) -> None:
        """Take any value: operations hand on what those after them need."""

    def visit(self, operation_def: nodes.OperationDef, input_values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the operation's outputs."""
        if operation_def.label in self._results:
            return (self._results[operation_def.label],)
        match operation_def:
            case beam_nodes.ExtractInputForSavedModel():
                return (None,)
            case beam_nodes.CreateSavedModel(output_signature=signature):
                replacements = {name: tensor for binding in input_values for name, tensor in binding.items()}
                return (replacements if operation_def is self._root else (replacements, signature),)
            case beam_nodes.ApplySavedModel(phase=phase):
                self._results |= self._run(phase, *input_values[0])
                return (None,)
            case analyzer_nodes.ExtractVocabularyReservedTokens(name=name):
                return (tft_utils.fetch_vocabulary_reserved_tokens(self._graph, name),)
            case analyzer_nodes.VocabularyOrderAndWrite():
                return (_write_vocabulary(operation_def, self._temporary, *input_values),)
        return _evaluate(operation_def, input_values)


def _operations(root: nodes.ValueNode) -> Iterator[nodes.OperationNode]:
    """Yield every operation that a value depends on, once."""
    seen: set[int] = set()
    waiting = [root.parent_operation]
    while waiting:
        operation = waiting.pop()
        if id(operation) not in seen:
            seen.add(id(operation))
            yield operation
            waiting.extend(value.parent_operation for value in operation.inputs)


def _accumulators(root: nodes.ValueNode) -> dict[int, dict[str, Callable[[], _Accumulator]]]:
    """Return what is accumulated in each phase, by the operation's label. Raises NotOnOneMachineError."""
    found: dict[int, dict[str, Callable[[], _Accumulator]]] = {}
    for operation in _operations(root):
        definition = operation.operation_def
        if not isinstance(definition, _KNOWN) or not _plain(definition):
            raise NotOnOneMachineError(f"{type(definition).__name__} {definition.label}")
        if isinstance(definition, beam_nodes.ApplySavedModel):
            found.setdefault(definition.phase, {})
        if not isinstance(definition, _ACCUMULATE):
            continue
        source = operation.inputs[0].parent_operation
        keys: tuple[str, ...] = ()
        if isinstance(source.operation_def, beam_nodes.ExtractFromDict):
            keys = source.operation_def.keys
            source = source.inputs[0].parent_operation
        found.setdefault(source.operation_def.phase, {})[definition.label] = _maker(definition, keys)
    return found


def _maker(definition: nodes.OperationDef, keys: tuple[str, ...]) -> Callable[[], _Accumulator]:
    match definition:
        case analyzer_nodes.CacheableCombineAccumulate(combiner=combiner):
            return lambda: _Combined(combiner, keys)
        case analyzer_nodes.PackedCombineAccumulate():
            return lambda: _Packed(definition)
    return lambda: _Counted(keys[0])


def _plain(definition: nodes.OperationDef) -> bool:
    """Whether a vocabulary is one of text by frequency, which is all that is counted here."""
    match definition:
        case analyzer_nodes.VocabularyAccumulate(vocab_ordering_type=by, input_dtype=dtype):
            return by == analyzers._VocabOrderingType.FREQUENCY and dtype == tf.string.name
        case analyzer_nodes.VocabularyMerge(vocab_ordering_type=by):
            return by == analyzers._VocabOrderingType.FREQUENCY
        case analyzer_nodes.VocabularyPrune(key_fn=key_fn, informativeness_threshold=least, input_dtype=dtype):
            return key_fn is None and least == float("-inf") and dtype == tf.string.name
        case analyzer_nodes.VocabularyOrderAndWrite(
            file_format=form, store_frequency=stored, fingerprint_shuffle=mixed
        ):
            return form == "text" and not stored and not mixed
    return True


def _evaluate(definition: nodes.OperationDef, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the outputs of an operation that looks at no data."""
    match definition:
        case beam_nodes.CreateTensorBinding(tensor_name=name, dtype_enum=dtype):
            return ({name: tf.constant(values[0], tf.dtypes.as_dtype(dtype))},)
        case beam_nodes.ExtractFromDict(keys=key):
            # Of a phase's outputs the accumulators take what they need; the rest are packed accumulators by label.
            return (values[0][key] if values[0] is not None else None,)
        case beam_nodes.Flatten():
            return (values,)
        case analyzer_nodes.AddKey(key=key):
            return ((key, values[0]),)
        case analyzer_nodes.CacheableCombineMerge(combiner=combiner):
            return (combiner.extract_output(combiner.merge_accumulators([values[0]])),)
        case analyzer_nodes.PackedCombineMerge(combiners=combiners):
            given = dict(values[0])
            merged = {}
            for part in combiners:
                accumulator = part.combiner.merge_accumulators([given[part.keys[0]]])
                merged[part.label] = part.combiner.extract_output(accumulator)
            return (merged,)
        case analyzer_nodes.ExtractCombineMergeOutputs() | analyzer_nodes.ExtractPackedCombineMergeOutputs():
            return tuple(values[0])
        case analyzer_nodes.VocabularyMerge():
            return (values[0],)
        case analyzer_nodes.VocabularyPrune():
            return (_pruned(definition, values[0]),)
        case analyzer_nodes.VocabularyCount():
            return (np.int64(max(values[0].num_rows, 1)),)  # a vocabulary without tokens is written with one
    raise NotOnOneMachineError(f"{type(definition).__name__} {definition.label}")


def _pruned(definition: analyzer_nodes.VocabularyPrune, counts: pa.Table) -> pa.Table:
    """Return the tokens that are frequent enough, the most frequent first and of equals the last by their bytes."""
    if definition.frequency_threshold > 0:
        counts = counts.filter(pc.field(COUNT) >= definition.frequency_threshold)
    counts = most_frequent_first(counts)
    return counts if definition.top_k is None else counts.slice(0, definition.top_k)


def _write_vocabulary(
    definition: analyzer_nodes.VocabularyOrderAndWrite,
    folder: str,
    counts: pa.Table,
    reserved: Any = (),
) -> np.ndarray:
    """Write a token a line, reserved ones first, and return the file's path as TFT's own operation does."""
    first = dict.fromkeys(reserved)
    tokens = [*first, *(t for t in counts.column(VALUE).to_pylist() if t not in first)]
    if not tokens:
        tokens = [analyzers.get_empy_vocabulary_dummy_value(definition.input_dtype)[1]]
    path = os.path.join(folder, definition.vocab_filename)
    with open(path, "wb") as stream:
        stream.writelines(token + b"\n" for token in tokens)
    return np.array(path)


_ACCUMULATE = (
    analyzer_nodes.VocabularyAccumulate,
    analyzer_nodes.CacheableCombineAccumulate,
    analyzer_nodes.PackedCombineAccumulate,
)
_KNOWN = (
    *_ACCUMULATE,
    beam_nodes.ApplySavedModel,
    beam_nodes.CreateSavedModel,
    beam_nodes.CreateTensorBinding,
    beam_nodes.ExtractFromDict,
    beam_nodes.ExtractInputForSavedModel,
    beam_nodes.Flatten,
    analyzer_nodes.AddKey,
    analyzer_nodes.CacheableCombineMerge,
    analyzer_nodes.PackedCombineMerge,
    analyzer_nodes.ExtractCombineMergeOutputs,
    analyzer_nodes.ExtractPackedCombineMergeOutputs,
    analyzer_nodes.ExtractVocabularyReservedTokens,
    analyzer_nodes.VocabularyMerge,
    analyzer_nodes.VocabularyPrune,
    analyzer_nodes.VocabularyCount,
    analyzer_nodes.VocabularyOrderAndWrite,
)
