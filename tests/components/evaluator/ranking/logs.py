"""Small logs as Examples by split, and models made by hand whose scores are known."""

import numpy as np
import tensorflow as tf

from components.evaluator.ranking.held_out import Columns
from configs.features import RawColumn
from models.recommend.best_items import Items
from transforms.raw import named_input_specs

RAW = {
    "user": RawColumn("user", "string", "user", None, ""),
    "gender": RawColumn("gender", "string", "user", None, ""),
    "recent": RawColumn("recent", "string", "user", None, "", 3),
    "item": RawColumn("item", "string", "item", None, ""),
}
COLUMNS = Columns("user", "item", "t", RAW)
USERS, ITEMS, ROWS = 23, 40, 900


def rows(seed=0):
    """Return rows by split, each (user, item, time, label); some users have no positive to hold out."""
    draw = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, ITEMS + 1)
    found = {"train": [], "eval": [], "test": []}
    for _ in range(ROWS):
        item = int(draw.choice(ITEMS, p=popularity / popularity.sum()))
        split = str(draw.choice(["train", "eval", "test"], p=[0.6, 0.1, 0.3]))
        found[split].append(
            (f"u{draw.integers(USERS)}", f"i{item}", int(draw.integers(100)), float(draw.random() < 0.7))
        )
    found["test"] += [("u0", "never met", 5, 1.0), ("stranger", "i3", 7, 1.0), ("no positive", "i1", 1, 0.0)]
    return found


def catalogue(by_split):
    """Return the items of the training rows."""
    ids, counts = np.unique([item for _, item, *_ in by_split["train"]], return_counts=True)
    return Items.in_fixed_order(list(ids), {"item": list(ids)}, list(counts))


def recent_of(user, time):
    return [f"r{time}", user][: 1 + time % 2]


def write(folder, by_split, shards=2):
    """Write the rows; return the files of each split."""
    files = {}
    for split, held in by_split.items():
        (folder / f"Split-{split}").mkdir(parents=True, exist_ok=True)
        for shard in range(shards):
            path = str(folder / f"Split-{split}" / f"data-{shard}.gz")
            files.setdefault(split, []).append(path)
            with tf.io.TFRecordWriter(path, "GZIP") as writer:
                for user, item, time, label in held[shard::shards]:
                    example = tf.train.Example()
                    feature = example.features.feature
                    feature["user"].bytes_list.value.append(user.encode())
                    feature["item"].bytes_list.value.append(item.encode())
                    feature["gender"].bytes_list.value.append(b"F" if len(user) % 2 else b"M")
                    feature["recent"].bytes_list.value.extend(r.encode() for r in recent_of(user, time))
                    feature["t"].int64_list.value.append(time)
                    feature["label"].float_list.value.append(label)
                    writer.write(example.SerializeToString())
    return files


def score(user, item, recent, salt):
    """The models' score of pairs: a hash, so that it is any order, of which some are equal."""
    text = tf.strings.join([user, item, tf.strings.reduce_join(recent, axis=1), salt], "/")
    return tf.cast(tf.strings.to_hash_bucket_fast(text, 53), tf.float32) / 53


def save_model(folder, salt):
    """Write a SavedModel that scores pairs, with the two signatures that the evaluation asks."""
    module = tf.Module()

    @tf.function(autograph=False)
    def serving_default(user, gender, recent, item):
        rows = tf.shape(item)[0]
        return {"score": score(user, item, tf.broadcast_to(recent, [rows, tf.shape(recent)[1]]), salt)}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def serve_examples(inputs):
        parsed = tf.io.parse_example(inputs, {c: tf.io.FixedLenFeature([], tf.string) for c in ("user", "item")})
        return {"outputs": score(parsed["user"], parsed["item"], parsed["user"][:, tf.newaxis], salt)}

    signatures = {
        "serving_default": serving_default.get_concrete_function(**named_input_specs(RAW.values())),
        "serve_examples": serve_examples,
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return str(folder)


def slow_lists(by_split, salt, k, mask=True):
    """Score every item for every user who has a held-out positive, and sort; a user's items by hash of the user."""
    items = catalogue(by_split)
    found = {}
    for user in {u for u, _, _, label in by_split["test"] if label}:
        _, time = min((t, t) for u, _, t, label in by_split["test"] if u == user and label)
        known = {i for split in ("train", "eval") for u, i, *_ in by_split[split] if u == user} if mask else set()
        left = [i for i in items.ids if i not in known]
        recent = recent_of(user, time)
        scores = score(
            tf.repeat([user], len(left)), tf.constant(left), tf.repeat([recent], len(left), axis=0), salt
        ).numpy()
        found[user] = [left[i] for i in np.argsort(-scores, kind="stable")[:k]]
    return found
