"""Small SavedModels of several kinds, made where a test needs them."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np


def half_plus_two(folder: pathlib.Path, version: int, *, add: float = 2.0, warmup: bool = False) -> pathlib.Path:
    """A TF1 model y = x / 2 + `add` with predict, classify and regress signatures over Examples and plain tensors."""
    import tensorflow as tf

    v1 = tf.compat.v1
    final = folder / str(version)
    path = folder / f".{version}.new"
    shutil.rmtree(path, ignore_errors=True)
    with tf.Graph().as_default(), v1.Session() as session:
        half = v1.get_variable("half", initializer=0.5)
        plus = v1.get_variable("plus", initializer=float(add))
        serialized = v1.placeholder(tf.string, name="tf_example")
        parsed = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(parsed["x"], "x")
        y = tf.add(half * x, plus, name="y")
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        definition = v1.saved_model.build_signature_def
        signatures = {
            "serving_default": definition({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
            "classify_x_to_y": definition(
                {"inputs": info(serialized)}, {"scores": info(y)}, "tensorflow/serving/classify"
            ),
            "regress_x_to_y": definition(
                {"inputs": info(serialized)}, {"outputs": info(y)}, "tensorflow/serving/regress"
            ),
            "regress_x": definition({"inputs": info(x)}, {"outputs": info(y)}, "tensorflow/serving/regress"),
        }
        builder = v1.saved_model.builder.SavedModelBuilder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()
    if warmup:
        write_warmup(path, add)
    folder.mkdir(parents=True, exist_ok=True)
    path.rename(final)
    return final


def write_warmup(path: pathlib.Path, value: float, records: int = 3) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    extra = path / "assets.extra"
    extra.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for _ in range(records):
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.name = "any"
            log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([[value]], tf.float32))
            writer.write(log.SerializeToString())


def answer_version(folder: pathlib.Path, version: int, rows: int = 1) -> pathlib.Path:
    """A TF2 model that says which version it is: {"score": x * 0 + version, "version": version}."""
    import tensorflow as tf

    class Answer(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.version = tf.Variable(version, dtype=tf.int64)
            self.weights = tf.Variable(np.full((rows, 1024), version, np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x):
            number = tf.cast(self.version, tf.float32)
            return {
                "score": x * 0.0 + number + 0.0 * tf.reduce_sum(self.weights[:1]),
                "version": tf.cast(tf.zeros_like(x), tf.int64) + self.version,
            }

    module = Answer()
    new = folder / f".{version}.new"
    shutil.rmtree(new, ignore_errors=True)
    tf.saved_model.save(module, str(new), signatures=module.serve)
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / str(version)
    new.rename(final)
    return final


def ranking(folder: pathlib.Path, version: int = 1, *, offset: float = 0.0) -> pathlib.Path:
    """The project's signature contract in small: serving_default, rank, serve_examples, transform_features, defaults.

    score = age / 100 + len(item) + offset; `age` defaults to 30, `item` to "".
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    class Ranking(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = tf.Variable(offset)
            table = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([100.0, 200.0]))
            self.bonus = tf.lookup.StaticHashTable(table, 0.0)

        def score(self, age, item):
            length = tf.cast(tf.strings.length(item), tf.float32)
            return tf.cast(age, tf.float32) / 100.0 + length + self.bonus.lookup(item) + self.offset

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.int64, name="age"), tf.TensorSpec([None], tf.string, name="item")]
        )
        def serve(self, age, item):
            return {"score": self.score(age, item)}

        @tf.function(
            input_signature=[tf.TensorSpec([1], tf.int64, name="age"), tf.TensorSpec([None], tf.string, name="item")]
        )
        def rank(self, age, item):
            return {"scores": self.score(age, item)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve_examples(self, examples):
            spec = {
                "age": tf.io.FixedLenFeature([], tf.int64, 30),
                "item": tf.io.FixedLenFeature([], tf.string, ""),
            }
            parsed = tf.io.parse_example(examples, spec)
            return {"score": self.score(parsed["age"], parsed["item"])}

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.int64, name="age"), tf.TensorSpec([None], tf.string, name="item")]
        )
        def transform(self, age, item):
            return {"age": tf.cast(age, tf.float32), "item_length": tf.strings.length(item)}

    module = Ranking()
    new = folder / f".{version}.new"
    shutil.rmtree(new, ignore_errors=True)
    tf.saved_model.save(
        module,
        str(new),
        signatures={
            "serving_default": module.serve,
            "rank": module.rank,
            "serve_examples": module.serve_examples,
            "transform_features": module.transform,
        },
    )
    file = new / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name in ("serving_default", "rank"):
        defaults = saved_model.meta_graphs[0].signature_def[name].defaults
        defaults["age"].CopyFrom(tf.make_tensor_proto([30], tf.int64))
        defaults["item"].CopyFrom(tf.make_tensor_proto([""], tf.string))
    file.write_bytes(saved_model.SerializeToString())
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / str(version)
    new.rename(final)
    return final


def kinds(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, str]]:
    """SavedModels as TensorFlow and Keras write them, all of y = 2 * x: kind to (base path, input name)."""
    import os

    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf
    import tf_keras

    made = {}
    module = tf.Module()
    module.factor = tf.Variable(2.0)
    module.call = tf.function(
        lambda x: {"y": module.factor * x}, input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(folder / "module" / "1"), signatures=module.call)
    made["module"] = (folder / "module", "x")

    def sequential():
        model = tf_keras.Sequential(
            [tf_keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", input_shape=(1,), name="dense")]
        )
        model.set_weights([np.full((1, 1), 2.0, np.float32)])
        return model

    model = sequential()
    model.save(str(folder / "keras" / "1"), save_format="tf")
    made["keras"] = (folder / "keras", next(iter(_inputs(folder / "keras" / "1"))))
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = sequential()
    tf.saved_model.save(model, str(folder / "distributed" / "1"))
    made["distributed"] = (folder / "distributed", next(iter(_inputs(folder / "distributed" / "1"))))
    return made


def _inputs(path: pathlib.Path) -> dict[str, object]:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return dict(saved_model.meta_graphs[0].signature_def["serving_default"].inputs)


def spinning(folder: pathlib.Path) -> pathlib.Path:
    """y = turns, counted one by one: a request as slow as its largest row asks for."""
    import tensorflow as tf

    class Spinning(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="turns")])
        def serve(self, turns):
            most = tf.reduce_max(turns)
            made = tf.while_loop(lambda n, y: n < most, lambda n, y: (n + 1, tf.minimum(y + 1, turns)), [
                tf.constant(0, tf.int64), tf.zeros_like(turns)
            ])  # fmt: skip
            return {"y": made[1]}

    module = Spinning()
    tf.saved_model.save(module, str(folder / "1"), signatures=module.serve)
    return folder / "1"
