"""How fast a model trains here: `python -m benchmarks.topn.ours MODEL DATA.npz EPOCHS`, one JSON line an epoch."""

import json
import os
import sys
import time

import tensorflow as tf
import tf_keras as keras

from benchmarks.topn.arrays import load
from configs.model import LightGCN, ModelConfig, SASRec, Training
from models.registry import build_model
from models.topn.ranker import TrainedRanker
from models.topn.rows import TrainingRows
from models.training.context import WorkerContext
from models.training.steps import Steps
from transforms.transformed import TransformedFeature

MODELS: dict[str, tuple[ModelConfig, Training]] = {
    "lightgcn": (LightGCN(type="lightgcn", dim=64, layers=3), Training(batch=2048, learning_rate=0.005)),
    "sasrec": (
        SASRec(type="sasrec", dim=64, blocks=2, heads=1, dropout=0.2, length=200),
        Training(batch=16, learning_rate=0.001),
    ),
}


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["THREADS"]))
    tf.config.threading.set_inter_op_parallelism_threads(int(os.environ["THREADS"]))
    name, path, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    known, (config, training) = load(path), MODELS[name]
    size = known.item_count
    user = TransformedFeature(
        "user", "user", known.user_count, oov=(known.user_count - 1, known.user_count), hideable=True
    )
    item = TransformedFeature("item", "item", size + 2, oov=(size + 1, size + 2), hideable=True)
    past = TransformedFeature("past", "user", size + 2, multivalued=True, oov=item.oov, sequence_of="item", length=800)
    keras.utils.set_random_seed(1)

    def build() -> TrainedRanker:
        model = build_model(config, [user, item, past])
        assert isinstance(model, TrainedRanker)
        model.known = known
        model.prepared(known)
        return model

    asked = {"user": tf.ones([2], tf.int64), "item": tf.ones([2], tf.int64), "past": tf.ones([2, 800], tf.int64)}
    steps = Steps(build, training, (asked, tf.ones([2])), WorkerContext())
    rows = TrainingRows(steps.model.training_rows(known))
    in_epoch = rows.steps(training.batch)
    batches = iter(rows.batches(training.batch, in_epoch, epochs + 1, seed=1))
    steps.run(batches, tf.constant(in_epoch))  # traces
    events = len(known.users) if name == "lightgcn" else len(known.users) - len(known.sequences)
    for _ in range(epochs):
        began, cpu = time.perf_counter(), time.process_time()
        steps.run(batches, tf.constant(in_epoch))
        spent = time.process_time() - cpu
        print(json.dumps({"events_per_cpu_second": events / spent, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
