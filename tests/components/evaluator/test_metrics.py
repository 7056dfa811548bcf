import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score
from tensorflow_model_analysis.utils import math_util

from benchmarks.intervals import covered
from components.evaluator.curves import CURVES, curves
from components.evaluator.gauc import grouped_auc
from components.evaluator.intervals import FEWEST_USERS, GROUPS, deal, leave_one_out, with_interval
from components.evaluator.metrics import METRICS, binary_metrics
from configs.metrics.ndcg10 import grouped_ndcg

# Few different values, so that ties, users of one class and lone users all happen.
EXAMPLES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), max_size=40
)


def columns(examples):
    users, labels, scores = zip(*examples, strict=True) if examples else ((), (), ())
    return np.array(users, np.uint64), np.array(labels, np.float32), np.array(scores, np.float32)


def pairwise_auc(examples):
    """The share of pairs of a positive and a negative that are in the right order, a tie counting half."""
    pairs = [(p > n) + 0.5 * (p == n) for _, up, p in examples if up == 1 for _, down, n in examples if down == 0]
    return sum(pairs) / len(pairs) if pairs else math.nan


def naive_gauc(examples):
    by_user = {user: [e for e in examples if e[0] == user] for user, _, _ in examples}
    aucs = [(pairwise_auc(own), len(own)) for own in by_user.values()]
    counted = [(auc, n) for auc, n in aucs if not math.isnan(auc)]
    return sum(auc * n for auc, n in counted) / sum(n for _, n in counted) if counted else math.nan


@given(EXAMPLES)
def test_gauc_is_the_mean_over_users_of_the_pairs_in_order(examples):
    assert grouped_auc(*columns(examples)) == pytest.approx(naive_gauc(examples), nan_ok=True)


@given(EXAMPLES)
def test_auc_is_the_share_of_pairs_in_order(examples):
    assert binary_metrics(*columns(examples))["auc"] == pytest.approx(pairwise_auc(examples), nan_ok=True)


def test_users_of_one_class_count_for_nothing_in_gauc():
    examples = [(1, 1, 0.9), (1, 0, 0.1), (2, 1, 0.1), (2, 1, 0.2), (3, 0, 0.99)]
    assert grouped_auc(*columns(examples)) == 1.0


def test_gauc_weighs_users_by_their_examples():
    # User 1: two examples in order. User 2: three examples, one of two pairs in order.
    examples = [(1, 1, 0.9), (1, 0, 0.1), (2, 1, 0.5), (2, 0, 0.4), (2, 0, 0.6)]
    assert grouped_auc(*columns(examples)) == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)


@given(EXAMPLES, st.integers(1, 12))
def test_ndcg_is_that_of_scikit_learn_by_user(examples, k):
    expected = []
    for user in {e[0] for e in examples}:
        labels, scores = ([e[i] for e in examples if e[0] == user] for i in (1, 2))
        if sum(labels):
            # scikit-learn takes no list of one, whose order is always right.
            expected.append(ndcg_score([labels], [scores], k=k) if len(labels) > 1 else 1.0)
    found = grouped_ndcg(*columns(examples), k)
    assert found == pytest.approx(np.mean(expected) if expected else math.nan, nan_ok=True)


def test_metrics_agree_with_scikit_learn():
    random = np.random.default_rng(7)
    scores = random.random(5000).round(3).astype(np.float32)
    labels = (random.random(5000) < scores).astype(np.float32)
    found = binary_metrics(random.integers(0, 50, 5000).astype(np.uint64), labels, scores)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["logloss"] == pytest.approx(log_loss(labels, np.clip(scores.astype(float), 1e-7, 1 - 1e-7)), abs=1e-9)
    assert found["calibration"] == pytest.approx(scores.astype(float).sum() / labels.sum())
    assert found["mean_label"] == pytest.approx(labels.mean())
    assert found["mean_prediction"] == pytest.approx(scores.astype(float).mean())
    assert found["example_count"] == 5000


def test_logloss_of_a_certain_error_is_large_and_finite():
    found = binary_metrics(*columns([(1, 1, 0.0), (1, 0, 1.0)]))
    assert found["logloss"] == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_area_under_precision_recall_of_known_cases():
    perfect = binary_metrics(*columns([(1, 1, 0.9), (1, 0, 0.2), (1, 0, 0.1)]))
    blind = binary_metrics(*columns([(1, 1, 0.5), (1, 0, 0.5), (1, 0, 0.5), (1, 0, 0.5)]))
    assert perfect["prauc"] == pytest.approx(1.0)
    assert blind["prauc"] == pytest.approx(0.25), "one threshold: precision is the share of positives"


