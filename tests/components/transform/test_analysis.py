"""What TFT's analysis graph says, without Beam: vocabularies by definition, and analyses of several passes."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from hypothesis import given, settings
from hypothesis import strategies as st

from components import counts
from components.transform.analysis import Analysis, NotOnOneMachineError

KINDS = [(top, least) for top in (None, 1, 4) for least in (None, 2, 3)]
TEXTS = st.lists(st.text("ab\0é☃ \n", max_size=3), max_size=60)


def vocabularies_of(inputs):
    for i, (top, least) in enumerate(KINDS):
        tft.vocabulary(inputs["text"], top_k=top, frequency_threshold=least, vocab_filename=f"v{i}")
    return {"text": inputs["text"]}


@settings(max_examples=4)
@given(TEXTS)
def test_vocabularies_are_the_frequent_tokens_the_last_by_their_bytes_first(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("vocabularies")
    wanted = Analysis(vocabularies_of, {"text": tf.TensorSpec([None], tf.string)}, str(folder / "temporary"))
    batches = [{"text": tf.constant(texts[at : at + 7], tf.string)} for at in range(0, len(texts), 7)]
    wanted.run(lambda: batches, str(folder))
    output = tft.TFTransformOutput(str(folder))
    seen = Counter(t.encode() for t in texts if t and "\n" not in t)
    for i, (top, least) in enumerate(KINDS):
        expected = [t for t in sorted(seen, key=lambda t: (seen[t], t), reverse=True) if seen[t] >= (least or 1)]
        found = output.vocabulary_by_name(f"v{i}")
        assert found == expected[:top] or (not expected and len(found) == 1)


@pytest.fixture(scope="module", autouse=True)
def counts_added_up_often():
    """Adds counts up after every few tokens, as it is with millions of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_COMPACT_AT", 3)
        yield


def in_two_passes(inputs):
    centered = inputs["x"] - tft.mean(inputs["x"])
    return {"x": centered / tft.max(tf.abs(centered))}


def test_an_analyzer_of_what_another_found_takes_a_pass_of_its_own(tmp_path):
    values = np.array([1.0, 2.0, 6.0, 7.0], np.float32)
    passes = []

    def batches():
        passes.append(1)
        yield from ({"x": tf.constant(part)} for part in (values[:3], values[3:]))

    wanted = Analysis(in_two_passes, {"x": tf.TensorSpec([None], tf.float32)}, str(tmp_path / "temporary"))
    wanted.run(batches, str(tmp_path))
    scaled = tft.TFTransformOutput(str(tmp_path)).transform_raw_features({"x": tf.constant(values)})["x"]
    np.testing.assert_allclose(scaled, (values - 4) / 3)
    assert len(passes) == 2


def test_columns_that_nothing_uses_are_not_asked_for(tmp_path):
    specs = {name: tf.TensorSpec([None], tf.float32) for name in ("x", "unused")}
    assert Analysis(in_two_passes, specs, str(tmp_path)).columns == ["x"]


def test_an_analyzer_that_is_only_known_on_beam_is_named_before_anything_is_read(tmp_path):
    def weighted(inputs):
        tft.vocabulary(inputs["text"], weights=inputs["weight"])
        return {"text": inputs["text"]}

    specs = {"text": tf.TensorSpec([None], tf.string), "weight": tf.TensorSpec([None], tf.float32)}
    with pytest.raises(NotOnOneMachineError, match="Vocabulary"):
        Analysis(weighted, specs, str(tmp_path))
