"""The same DeepFM as plain tf_keras users write it: `Embedding` layers, Adam, `fit`.

`python -m benchmarks.training.keras_adam VOCABULARY SECONDS` prints examples/s.
"""

import json
import os
import sys
import time

import models  # noqa: F401  makes tf_keras the Keras of TensorFlow

# isort: split
import tensorflow as tf
import tf_keras as keras

from benchmarks.training.deepfm import BATCH, DIM, HIDDEN, TABLES, batches


def model(vocabulary: int) -> keras.Model:
    """Return a compiled DeepFM."""
    inputs = {f"f{i}": keras.Input([], dtype=tf.int64, name=f"f{i}") for i in range(TABLES)}
    fields = tf.stack([keras.layers.Embedding(vocabulary, DIM)(x) for x in inputs.values()], axis=1)
    first = tf.add_n([keras.layers.Embedding(vocabulary, 1)(x) for x in inputs.values()])
    pairs = 0.5 * tf.reduce_sum(tf.square(tf.reduce_sum(fields, 1)) - tf.reduce_sum(tf.square(fields), 1), 1, True)
    deep = keras.layers.Flatten()(fields)
    for units in HIDDEN:
        deep = keras.layers.Dense(units, activation="relu")(deep)
    logits = keras.layers.Dense(1)(deep) + first + pairs
    made = keras.Model(inputs, logits)
    made.compile(keras.optimizers.Adam(), keras.losses.BinaryCrossentropy(from_logits=True), steps_per_execution=4)
    return made


def main() -> None:
    """Measure and print."""
    vocabulary, seconds = int(float(sys.argv[1])), float(sys.argv[2])
    threads = int(os.environ["THREADS"])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    made, data = model(vocabulary), batches(vocabulary)
    made.fit(data, steps_per_epoch=4, verbose=0)
    began = time.perf_counter()
    made.fit(data, steps_per_epoch=4, verbose=0)
    count = max(int(seconds / (time.perf_counter() - began)), 1) * 4
    found = []
    for _ in range(2):
        began = time.perf_counter()
        made.fit(data, steps_per_epoch=count, verbose=0)
        found.append(count * BATCH / (time.perf_counter() - began))
    print(json.dumps({"examples_per_second": found}))


if __name__ == "__main__":
    main()
