"""The training loop: the same steps for one process and for many in step, and what they measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.model import Training
from models.examples import Batch, Examples
from models.exchange import summed
from models.optimizers import dense_optimizer, table_optimizer
from models.rows import rows_once
from models.tally import Tally, figures

EVAL_BATCH = 8192
_STEPS_A_CALL = 64


Report = Callable[..., None]  # (line, step, resumed=None): what to say, where training is, where it went on from


@dataclass(frozen=True)
class Place:
    """This process among those that train together."""

    index: int = 0
    count: int = 1
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)

    @property
    def chief(self) -> bool:
        """Whether it is the one that reports, keeps and exports."""
        return self.index == 0

    def share_of(self, batch: int) -> int:
        """Return how many examples of a global batch this process takes."""
        return batch // self.count + (self.index < batch % self.count)

    def total(self, vector: np.ndarray) -> np.ndarray:
        """Return the sum of a vector over all processes; all of them must call it."""
        if self.count == 1:
            return vector
        summed = self.strategy.experimental_local_results(self._sum(tf.constant(vector, tf.float64)))
        return summed[0].numpy()

    def largest(self, value: int) -> int:
        """Return the largest value that any process has; all of them must call it."""
        own = np.zeros(self.count)
        own[self.index] = value
        return int(self.total(own).max())

    @cached_property
    def _sum(self) -> Callable[[tf.Tensor], Any]:
        def of_replica(vector):
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self._replicas_here == 0
            own = tf.where(first, vector, tf.zeros_like(vector))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return tf.function(lambda vector: self.strategy.run(of_replica, args=(vector,)), autograph=False)

    @property
    def _replicas_here(self) -> int:
        return self.strategy.num_replicas_in_sync // self.count


class Steps:
    """A model with its optimizers, and the compiled functions that train and evaluate it."""

    def __init__(self, build: Callable[[], keras.Model], config: Training, sample: Batch, place: Place):
        self._strategy = place.strategy
        self._place = place
        # Parameter servers take each worker's gradients as they come; Keras knows how.
        self._served = isinstance(self._strategy, tf.distribute.ParameterServerStrategy)
        with self._strategy.scope():
            self.model = build()
            self.model(sample[0], training=False)
            self.table_optimizer = table_optimizer(config.tables, config.learning_rate)
            self.dense_optimizer = dense_optimizer(config)
            self.position = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.tables, self.dense = split_variables(self.model)
            for optimizer, variables in ((self.table_optimizer, self.tables), (self.dense_optimizer, self.dense)):
                with tf.init_scope():
                    optimizer._create_all_weights(variables)
        self.seen = Tally()
        self._judged = Tally()
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
        context = tf.distribute.get_replica_context()
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
        if self._place.count > 1:
            *gradients, count = summed([*gradients, count], replicas)
        else:
            if replicas > 1 and not self._served:
                *gradients, count = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, count])
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
        return figures(self._place.total(self._judged.take()))

    @tf.function(reduce_retracing=True)
    def _judge(self, features, labels) -> None:
        self._judged.add(*self.local(self._strategy.run(self._score, args=(features, labels))))

    def _score(self, features: Mapping[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # In a replica, where reading what replicas keep apart, such as moving means, is not a talk of all workers.
        features, labels = self._of_replica(features, labels)
        return labels, self.model(features, training=False)

    def _of_replica(self, features: Mapping[str, tf.Tensor], labels: tf.Tensor) -> Batch:
        """Return the part of this process's batch that is for this replica."""
        here = self._strategy.num_replicas_in_sync // self._place.count
        if here == 1:
            return features, labels
        own = tf.distribute.get_replica_context().replica_id_in_sync_group % here
        return {name: value[own::here] for name, value in features.items()}, labels[own::here]

    def trained(self) -> dict[str, float]:
        """Return AUC and LogLoss of what was trained on since the last call, as it was met, over all processes."""
        return figures(self._place.total(self.seen.take()))

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
    """Return the trainable variables of tables, which a layer names in `trainable_tables()`, and all others."""
    layers = [layer for layer in model.submodules if hasattr(layer, "trainable_tables")]
    of_tables = {id(v) for layer in layers for v in layer.trainable_tables()}
    tables = [v for v in model.trainable_variables if id(v) in of_tables]
    return tables, [v for v in model.trainable_variables if id(v) not in of_tables]


def example_losses(model: keras.Model, features, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the loss of each example, [batch]: the model's own where it has one, else binary cross-entropy."""
    if hasattr(model, "example_losses"):
        return model.example_losses(features, labels, logits)
    return tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)


