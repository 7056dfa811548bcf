"""Raw Examples in, transformed Examples out, in large batches and files of equal length."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper
from tensorflow_transform.saved import saved_transform_io_v2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder, RecordBatchToExamplesEncoder
from tfx_bsl.tfxio.tensor_adapter import TensorAdapter
from tfx_bsl.tfxio.tf_example_record import TFExampleBeamRecord

from components.examples import record_writer

BATCH = 1 << 14  # rows
_KEPT = 256 << 20  # bytes of decoded rows that are kept for a second pass


class Columns:
    """Decodes raw Examples, as Transform's own reader does: by the schema, and only the columns that are needed."""

    def __init__(self, schema: schema_pb2.Schema, names: Sequence[str] | None = None):
        reader = TFExampleBeamRecord("tfrecords_gzip", ["Transform"], schema)
        if names is not None:
            reader = reader.Project(list(names))
        self._adapter: TensorAdapter = reader.TensorAdapter()
        self._schema = reader.ArrowSchema()
        projected = schema_pb2.Schema()
        projected.CopyFrom(schema)
        del projected.feature[:]
        projected.feature.extend(f for f in schema.feature if f.name in self._schema.names)
        self._decoder = ExamplesToRecordBatchDecoder(projected.SerializeToString())

    @property
    def specs(self) -> dict[str, tf.TypeSpec]:
        """The types of all columns of the schema, needed or not."""
        return self._adapter.OriginalTypeSpecs()

    def read(self, files: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of gzipped TFRecord files, in their order."""
        for serialized in tf.data.TFRecordDataset(files, "GZIP").batch(BATCH).as_numpy_iterator():
            yield self._decoder.DecodeBatch(list(serialized))

    def tensors(self, batch: pa.RecordBatch) -> dict[str, Any]:
        """Return a batch's columns as tensors, each of the type that TFT has traced."""
        return self._adapter.ToBatchTensors(batch, produce_eager_tensors=True)


class Rereadable:
    """The rows of some files for several passes: what fits is decoded once."""

    def __init__(self, columns: Columns, files: Sequence[str]):
        self._columns, self._files = columns, files
        self._kept: list[pa.RecordBatch] | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[pa.RecordBatch] | None = []
        size = 0
        for batch in self._columns.read(self._files):
            size += batch.nbytes
            if kept is not None and size <= _KEPT:
                kept.append(batch)
            else:
                kept = None
            yield batch
        self._kept = kept


class TransformGraph:
    """An exported transform graph, applied to batches of raw columns."""

    def __init__(self, folder: str, names: Sequence[str]):
        self._graph = saved_transform_io_v2.SavedModelLoader(folder)
        self._graph.finalize(names, set(self._graph.structured_outputs))

    def apply(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the transformed features."""
        return self._graph.apply_transform_model(dict(tensors))


def write(batches: Iterable[Mapping[str, Any]], schema: schema_pb2.Schema, prefix: str, files: int) -> None:
    """Write transformed features as Examples to `files` gzipped TFRecord files, which get equal shares of each batch.

    Raises ValueError where a row's features do not fit the schema.
    """
    converter = impl_helper.make_tensor_to_arrow_converter(schema)
    sparse = [
        name
        for name, representation in converter.tensor_representations().items()
        if representation.WhichOneof("kind") == "varlen_sparse_tensor"
    ]
    encoder = RecordBatchToExamplesEncoder(schema)
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    with ExitStack() as stack:
        writers = [stack.enter_context(record_writer(f"{prefix}-{i:05}-of-{files:05}.gz")) for i in range(files)]
        for features in batches:
            for name in sparse:
                impl_helper.validate_varlen_sparse_value(name, features[name])
            encoded = encoder.encode(converter.convert(features))
            for i, writer in enumerate(writers):
                for record in encoded[len(encoded) * i // files : len(encoded) * (i + 1) // files]:
                    writer.write(record)
