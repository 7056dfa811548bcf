"""Embeddings as TensorBoard's projector reads them: the vectors of the most frequent ids, and the ids beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow_transform as tft
import tf_keras as keras

from models.layers.embedding import table_layers
from transforms.transformed import TransformedFeature

PROJECTION_FILE = "projection.json"
_MOST = 10_000  # what the page shows at once without growing slow


def write_projection(
    model: keras.Model, transform_output: tft.TFTransformOutput, features: list[TransformedFeature], folder: str
) -> None:
    """Write each vocabulary's embeddings to `folder`: NAME.tsv, a vector a line, and NAME.txt, an id a line.

    A vocabulary is sorted by how often its values were seen, so the first rows are the most frequent ids.
    """
    layers = [layer for layer in table_layers(model) if layer.tables]
    if not layers:
        return
    layer = max(layers, key=lambda layer: max(t.variable.shape[1] for t in layer.tables.values()))
    written = {}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for f in features:
        table = layer.tables.get(f.name)
        if table is None or f.multivalued or f.quotient_remainder or f.oov is None or f.oov[0] < 3 or f.table:
            continue  # numbers, hashes and compositions have no rows of single values
        count = min(f.oov[0] - 1, _MOST)
        rows = table.variable[table.start + 1 : table.start + 1 + count].numpy()
        if rows.shape[1] < 2:
            continue
        np.savetxt(Path(folder, f"{f.name}.tsv"), rows, fmt="%.6g", delimiter="\t")
        words = transform_output.vocabulary_by_name(f.name)[:count]
        Path(folder, f"{f.name}.txt").write_bytes(b"\n".join(words) + b"\n")
        written[f.name] = {"rows": count, "dim": int(rows.shape[1])}
    Path(folder, PROJECTION_FILE).write_text(json.dumps(written))