def test_one_class_leaves_undefined_what_is_undefined():
    negative = binary_metrics(*columns([(1, 0, 0.5), (2, 0, 0.25)]))
    positive = binary_metrics(*columns([(1, 1, 0.5), (2, 1, 0.25)]))
    assert {m for m in METRICS if math.isnan(negative[m])} == {"auc", "gauc", "ndcg10", "prauc", "calibration"}
    assert {m for m in METRICS if math.isnan(positive[m])} == {"auc", "gauc"}


def test_no_examples_are_no_metrics_but_the_count():
    found = binary_metrics(*columns([]))
    assert found["example_count"] == 0
    assert all(math.isnan(found[m]) for m in METRICS if m != "example_count")


@given(EXAMPLES)
def test_leaving_a_group_of_users_out_is_the_metric_of_the_rest(examples):
    users, labels, scores = columns(examples)
    samples, dealt = leave_one_out(users, labels, scores).samples, deal(users)[0]
    for index, group in enumerate(np.unique(dealt)):
        rest = dealt != group
        expected = binary_metrics(users[rest], labels[rest], scores[rest])
        for metric, values in samples.items():
            assert values[index] == pytest.approx(expected[metric], nan_ok=True), metric


def test_an_interval_holds_the_true_value_about_19_times_in_20():
    random = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        users = np.repeat(np.arange(100, dtype=np.uint64), 4)
        taste = np.repeat(random.normal(size=100), 4)  # a user's labels go together
        labels = (taste + random.normal(size=400) > 0).astype(np.float32)
        left_out = leave_one_out(users, labels, np.full(400, 0.5, np.float32))
        _, low, high = math_util.calculate_confidence_interval(
            with_interval(float(labels.mean()), left_out.samples["mean_label"], left_out.freedom)
        )
        held += low <= 0.5 <= high
    assert 180 <= held <= 198


@pytest.mark.parametrize(("users", "exponent"), [(60, 2.0), (300, 2.5)])
def test_so_do_intervals_of_users_whose_activity_is_uneven(users, exponent):
    for metric, share in covered(3, users, exponent, 120, 20_000).items():
        assert 0.9 <= share <= 1.0, metric


def test_groups_are_of_even_size_and_hold_whole_users():
    random = np.random.default_rng(2)
    users = np.repeat(random.integers(0, 2**63, 500).astype(np.uint64), np.minimum(random.zipf(2.0, 500), 100))
    dealt, weights = deal(users)
    sizes = np.bincount(dealt, minlength=GROUPS)
    assert sizes.max() - sizes.min() <= 100, "no more than the most active user has"
    assert all(len(set(dealt[users == user])) == 1 for user in np.unique(users))
    assert weights.sum() == sum(count**2 for count in np.unique(users, return_counts=True)[1])


def test_three_users_are_too_few_for_an_interval():
    random = np.random.default_rng(4)
    users = np.repeat(np.arange(3, dtype=np.uint64), 200)
    labels, scores = (random.random(600) < 0.3).astype(np.float32), random.random(600).astype(np.float32)
    left_out = leave_one_out(users, labels, scores)
    assert with_interval(0.5, left_out.samples["auc"], left_out.freedom) == 0.5


def test_scores_of_a_rare_label_are_in_many_buckets():
    random = np.random.default_rng(4)
    scores = random.lognormal(-6, 1, 20_000).astype(np.float32)
    drawn = curves((random.random(20_000) < scores).astype(np.float32), scores)
    counts = [b.num_weighted_examples.value for b in drawn[CURVES[0]].buckets]
    assert sum(counts) == 20_000
    assert max(counts) < 5_000


@given(EXAMPLES)
def test_what_cannot_be_computed_without_a_group_has_no_interval(examples):
    users, labels, scores = columns(examples)
    left_out = leave_one_out(users, labels, scores)
    samples = left_out.samples
    alone = with_interval(binary_metrics(users, labels, scores)["auc"], samples["auc"], left_out.freedom)
    assert isinstance(alone, float) == (len(np.unique(users)) < FEWEST_USERS or bool(np.isnan(samples["auc"]).any()))


@given(EXAMPLES)
def test_curves_count_every_example_once(examples):
    _, labels, scores = columns(examples)
    drawn = curves(labels, scores)
    buckets, matrices = (drawn[name] for name in CURVES)
    assert sum(b.num_weighted_examples.value for b in buckets.buckets) == len(examples)
    assert sum(b.total_weighted_label.value for b in buckets.buckets) == labels.sum()
    for matrix in matrices.matrices:
        called = scores.astype(np.float64) >= matrix.threshold
        assert matrix.true_positives == labels[called].sum()
        assert matrix.false_positives == (1 - labels[called]).sum()
        assert matrix.false_negatives == labels[~called].sum()
        assert matrix.true_negatives == (1 - labels[~called]).sum()
    if examples:
        assert matrices.matrices[0].true_negatives == matrices.matrices[0].false_negatives == 0
        assert matrices.matrices[-1].true_positives == matrices.matrices[-1].false_positives == 0