@dataclass
class Record:
    """What training has come to: kept in checkpoints, and in the end the history."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    workers: list[dict[str, float]] = field(default_factory=list)
    best: int = -1  # index into `epochs`
    finished: bool = False

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read it again."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Keeper:
    """What happens beside the steps; every call is optional to answer."""

    epoch_ended: Callable[[dict[str, Any], list[dict[str, float]]], None] = lambda epoch, workers: None
    best_found: Callable[[int], None] = lambda epoch: None
    checkpoint: Callable[[Record], None] = lambda record: None
    report: Report = lambda line, step, resumed=None: None


def fit(
    steps: Steps,
    training: Examples,
    evaluation: Examples,
    config: Training,
    place: Place,
    keeper: Keeper,
    record: Record,
) -> Record:
    """Train from `steps.position` on until the eval AUC has stopped rising for more than `patience` epochs."""
    batch = place.share_of(config.batch)
    in_epoch = place.largest(training.steps(batch))
    judged = evaluation.batches(EVAL_BATCH, evaluation.steps(EVAL_BATCH))
    position = int(steps.position.numpy())
    batches = iter(training.batches(batch, in_epoch, config.epochs, config.seed, first=position))
    while position < config.epochs * in_epoch and not record.finished:
        began, said = time.monotonic(), time.monotonic()
        epoch, at = divmod(position, in_epoch)
        while at < in_epoch:
            to_checkpoint = config.checkpoint_steps - position % config.checkpoint_steps
            taken = min(_STEPS_A_CALL, in_epoch - at, to_checkpoint)
            steps.run(batches, tf.constant(taken))
            at, position = at + taken, position + taken
            steps.position.assign(position)
            if position % config.checkpoint_steps == 0 and at < in_epoch:
                keeper.checkpoint(record)
            if time.monotonic() - said > 1.0:
                said = time.monotonic()
                keeper.report(f"epoch {epoch + 1}, step {at:,} of {in_epoch:,}", position)
        seconds = time.monotonic() - began
        workers = _of_workers(place, seconds, *steps.measured())
        end_epoch(record, workers, steps.trained(), steps.evaluate(judged), began, config, keeper, position)
    return record


def end_epoch(
    record: Record,
    workers: list[dict[str, float]],
    trained: Mapping[str, float],
    held_out: Mapping[str, float],
    began: float,
    config: Training,
    keeper: Keeper,
    position: int,
) -> None:
    """Write an epoch down, see whether it is the best and the last one, and tell."""
    totals = record.workers or [dict.fromkeys(worker, 0.0) for worker in workers]
    record.workers = [{k: t[k] + w[k] for k in t} for t, w in zip(totals, workers, strict=True)]
    record.epochs.append(
        {"epoch": len(record.epochs) + 1, "seconds": round(time.monotonic() - began, 3)}
        | {f"train_{name}": value for name, value in trained.items()}
        | {f"eval_{name}": value for name, value in held_out.items()}
    )
    if record.best < 0 or held_out["auc"] > record.epochs[record.best]["eval_auc"]:
        record.best = len(record.epochs) - 1
        keeper.best_found(len(record.epochs))
    record.finished = len(record.epochs) - 1 - record.best > config.patience or len(record.epochs) == config.epochs
    keeper.epoch_ended(record.epochs[-1], workers)
    keeper.checkpoint(record)
    keeper.report(_said(record.epochs[-1]), position)


def _of_workers(place: Place, seconds: float, examples: int, waited: float) -> list[dict[str, float]]:
    own = np.zeros([place.count, 3])
    own[place.index] = seconds, examples, waited
    keys = ("seconds", "examples", "waited")
    return [dict(zip(keys, map(float, row), strict=True)) for row in place.total(own)]


def workers_said(totals: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return each worker's seconds of training, examples a second, and share of time spent waiting for data."""
    return [
        {
            "index": index,
            "seconds": round(t["seconds"], 3),
            "examples_per_second": round(t["examples"] / max(t["seconds"], 1e-9)),
            "waiting_share": round(min(t["waited"] / max(t["seconds"], 1e-9), 1.0), 4),
        }
        for index, t in enumerate(totals)
    ]


def _said(epoch: Mapping[str, Any]) -> str:
    return (
        f"epoch {epoch['epoch']}: eval AUC {epoch['eval_auc']:.4f}, LogLoss {epoch['eval_logloss']:.4f}, "
        f"train AUC {epoch['train_auc']:.4f}, {epoch['seconds']:.1f} s"
    )
