"""The benchmark's model: DeepFM over 26 categorical fields, embeddings of 16, DNN 400-400-400, untrained."""

from __future__ import annotations

import sys

import tensorflow as tf

FIELDS = [f"C{number}" for number in range(1, 27)]
BUCKETS = 10_000
DIM = 16
HIDDEN = (400, 400, 400)


class DeepFM(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = tf.random.Generator.from_seed(7)
        self.embeddings = [tf.Variable(generator.normal([BUCKETS, DIM], stddev=0.05)) for _ in FIELDS]
        self.linear = [tf.Variable(generator.normal([BUCKETS, 1], stddev=0.05)) for _ in FIELDS]
        self.dense = []
        width = len(FIELDS) * DIM
        for units in (*HIDDEN, 1):
            self.dense.append(
                (tf.Variable(generator.normal([width, units], stddev=0.05)), tf.Variable(tf.zeros([units])))
            )
            width = units

    def __call__(self, ids: list[tf.Tensor]) -> tf.Tensor:
        rows = [each % BUCKETS for each in ids]
        vectors = tf.stack([tf.gather(table, row) for table, row in zip(self.embeddings, rows, strict=True)], axis=1)
        linear = tf.add_n([tf.gather(table, row) for table, row in zip(self.linear, rows, strict=True)])
        together, apart = tf.reduce_sum(vectors, 1), tf.reduce_sum(tf.square(vectors), 1)
        crossed = 0.5 * tf.reduce_sum(tf.square(together) - apart, 1, keepdims=True)
        hidden = tf.reshape(vectors, [-1, len(FIELDS) * DIM])
        for layer, (weights, bias) in enumerate(self.dense):
            hidden = hidden @ weights + bias
            if layer < len(HIDDEN):
                hidden = tf.nn.relu(hidden)
        return tf.sigmoid(linear + crossed + hidden)[:, 0]


def save(path: str) -> None:
    model = DeepFM()

    @tf.function(input_signature=[{name: tf.TensorSpec([None], tf.int64, name=name) for name in FIELDS}])
    def serve(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"score": model([features[name] for name in FIELDS])}

    tf.saved_model.save(model, path, signatures={"serving_default": serve})


if __name__ == "__main__":
    save(sys.argv[1])
