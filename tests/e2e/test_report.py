"""The page of a run, opened in a real browser: a refused model, refused data, a blessed model."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from aiohttp import web

from components.evaluator.gates import slice_name
from configs import load_config
from tests.browser import PHONE, WIDE, accessibility_findings, chromium, opened
from tests.e2e.conftest import interactions

pytestmark = pytest.mark.slow

ATTACK = "<script>document.title='taken'</script>"
GATES = (
    "evaluation.gates=[{metric: auc, at_least: 0.5}, {metric: auc, beats: item_mean, by: -0}, "
    "{metric: logloss, at_most: 5, each: [ciudad]}, {metric: auc, at_least: 0.5, each: [ciudad], min_examples: 50}]"
).replace("by: -0", "by: 0")
SLICES = "evaluation.slices=[[ciudad], [ciudad, temas]]"


def newest(project, node: str, output: str, before: Path | None = None) -> Path:
    """Return the folder of a node's newest output, or of the newest that is older than another."""
    folder = project.folder / "runs/shop/artifacts" / node / output
    return max((f for f in folder.iterdir() if not before or int(f.name) < int(before.name)), key=lambda f: int(f.name))


def page_of(project) -> Path:
    return newest(project, "Report", "run_report") / "report.html"


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(ran):
    """The site of the project's runs, answering in a thread: its address."""
    from pipeline.site import application

    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(load_config(ran.config)))
    loop.run_until_complete(runner.setup())
    listening = socket.create_server(("127.0.0.1", 0))
    loop.run_until_complete(web.SockSite(runner, listening).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(scope="module")
def watched(ran, site) -> list:
    """What the site told of a run that took everything from cache, while it went on."""
    seen: list = []
    over = threading.Event()

    def look():
        with httpx.Client(base_url=site) as client:
            while not over.wait(0.1):
                said = client.get("/under-way").json()
                if said and said != (seen or [None])[-1]:
                    seen.append(said)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert ran.recsys("run", ran.config) == 0
    finally:
        over.set()
        thread.join()
    return seen


@pytest.fixture(scope="module")
def blessed(ran, watched) -> Path:
    """The page of a blessed run."""
    return page_of(ran)


@pytest.fixture(scope="module")
def bad_slice(ran, blessed):
    """A run whose model knows Köln's users wrongly: at the end of their logs they like what they disliked before."""
    logs = interactions()
    share = logs.groupby("cliente").cumcount() / logs.groupby("cliente")["momento"].transform("size")
    turned = (logs["ciudad"] == "Köln") & (share > 0.8)
    logs.loc[turned, "compra"] = np.where(logs.loc[turned, "compra"] == "sí", "no", "sí")
    logs.loc[logs["cliente"].isin(["001", "005"]), "ciudad"] = ATTACK
    logs["edad"] = logs["edad"].astype(object)
    logs.loc[logs.index[:9], "edad"] = f"joven {ATTACK}"
    with ran.other_logs(logs):
        assert ran.recsys("run", ran.config, "--set", SLICES, "--set", GATES) == 3
        return page_of(ran)


@pytest.fixture(scope="module")
def bad_data(ran, bad_slice):
    """A run whose data gate said no: the cities have all changed."""
    with ran.other_logs(interactions().assign(ciudad="Bern")):
        assert ran.recsys("run", ran.config) == 3
        return page_of(ran)


def test_a_model_bad_on_one_slice_is_refused_and_that_slice_is_the_first_row(bad_slice, browser):
    with opened(browser, bad_slice.as_uri()) as page:
        assert page.inner_text("h1").split() == ["✕", "Refused", "by", "Evaluator"]
        first = page.locator("#slice-table tbody tr").first
        assert first.get_attribute("data-slice") == "ciudad=Köln"
        assert "fails a gate" in first.inner_text()
        (reason,) = page.locator(".reasons li").all_inner_texts()
        for word in ("auc on ciudad=Köln", "misses 0.5", "See Slices, first row"):
            assert word in reason
        page.click(".reasons a")
        assert page.evaluate("location.hash") == "#slices"
        assert page.locator("#slice-table tbody tr").first.is_visible()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("which", ["blessed", "bad_slice", "bad_data"])
def test_the_verdict_is_in_the_first_screen_and_nothing_runs_over_the_side(which, size, browser, request):
    path = request.getfixturevalue(which)
    with opened(browser, path.as_uri(), size) as page:
        for selector in ("h1", ".lead", *([] if which == "blessed" else [".reasons li:first-child"])):
            box = page.locator(selector).bounding_box()
            assert box["y"] + box["height"] <= size[1], selector
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.locator("main section").count() == 5
        titles = page.locator("main section").evaluate_all("found => found.map((s) => s.id)")
        assert titles == ["verdict", "slices", "data", "training", "lineage"]


def test_nobody_meets_a_barrier(bad_slice, bad_data, blessed, browser):
    for path, size, scheme in (
        (bad_slice, WIDE, "light"),
        (bad_slice, PHONE, "dark"),
        (bad_data, WIDE, "dark"),
        (blessed, PHONE, "light"),
    ):
        with opened(browser, path.as_uri(), size, scheme) as page:
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
            assert accessibility_findings(page) == []


def test_slices_can_be_sorted_filtered_and_chosen_with_the_keyboard(bad_slice, browser):
    with opened(browser, bad_slice.as_uri()) as page:
        rows = page.locator("#slice-table tbody tr")

        def examples():
            return [
                int(v) for v in rows.evaluate_all("r => r.map((x) => x.querySelector('[data-of=count]').dataset.value)")
            ]

        heading = page.get_by_role("button", name="Examples", exact=True).first
        heading.focus()
        page.keyboard.press("Enter")
        assert examples() == sorted(examples(), reverse=True)
        page.keyboard.press("Enter")
        assert examples() == sorted(examples())
        assert page.locator("#slice-table th[aria-sort=ascending]").inner_text().startswith("Examples")

        page.fill("#filter", "köln")
        shown = [r.get_attribute("data-slice") for r in rows.all() if r.is_visible()]
        assert shown
        assert all("Köln" in name for name in shown)
        assert page.inner_text("#shown") == f"{len(shown)} of {rows.count()} slices"
        page.fill("#filter", "")
        page.select_option("#columns", "ciudad × temas")
        assert all(", temas=" in r.get_attribute("data-slice") for r in rows.all() if r.is_visible())
        page.select_option("#columns", "")
        page.check("#enough")
        assert not [r for r in rows.all() if r.is_visible() and "too few" in r.inner_text()]

        page.select_option("#metric", "logloss")
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        assert page.get_by_role("button", name="LogLoss", exact=True).is_visible()
        assert not page.get_by_role("button", name="AUC", exact=True).is_visible()
        before = page.locator("#calibration svg").inner_html()
        page.select_option("#curve-slice", "ciudad=Köln")
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        assert page.locator("#calibration svg").inner_html() != before
        for picture in ("#by-size", "#calibration", "#histogram", "#roc", "#pr", "#epochs-auc"):
            assert page.locator(f"{picture} svg path").count() > 3, picture


def test_what_logs_hold_is_shown_and_never_run(bad_slice, browser):
    with opened(browser, bad_slice.as_uri()) as page:
        assert page.title().startswith("Refused: shop")
        names = page.locator("#slice-table tbody tr").evaluate_all("r => r.map((x) => x.dataset.slice)")
        assert f"ciudad={ATTACK}" in names
        assert ATTACK in page.inner_text("#data") or page.locator("details code").first.text_content()
        assert page.evaluate("document.querySelectorAll('script').length") == 3
    text = bad_slice.read_text()
    assert ATTACK not in text
    assert len(text.encode()) < 5e6


def test_refused_data_says_which_column_and_shows_what_moved(bad_data, browser):
    with opened(browser, bad_data.as_uri()) as page:
        assert page.inner_text("h1").split() == ["✕", "Refused", "by", "DataGate"]
        reason = page.locator(".reasons li").first.inner_text()
        assert "ciudad in train: drift since the last accepted run" in reason
        assert page.locator("#feature-table tbody tr").first.get_attribute("data-feature") == "ciudad"
        findings = page.locator("#anomalies + .scroll").inner_text()
        assert "'Bern': 0.0% -> 100.0%" in findings
        assert "No model was evaluated in this run: DataGate stopped it before" in page.inner_text("#slices")
        assert "Nothing was trained" in page.inner_text("#training")
        assert page.locator("#nodes + .scroll tr", has_text="Trainer").first.inner_text().split()[1:3] == ["not", "run"]


def test_every_figure_is_what_the_libraries_return(bad_slice, ran, browser):
    """Walk all figures of the page; each says where it is from, and is asked for there once more."""
    made = bad_slice.parent
    evaluation = newest(ran, "Evaluator", "evaluation_result", made)
    judgements = json.loads((newest(ran, "Evaluator", "blessing", made) / "verdict.json").read_text())["judgements"]
    training = json.loads((newest(ran, "Trainer", "model_run", made) / "training.json").read_text())
    counts = json.loads((newest(ran, "Ingest", "report", made) / "counts.json").read_text())
    gate = newest(ran, "DataGate", "blessing", made)
    distances = json.loads((gate / "findings.json").read_text())["distances"]
    statistics = newest(ran, "StatisticsGen", "statistics", made)
    report = json.loads((made / "report.json").read_text())
    models = ("candidate", "item_mean", "blessed")
    metrics: dict = {}
    for model in models:
        for key, outputs in tfma.load_eval_result(str(evaluation), model_name=model).slicing_metrics:
            metrics[model, slice_name([c for c, _ in key], [str(v) for _, v in key])] = outputs[""][""]
    splits = ("train", "eval", "test")
    sets = {s: tfdv.load_stats_binary(str(statistics / f"Split-{s}" / "FeatureStats.pb")) for s in splits}
    sets["last"] = tfdv.load_stats_binary(str(newest(ran, "DataGate", "blessing", gate) / "baseline.pb"))

    def of_tfma(model, name, metric, part):
        value = metrics[model, name][metric]
        bound = {"value": "value", "low": "lowerBound", "high": "upperBound"}[part]
        return value["boundedValue"].get(bound, 0.0) if "boundedValue" in value else value["doubleValue"]

    def of_tfdv(split, name, what):
        dataset = sets[split].datasets[0]
        (feature,) = [f for f in dataset.features if ".".join(f.path.step) == name]
        stats = feature.string_stats if feature.HasField("string_stats") else feature.num_stats
        if what == "missing":
            rows = stats.common_stats
            return (
                1 - (rows.tot_num_values if rows.max_num_values <= 1 else rows.num_non_missing) / dataset.num_examples
            )
        return getattr(stats, what)

    def of_gate(judgement, what, part=None):
        against, metric, name = judgement["against"], judgement["metric"], judgement["slice"]
        if what in ("value", "limit", "margin", "examples") and part is None:
            return judgement[what]
        if what in ("low", "high"):
            return of_tfma("candidate", name, metric, what)
        other = {"low": "high", "high": "low"}[part]
        if against:
            return (
                judgement["margin"]
                + of_tfma(against, name, f"{metric}_diff", part)
                - of_tfma(against, name, f"{metric}_diff", "value")
            )
        if judgement["direction"] == "at most":
            return judgement["limit"] - of_tfma("candidate", name, metric, other)
        return of_tfma("candidate", name, metric, part) - judgement["limit"]

    def expected(figure):
        kind, *path = figure["of"].split("|")
        name = figure["slice"] or "all"
        match kind:
            case "tfma":
                return of_tfma(path[0], name, path[1], path[2])
            case "diff":
                return of_tfma(path[0], name, f"{path[1]}_diff", path[2])
            case "count":
                return of_tfma("candidate", name, "example_count", "value")
            case "positives":
                return round(
                    of_tfma("candidate", name, "mean_label", "value")
                    * of_tfma("candidate", name, "example_count", "value")
                )
            case "gate":
                return of_gate(judgements[int(path[0])], *path[1:])
            case "tfdv":
                return of_tfdv(path[0], figure["feature"], path[1])
            case "distance":
                measured = distances["drift"] if path[0] == "drift" else distances["skew"][path[1]]
                return measured[figure["feature"]][1]
            case "ingest":
                split = path[0].split(".")[0]
                return counts[path[0]] / counts[f"{split}.rows"] if path[1:] else counts[path[0]]
            case "training":
                return training[path[0]]
            case "epoch":
                epoch = training["epochs"][int(path[0])]
                return counts["train.rows"] / epoch["seconds"] if path[1] == "examples_per_second" else epoch[path[1]]
            case "worker" | "table":
                return training[f"{kind}s"][int(path[0])][path[1]]
            case "previous" | "node" | "file" | "unknown":
                return None  # the metadata store's and the transformed examples': tests of components look at them
        raise AssertionError(f"a figure from an unknown place: {figure['of']}")

    with opened(browser, bad_slice.as_uri()) as page:
        figures = page.locator("[data-of]").evaluate_all(
            """found => found.map((f) => ({
                of: f.dataset.of, value: JSON.parse(f.dataset.value), text: f.textContent,
                slice: f.closest('[data-slice]')?.dataset.slice,
                feature: f.closest('[data-feature]')?.dataset.feature,
            }))"""
        )
        bare = page.locator("td.r:not(#calibration-table td)").evaluate_all(
            "cells => cells.filter((c) => /\\d/.test(c.textContent) && !c.querySelector('[data-of]'))"
            ".map((c) => c.textContent)"
        )
        island = page.evaluate("JSON.parse(document.getElementById('island').textContent)")
    assert bare == []
    compared = 0
    for figure in figures:
        text = figure["text"].replace(",", "").lstrip("+")
        seen = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
        digits = len(text.rstrip("%").partition(".")[2]) + (2 if text.endswith("%") else 0)
        tolerance = 0.5 * 10**-digits if "e" not in text else 1e-5 * abs(seen)
        assert abs(seen - figure["value"]) <= max(tolerance, 1e-5 * abs(seen)) * 1.001, figure
        wanted = expected(figure)
        if wanted is not None:
            compared += 1
            assert figure["value"] == pytest.approx(wanted, rel=1e-9, abs=1e-12), figure
    assert compared > 500
    missing = {f["feature"]: f["value"] for f in figures if f["of"] == "tfdv|train|missing"}
    assert missing["edad"] == pytest.approx(1 / 7, abs=0.02)
    assert missing["ciudad"] == pytest.approx(1 / 4, abs=0.03)
    assert missing["cliente"] == 0
    assert {f["of"].split("|")[0] for f in figures} >= {"tfma", "diff", "gate", "tfdv", "distance", "ingest", "epoch"}

    drawn = 0
    for model in models:
        for key, outputs in tfma.load_eval_result(str(evaluation), model_name=model).plots:
            name = slice_name([c for c, _ in key], [str(v) for _, v in key])
            curves, plot = island["curves"][name][model], outputs[""][""]
            buckets, matrices = (
                plot["calibrationHistogramBuckets"]["buckets"],
                plot["confusionMatrixAtThresholds"]["matrices"],
            )
            for ours, theirs in zip(curves["buckets"], buckets, strict=True):
                assert ours[2:4] == [theirs.get("numWeightedExamples", 0), theirs.get("totalWeightedLabel", 0)]
                assert ours[4] == pytest.approx(theirs.get("totalWeightedRefinedPrediction", 0), rel=1e-5)
            for ours, theirs in zip(curves["matrices"], matrices, strict=True):
                counted = ("truePositives", "falsePositives", "trueNegatives", "falseNegatives")
                assert ours[1:] == [theirs.get(c, 0) for c in counted]
            drawn += 1
    assert drawn == len(models) * len(report["slices"])
    for feature in island["features"]:
        for split, own in feature["sets"].items():
            (theirs,) = [f for f in sets[split].datasets[0].features if ".".join(f.path.step) == feature["name"]]
            for (value, count), bucket in zip(
                own.get("top", []), theirs.string_stats.rank_histogram.buckets, strict=False
            ):
                assert (value, count) == (bucket.label, bucket.sample_count)
            if "buckets" in own:
                assert sum(b[2] for b in own["buckets"]) == pytest.approx(
                    theirs.num_stats.histograms[0].buckets
                    and sum(b.sample_count for b in theirs.num_stats.histograms[0].buckets),
                    rel=1e-4,
                )
    assert not any(math.isnan(f["value"]) for f in figures)


def test_the_site_shows_a_run_while_it_goes_on(watched, site):
    assert len({said["run"] for said in watched}) == 1
    running = [n["node"] for said in watched for n in said["nodes"] if n["state"] == "running"]
    assert len(set(running)) > 1
    states = {n["node"]: n["state"] for n in watched[-1]["nodes"]}
    assert states["Ingest"] == "cached"
    assert httpx.get(f"{site}/under-way").json() is None


def test_the_site_only_reads_and_only_answers_this_machine(site, bad_slice):
    assert httpx.post(site).status_code == 405
    assert httpx.delete(f"{site}/runs/any").status_code == 405
    assert httpx.get(site, headers={"Host": "elsewhere.example"}).status_code == 421
    for path in ("/runs/none", "/runs/..%2F..%2Fetc%2Fpasswd", "/compare", "/compare?run=a&run=b"):
        answer = httpx.get(site + path)
        assert answer.status_code == 404, path
        assert "<" not in answer.text
    assert "default-src 'none'" in httpx.get(site).headers["Content-Security-Policy"]


def test_the_site_leads_from_the_runs_to_a_report_and_a_comparison(site, bad_slice, bad_data, browser):
    with opened(browser, site + "/", PHONE, offline=False) as page:
        assert accessibility_findings(page) == []
        rows = page.locator("tbody tr")
        assert "refused by DataGate" in rows.nth(0).inner_text()
        assert "refused by Evaluator" in rows.nth(1).inner_text()
        assert "blessed" in rows.nth(2).inner_text()
        rows.nth(1).locator("a").click()
        assert page.inner_text("h1").split()[1] == "Refused"
        page.go_back()
        page.locator("input[name=run]").nth(1).check()
        assert page.is_disabled("#go")
        page.locator("input[name=run]").nth(2).check()
        page.click("#go")
        assert page.locator("#slices tbody tr").first.get_attribute("data-slice") == "ciudad=Köln"
        assert accessibility_findings(page) == []


def test_the_command_line_lists_runs_and_finds_and_compares_reports(ran, bad_slice, bad_data, capfd):
    capfd.readouterr()
    assert ran.recsys("runs", ran.config, "--json") == 0
    data, slice_, good = json.loads(capfd.readouterr().out)[:3]
    assert [r["state"] for r in (data, slice_, good)] == ["refused", "refused", "blessed"]
    assert (data["by"], slice_["by"]) == ("DataGate", "Evaluator")
    assert slice_["report"] == str(bad_slice)
    facts = json.loads((bad_slice.parent / "report.json").read_text())
    assert slice_["metrics"]["auc"] == facts["slices"][0]["metrics"]["candidate"]["auc"][0]
    assert good["version"] in [version.name for version in ran.versions]
    assert ran.recsys("runs", ran.config, "--last", "1") == 0
    said = capfd.readouterr().out
    assert data["run"] in said
    assert slice_["run"] not in said

    assert ran.recsys("report", ran.config) == 0
    assert capfd.readouterr().out.strip() == str(bad_data)
    assert ran.recsys("report", ran.config, "--run", slice_["run"]) == 0
    assert capfd.readouterr().out.strip() == str(bad_slice)
    assert ran.recsys("report", ran.config, "--compare", good["run"], slice_["run"]) == 0
    compared = Path(capfd.readouterr().out.strip())
    assert "ciudad=Köln" in compared.read_text()
    assert ATTACK not in compared.read_text()
    assert ran.recsys("report", ran.config, "--run", "none") == 2
    assert f"the newest are {data['run']}" in capfd.readouterr().err


def test_before_the_first_run_the_commands_say_so(project, capfd):
    assert project.recsys("runs", project.config) == 0
    assert "no run of shop yet" in capfd.readouterr().out
    assert project.recsys("report", project.config) == 2
    assert "has left a report yet" in capfd.readouterr().err
    assert project.recsys("explain", project.config, "--user", "1", "--item", "2") == 2
    assert "no version is served" in capfd.readouterr().err


def test_an_explanation_adds_up_to_the_score_that_is_served(ran, capfd):
    capfd.readouterr()
    assert ran.recsys("explain", ran.config, "--user", "0042", "--item", "p-ñ1", "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert said["known_user"]
    assert said["known_item"]
    assert set(said["features"]) == set(load_config(ran.config).features)
    assert {tuple(by) for by in said["features"].values()} == {("first order", "FM", "deep")}
    together = said["base"] + sum(sum(by.values()) for by in said["features"].values())
    assert together == pytest.approx(said["logit"], abs=1e-5)
    assert said["score"] == pytest.approx(1 / (1 + math.exp(-said["logit"])), abs=1e-6)
    assert sum(pair[2] for pair in said["pairs"]) == pytest.approx(
        sum(by["FM"] for by in said["features"].values()), abs=1e-6
    )
    assert ran.recsys("predict", ran.config, "--user", "0042", "--top", "40", "--json") == 0
    ranked = {row["item"]: row["score"] for row in json.loads(capfd.readouterr().out)["items"]}
    assert ranked["p-ñ1"] == pytest.approx(said["score"], abs=0.05)  # the hour is that of each request
    assert ran.recsys("explain", ran.config, "--user", "nadie", "--item", "nada") == 0
    assert "scored as an unknown item" in capfd.readouterr().out
