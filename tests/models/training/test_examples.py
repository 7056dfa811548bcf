"""Reading: every example once an epoch, by every reader together, in the same number of steps."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from configs.features import LABEL, WEIGHT
from models.training.examples import Examples, Share
from tests.models.training.jobs import KEY, write_examples
from transforms.transformed import PADDING, TransformedFeature


def seen(source: Examples, batch: int, steps: int, **how) -> list[list[float]]:
    """Return the keys of each batch."""
    return [list(features[KEY].numpy()) for features, _ in source.batches(batch, steps, **how)]


def flat(batches: list[list[float]]) -> Counter:
    return Counter(key for batch in batches for key in batch)


@pytest.fixture(scope="module")
def everything(sample):
    return Counter(float(i) for i in range(len(sample.rows)))


@pytest.mark.parametrize("cache_mib", [64, 0])
@pytest.mark.parametrize(
    ("files", "readers"), [([150, 20, 130, 100], 2), ([150, 20, 130, 100], 3), ([400], 2), ([399, 1], 3)]
)
def test_readers_see_every_example_once_an_epoch(sample, everything, tmp_path, files, readers, cache_mib):
    write_examples(sample, tmp_path, files)
    sources = [Examples([f"{tmp_path}/*.gz"], sample.features, Share(i, readers), cache_mib) for i in range(readers)]
    assert all(source.cached == bool(cache_mib) for source in sources)
    assert sum(source.count for source in sources) == len(sample.rows)
    steps = max(source.steps(16) for source in sources)
    by_reader = [seen(source, 16, steps, epochs=2, seed=5) for source in sources]
    for batches in by_reader:
        assert len(batches) == 2 * steps  # one that has run out goes on with empty batches
    for epoch in range(2):
        part = slice(epoch * steps, (epoch + 1) * steps)
        assert flat([batch for batches in by_reader for batch in batches[part]]) == everything
    assert by_reader[0][:steps] != by_reader[0][steps:]  # each epoch has an order of its own


@pytest.mark.parametrize("cache_mib", [64, 0])
def test_going_on_from_a_step_gives_what_was_left(sample, tmp_path, cache_mib):
    write_examples(sample, tmp_path, [200, 200])
    source = Examples([f"{tmp_path}/*.gz"], sample.features, cache_mib=cache_mib)
    steps = source.steps(64)
    whole = seen(source, 64, steps, epochs=3, seed=1)
    for first in (0, 3, steps, steps + 2, 3 * steps - 1):
        assert seen(source, 64, steps, epochs=3, seed=1, first=first) == whole[first:]


def test_cached_examples_are_those_of_the_files(sample, tmp_path):
    write_examples(sample, tmp_path, [400])
    cached, read = (Examples([f"{tmp_path}/*.gz"], sample.features, cache_mib=mib) for mib in (64, 0))
    (one, labels), (other, same) = (next(iter(source.batches(400, 1))) for source in (cached, read))
    by_key, also = np.argsort(one[KEY]), np.argsort(other[KEY])
    assert (labels.numpy()[by_key] == same.numpy()[also]).all()
    for f in sample.features:
        left, right = one[f.name].numpy()[by_key], other[f.name].numpy()[also]
        assert left.dtype == right.dtype
        width = max(left.shape[1:] + right.shape[1:], default=0)
        if width:
            left, right = (np.pad(x, [(0, 0), (0, width - x.shape[1])], constant_values=PADDING) for x in (left, right))
        np.testing.assert_array_equal(left, right)


def test_a_seed_decides_the_order_and_not_how_files_were_cut(sample, tmp_path):
    """Beam numbers its files, and deals examples out to them, in another way each time."""
    records = write_examples(sample, tmp_path / "one", [400])
    (tmp_path / "other").mkdir()
    for index, part in enumerate((records[250:], records[:30], records[30:250])):
        with tf.io.TFRecordWriter(f"{tmp_path}/other/part-{index}.gz", "GZIP") as writer:
            for record in reversed(part):
                writer.write(record)
    one, other = (Examples([f"{tmp_path}/{folder}/*.gz"], sample.features) for folder in ("one", "other"))
    assert seen(one, 64, 7, epochs=2, seed=3) == seen(other, 64, 7, epochs=2, seed=3)


def test_nothing_to_read_says_what_was_looked_for(sample, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing matches .*none/\*\.gz"):
        Examples([f"{tmp_path}/none/*.gz"], sample.features)


@pytest.mark.parametrize("cache_mib", [64, 0])
def test_weights_come_with_the_features_where_they_are_asked_for(tmp_path, cache_mib):
    def row(user, weight):
        values = {"user": tf.train.Feature(int64_list=tf.train.Int64List(value=[user]))}
        for name, value in ((LABEL, 1.0), (WEIGHT, weight)):
            values[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()

    with tf.io.TFRecordWriter(f"{tmp_path}/rows.gz", "GZIP") as writer:
        for user, weight in ((1, 7.0), (2, 0.5)):
            writer.write(row(user, weight))
    features = [TransformedFeature("user", "user", 9)]
    for weighted in (True, False):
        source = Examples([f"{tmp_path}/*.gz"], features, cache_mib=cache_mib, weighted=weighted)
        ((inputs, _),) = source.batches(2, 1)
        assert (WEIGHT in inputs) == weighted
        if weighted:
            assert dict(zip(inputs["user"].numpy(), inputs[WEIGHT].numpy(), strict=True)) == {1: 7.0, 2: 0.5}
