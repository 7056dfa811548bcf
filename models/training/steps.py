"""A model with its optimizers, and the compiled steps that train and evaluate it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from configs.model import Training
from models.base import OwnLoss
from models.layers.embedding import table_layers
from models.layers.rows import rows_once
from models.training.collectives import summed
from models.training.context import WorkerContext
from models.training.examples import Batch
from models.training.negatives import DRAWN
from models.training.optimizers import dense_optimizer, table_optimizer
from models.training.streaming_auc import StreamingAUC, figures

_CUT = 0.2


class Steps:
    """A model with its optimizers, and the compiled functions that train and evaluate it."""

    def __init__(self, build: Callable[[], keras.Model], config: Training, sample: Batch, context: WorkerContext):
        self._strategy = context.strategy
        self._context = context
        # Parameter servers take each worker's gradients as they come; Keras knows how.
        self._served = isinstance(self._strategy, tf.distribute.ParameterServerStrategy)
        with self._strategy.scope():
            self.model = build()
            self.model(sample[0], training=False)
            self.table_optimizer = table_optimizer(config)
            self.dense_optimizer = dense_optimizer(config)
            self.position = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.tables, self.dense = split_variables(self.model)
            for optimizer, variables in ((self.table_optimizer, self.tables), (self.dense_optimizer, self.dense)):
                with tf.init_scope():
                    optimizer._create_all_weights(variables)
        self.seen = StreamingAUC()
        self._judged = StreamingAUC()
        self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._examples = tf.Variable(0, dtype=tf.int64, trainable=False)

    @tf.function(reduce_retracing=True)
    def run(self, batches, steps: tf.Tensor) -> None:
        """Take `steps` steps over an iterator of batches."""
        for _ in tf.range(steps):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                features, labels = next(batches)
            with tf.control_dependencies([labels, *features.values()]):
                got = tf.timestamp()
            self._waited.assign_add(got - asked)
            self._examples.assign_add(tf.size(labels, tf.int64))
            self.seen.add(*self.local(self._strategy.run(self.step, args=(features, labels))))

    def local(self, results: Sequence[Any]) -> list[tf.Tensor]:
        """Return a step's results of all replicas of this process, joined."""
        return [tf.concat(self._strategy.experimental_local_results(result), axis=0) for result in results]

    def step(self, features: Mapping[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Take one step, in a replica, and return the labels and logits of the examples that it took."""
        replica = tf.distribute.get_replica_context()
        features, labels = self._of_replica(features, labels)
        count = tf.cast(tf.size(labels), tf.float32)
        with tf.GradientTape() as tape:
            logits = self.model(features, training=True)
            total = tf.reduce_sum(example_losses(self.model, features, labels, logits))
            if self.model.losses:  # means over the batch, as layers add them
                total += count * tf.add_n(self.model.losses)
        variables = [*self.tables, *self.dense]
        found = [(g, v) for g, v in zip(tape.gradient(total, variables), variables, strict=True) if g is not None]
        gradients = [g for g, _ in found]
        # Sums are added up and divided once, so that it does not matter how the batch was dealt out.
        replicas = self._strategy.num_replicas_in_sync
        if self._context.count > 1:
            *gradients, count = summed([*gradients, count], replicas)
        else:
            if replicas > 1 and not self._served:
                *gradients, count = replica.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, count])
            gradients = rows_once(gradients)
        scale = 1.0 / tf.maximum(count, 1.0)
        of_tables = {v.ref() for v in self.tables}
        scaled = [(_scaled(g, scale), v) for g, (_, v) in zip(gradients, found, strict=True)]
        for optimizer, of in ((self.table_optimizer, True), (self.dense_optimizer, False)):
            if part := [(g, v) for g, v in scaled if (v.ref() in of_tables) is of]:
                optimizer.apply_gradients(part, experimental_aggregate_gradients=self._served)
        return labels, logits

    def evaluate(self, batches: tf.data.Dataset) -> dict[str, float]:
        """Return AUC and LogLoss over all processes' batches."""
        for features, labels in batches:
            self._judge(features, labels)
        return figures(self._context.total(self._judged.take()))

    @tf.function(reduce_retracing=True)
    def _judge(self, features, labels) -> None:
        self._judged.add(*self.local(self._strategy.run(self._score, args=(features, labels))))

    def _score(self, features: Mapping[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # In a replica, where reading what replicas keep apart, such as moving means, is not a talk of all workers.
        features, labels = self._of_replica(features, labels)
        return labels, self.model(features, training=False)

    def _of_replica(self, features: Mapping[str, tf.Tensor], labels: tf.Tensor) -> Batch:
        """Return the part of this process's batch that is for this replica."""
        here = self._strategy.num_replicas_in_sync // self._context.count
        if here == 1:
            return features, labels
        own = tf.distribute.get_replica_context().replica_id_in_sync_group % here
        return {name: value[own::here] for name, value in features.items()}, labels[own::here]

    def cut_step_size(self) -> None:
        """Go on with a fifth of the step size."""
        for optimizer in (self.table_optimizer, self.dense_optimizer):
            optimizer.learning_rate = float(optimizer.learning_rate.numpy()) * _CUT

    def trained(self) -> dict[str, float]:
        """Return AUC and LogLoss of what was trained on since the last call, as it was met, over all processes."""
        return figures(self._context.total(self.seen.take()))

    def measured(self) -> tuple[int, float]:
        """Return the examples this process has trained on and the seconds it waited for them, since the last call."""
        taken = int(self._examples.numpy()), float(self._waited.numpy())
        self._examples.assign(0)
        self._waited.assign(0.0)
        return taken


def _scaled(gradient: tf.Tensor | tf.IndexedSlices, scale: tf.Tensor) -> tf.Tensor | tf.IndexedSlices:
    if isinstance(gradient, tf.Tensor):
        return gradient * scale
    return tf.IndexedSlices(gradient.values * scale, gradient.indices, gradient.dense_shape)


def split_variables(model: keras.Model) -> tuple[list[tf.Variable], list[tf.Variable]]:
    """Return the trainable variables of embedding tables, whose gradients are sparse, and all others."""
    of_tables = {id(v) for layer in table_layers(model) for v in layer.trainable_tables()}
    tables = [v for v in model.trainable_variables if id(v) in of_tables]
    return tables, [v for v in model.trainable_variables if id(v) not in of_tables]


def example_losses(model: keras.Model, features, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the loss of each example, [batch]: the model's own where it has one, else binary cross-entropy."""
    if isinstance(model, OwnLoss):
        return model.example_losses(features, labels, logits)
    if DRAWN in features:  # the log odds of the rows there are, which is not those of all pairs
        logits = logits - features[DRAWN]
    return tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
