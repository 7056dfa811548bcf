"""What the page says in each case, without a pipeline: verdicts, the order of slices, sizes, comparisons."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.report import compare, page
from components.report.change import config_change, config_text
from components.report.order import badness, kept_curves, worst_first
from components.report.training import history
from components.report.verdict import as_shown, outcome
from components.verdict import Reason, Ruling, Verdict

METRICS = ("auc", "gauc", "prauc", "logloss", "calibration")


def slice_(name, auc, examples=1000, few=False, curves=None):
    own = {m: [0.5, 0.4, 0.6] for m in METRICS} | {
        "auc": [auc, auc - 0.01, auc + 0.01] if auc is not None else [None] * 3
    }
    return {
        "name": name,
        "columns": [part.split("=")[0] for part in name.split(", ")] if name != "all" else [],
        "examples": examples,
        "positives": examples // 3,
        "few": few,
        "metrics": {"candidate": own, "blessed": own},
        "differences": {"blessed": {m: [0.0, -0.01, 0.01] for m in METRICS}},
        "curves": curves or {},
    }


def judgement(slice_name="all", margin=-0.1, passed=False, **more):
    return {
        "gate": "auc at least 0.7", "slice": slice_name, "metric": "auc", "value": 0.6, "limit": 0.7,
        "against": None, "margin": margin, "examples": 1000, "passed": passed, "why": "0.6000 misses 0.7",
    } | more  # fmt: skip


def node(name, state="done", **more):
    return {"node": name, "state": state, "seconds": 1.0, "started": 1e9, **more}


def facts(slices=(), gates=(), nodes=(), data=None, verdicts=(), serving=None, pushed=None, **more):
    nodes = list(nodes) or [node("Ingest"), node("Pusher")]
    return {
        "name": "shop", "run": "r1", "at": 1e9, "outcome": outcome(nodes, verdicts, 0, pushed),
        "pushed": pushed, "serving_check": serving, "data_gate": data, "counts": None,
        "models": ["candidate", "blessed"] if slices else [], "gates": [as_shown(g) for g in gates],
        "slices": list(slices),
        "metric": "auc", "training": None, "features": [], "nodes": nodes, "files": [], "chain": [],
        "libraries": {"python": "3.11"}, "config": "a: 1\n", "previous": None,
    } | more  # fmt: skip


def refusal(by, text, **more):
    return Verdict(
        by=by, ruling=Ruling.REFUSED, summary="no", sentence="It was refused.", reasons=(Reason(text=text, **more),)
    )


def text_of(html: str) -> str:
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_a_broken_run_says_where_and_why():
    nodes = [node("Ingest"), node("Trainer", "failed", error="out of memory", refused=False), node("Pusher", "not run")]
    said = outcome(nodes, [], 0, None)
    assert (said["state"], said["by"]) == ("broke", "Trainer")
    assert said["reasons"][0]["text"] == "out of memory"
    html = page.render(facts(nodes=nodes), {})
    assert "Broken by Trainer" in text_of(html)
    assert "Trainer stopped it before" in text_of(html)


def test_a_node_that_refuses_is_a_refusal_and_no_defect():
    nodes = [node("Ingest"), node("CuratedSchema", "failed", error="shop.schema.pbtxt: not a schema", refused=True)]
    assert outcome(nodes, [], 0, None)["state"] == "refused"


def test_a_run_that_has_not_ended_is_neither():
    said = outcome([node("Ingest"), node("Trainer", "not run")], [], 0, None)
    assert said["state"] == "unfinished"
    assert "Trainer" in said["reasons"][0]["text"]


def test_a_serving_check_that_failed_shows_its_problems():
    serving = {"ok": False, "problems": ["score of row 3 differs by 0.1"], "requests": 5, "p50_ms": 1.0,
               "resident_mib": 9.0, "start_seconds": 1.0}  # fmt: skip
    html = page.render(facts(serving=serving, verdicts=[refusal("ServingCheck", serving["problems"][0])]), {})
    assert "Refused by ServingCheck" in text_of(html)
    assert text_of(html).count("score of row 3 differs by 0.1") == 2


def test_a_blessed_model_behind_a_newer_span_was_not_pushed():
    said = outcome([node("Pusher")], [], 0, "")
    assert said["state"] == "blessed"
    assert "newer span" in said["sentence"]


def test_failed_slices_come_first_by_margin_then_the_worst_then_those_too_small():
    slices = {
        s["name"]: s
        for s in (
            slice_("all", 0.8),
            slice_("g=fine", 0.9),
            slice_("g=poor", 0.6),
            slice_("g=tiny", 0.1, examples=5, few=True),
            slice_("g=failed", 0.7),
            slice_("g=failed worse", 0.75),
            slice_("g=unknown", None),
        )
    }
    judged = [judgement("g=failed", -0.1), judgement("g=failed worse", -0.2), judgement("g=poor", 0.1, passed=True)]
    assert worst_first(slices, judged, "auc") == [
        "g=failed worse", "g=failed", "g=poor", "g=fine", "g=tiny", "g=unknown",
    ]  # fmt: skip


def test_worse_is_lower_but_for_logloss_and_calibration_which_should_be_one():
    assert badness("auc", 0.6) > badness("auc", 0.7)
    assert badness("logloss", 0.7) > badness("logloss", 0.6)
    assert badness("calibration", 2.0) == pytest.approx(badness("calibration", 0.5))
    assert badness("calibration", 0.5) > badness("calibration", 1.1)


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(NAME, NAME, NAME)
def test_whatever_logs_hold_stays_text(value, error, example):
    nodes = [node("Ingest", "failed", error=error, refused=False)]
    finding = {"severity": "error", "split": "train", "feature": "f", "measure": "m", "value": value, "limit": None,
               "what": value, "examples": [example]}  # fmt: skip
    data = {"blessed": False, "findings": [finding], "distances": {"skew": {}, "drift": {}}}
    html = page.render(
        facts(
            slices=[slice_("all", 0.8), slice_(f"g={value}", 0.7)],
            nodes=nodes,
            data=data,
            verdicts=[refusal("DataGate", value, feature="f")],
        ),
        {"all": {}, f"g={value}": {}},
    )
    assert html.count("<script") == 3
    island = re.search(r'id="island">(.*?)</script>', html, re.S)
    assert island
    assert json.loads(island[1])["slices"][0]["name"] == f"g={value}"


def test_the_page_of_thousands_of_slices_stays_below_five_megabytes():
    curve = {
        "buckets": [[0.123456, 0.234567, 100.0, 50.0, 45.1234]] * 24,
        "matrices": [[0.123456, 1e4, 2e4, 3e4, 4e4]] * 49,
    }
    rows = [
        slice_(f"genre=number {i}, city=number {i}", 0.7, curves={"candidate": curve, "blessed": curve})
        for i in range(3000)
    ]
    slices = {s["name"]: s for s in [slice_("all", 0.8, curves={"candidate": curve}), *rows]}
    order = worst_first(slices, [], "auc")
    kept = kept_curves(slices, order)
    assert 1 < len(kept) < len(slices)
    html = page.render(facts(slices=[slices[n] for n in ["all", *order]]), kept)
    assert len(html.encode()) < 5e6
    assert "2,600 more slices" in text_of(html)


def test_two_runs_beside_each_other_show_what_was_lost_first():
    before = facts(slices=[slice_("all", 0.8), slice_("g=a", 0.8), slice_("g=b", 0.8), slice_("g=gone", 0.5)])
    now = facts(slices=[slice_("all", 0.7), slice_("g=a", 0.81), slice_("g=b", 0.6)], run="r2", config="a: 2\n")
    changes = compare.slice_changes(before, now, "auc")
    assert [(c["name"], round(c["difference"], 6)) for c in changes] == [("g=b", -0.2), ("g=a", 0.01)]
    said = text_of(compare.render(before, now))
    assert "-0.1000" in said
    assert "-a: 1" in said
    assert "+a: 2" in said
    assert "no metrics to compare" in text_of(compare.render(before, facts()))


def test_configs_differ_line_by_line():
    one, two = (config_text(json.dumps({"training": {"epochs": n}, "name": "x"})) for n in (3, 4))
    assert [line for line in config_change(one, two) if line[1:].strip().startswith("epochs")] == [
        "-  epochs: 3", "+  epochs: 4",
    ]  # fmt: skip
    assert config_change(one, one) == []


def test_workers_and_tables_are_shown_where_training_wrote_them_down(tmp_path):
    said = {
        "model": {"type": "fm"}, "seed": 1, "seconds": 9.0, "best_epoch": 1, "parameters": 10,
        "epochs": [{"epoch": 1, "seconds": 2.0, "eval_auc": 0.7, "eval_logloss": 0.6}],
        "workers": [{"index": 0, "seconds": 8.5, "examples_per_second": 1234.0, "waiting_share": 0.25}],
        "tables": [{"feature": "user", "rows": 99, "dim": 4, "bytes": 1584, "fill": 0.5, "oov_rate": 0.125}],
    }  # fmt: skip
    (tmp_path / "training.json").write_text(json.dumps(said))
    found = history(str(tmp_path), 1000)
    assert found["epochs"][0]["examples_per_second"] == 500
    shown = text_of(page.render(facts(training=found), {}))
    for words in ("1,234", "25.0%", "1,584", "50.0%", "12.5%"):
        assert words in shown
    del said["workers"], said["tables"]
    (tmp_path / "training.json").write_text(json.dumps(said))
    shown = text_of(page.render(facts(training=history(str(tmp_path), None)), {}))
    assert "recorded no workers" in shown
    assert "recorded no tables" in shown


def test_a_profile_stands_beside_the_last_runs():
    took = {"seconds": 2.0, "cpu": 1.5, "peak": 2**30, "read": 10, "written": None, "rows_per_second": 5000}
    nodes = [node("Ingest", profile=took | {"steps": [{"step": "Read", "seconds": 0.4}]}), node("Pusher")]
    previous = {
        "run": "r0",
        "at": 1e9,
        "state": "blessed",
        "metrics": None,
        "profiles": {"Ingest": took | {"cpu": 7.5}},
    }
    text = page.render(facts(nodes=nodes, previous=previous, config_change=[]), {})
    table = text.partition('id="profile"')[2].partition("</table>")[0]
    assert re.findall(r'data-of="(profile[^"]*cpu)" data-value="([^"]*)"', table) == [
        ("profile|Ingest|cpu", "1.5"), ("profile|last|Ingest|cpu", "7.5"),
    ]  # fmt: skip
    assert "Read 0.4 s" in table
    assert "Pusher" not in table
    assert "recsys run --profile" in page.render(facts(), {})


def test_lists_of_the_best_items_have_a_table_and_their_place_among_the_slices():
    def with_lists(made, ndcg):
        figures = {"ndcg@10": [ndcg, ndcg - 0.01, ndcg + 0.01], "coverage@10": [0.5, None, None]}
        of_pairs = {m: [None] * 3 for m in METRICS}
        made["metrics"] = {
            "candidate": of_pairs | figures | {"overlap@10": [0.9, 0.8, 1.0]},
            "blessed": of_pairs | figures,
        }
        made["differences"] = {"blessed": of_pairs | {"ndcg@10": [0.0125, 0.01, 0.015]}}
        return made | {"ranked_users": 12.0}

    slices = [with_lists(slice_("all", 0.5), 0.2), with_lists(slice_("gender=F", 0.5), 0.1)]
    html = page.render(facts(slices=slices, gates=[judgement(metric="ndcg@10")], metric="ndcg@10"), {})
    said = text_of(html)
    assert "The best of all items" in said
    assert "held to 12 users' held-out events" in said
    assert html.count('data-of="tfma|candidate|ndcg@10|value" data-value="0.2"') >= 2
    assert 'data-of="diff|blessed|ndcg@10|value" data-value="0.0125">+0.0125' in html
    assert "Overlap@10 0.9000" in said
    assert '<option value="ndcg@10" selected>NDCG@10</option>' in html
    assert '<option value="coverage@10"' not in html
    compare.render(facts(slices=slices, metric="ndcg@10"), facts(slices=slices, metric="ndcg@10"))


def test_of_positives_alone_nothing_tells_them_from_negatives():
    of_lists = {"ndcg@10": [0.2, 0.1, 0.3]}
    whole = slice_("all", 0.5) | {
        "ranked_users": 9.0,
        "metrics": {"candidate": {m: [None] * 3 for m in METRICS} | of_lists},
    }
    epochs = [{"epoch": n, "eval_auc": 0.5, "eval_logloss": 0.6, "eval_one_label": 1.0, "eval_ndcg_at_10": 0.1 * n,
               "examples_per_second": 9.0} for n in (1, 2)]  # fmt: skip
    training = {"model": {"type": "bpr"}, "seed": 1, "seconds": 1.0, "best_epoch": 2, "parameters": 9, "epochs": epochs,
                "workers": None, "tables": None}  # fmt: skip
    html = page.render(facts(slices=[whole], models=["candidate"], metric="ndcg@10", training=training), {})
    said = text_of(html)
    assert "NDCG@10 by epoch" in said
    assert "Eval NDCG@10" in said
    for name in ("AUC", "LogLoss", "PR AUC", "Calibration", "ROC"):
        assert name not in said
