"""What may be freed, for any history of runs."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.running.leftovers import Run, unneeded

NOW, PATIENCE = 1_000_000.0, 3600.0
ARTIFACTS = frozenset(range(40))

RUNS = st.lists(
    st.builds(
        Run,
        name=st.text(max_size=3),
        artifacts=st.frozensets(st.sampled_from(sorted(ARTIFACTS)), max_size=12),
        over=st.booleans(),
        last_sign=st.floats(NOW - 3 * PATIENCE, NOW),
    ),
    max_size=8,
)
NEEDED = st.frozensets(st.sampled_from(sorted(ARTIFACTS)), max_size=10)
KEEP = st.integers(1, 10)


def freed(runs, keep, needed):
    return unneeded(ARTIFACTS, runs, keep, needed, NOW, PATIENCE)


@given(RUNS, KEEP, NEEDED)
def test_what_serves_is_blessed_or_belongs_to_a_kept_run_stays(runs, keep, needed):
    gone = freed(runs, keep, needed)
    assert not gone & needed
    for run in runs[-keep:]:
        assert not gone & run.artifacts


@given(RUNS, KEEP, NEEDED)
def test_a_run_that_is_not_over_keeps_what_it_uses_while_it_is_waited_for(runs, keep, needed):
    gone = freed(runs, keep, needed)
    for run in runs:
        if not run.over and NOW - run.last_sign <= PATIENCE:
            assert not gone & run.artifacts


@given(RUNS, KEEP, NEEDED)
def test_all_else_goes(runs, keep, needed):
    kept = set(needed).union(*(r.artifacts for r in runs[-keep:]))
    kept = kept.union(*(r.artifacts for r in runs if not r.over and NOW - r.last_sign <= PATIENCE))
    assert freed(runs, keep, needed) == ARTIFACTS - kept


@given(RUNS, KEEP, NEEDED)
def test_keeping_more_frees_no_more(runs, keep, needed):
    assert freed(runs, keep + 1, needed) <= freed(runs, keep, needed)
