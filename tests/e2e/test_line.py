"""From logs to an answer, with everything real: Beam, TFDV, TFT, TFMA, the metadata store, the served folder."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from configs import load_config
from pipeline.tensorboard import make_board
from serving.client import connect
from tests.e2e.conftest import in_process_of_its_own, interactions, make_project
from tests.serving.conftest import ServerFactory

pytestmark = pytest.mark.slow


def test_a_run_ends_in_one_whole_version_that_says_where_it_comes_from(ran):
    (version,) = ran.versions
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text())
    assert manifest["version"] == int(version.name)
    assert manifest["data"]["train.rows"] + manifest["data"]["eval.rows"] + manifest["data"]["test.rows"] == 4000
    assert {j["passed"] for j in manifest["blessed_by"]} == {True}
    assert set(manifest["metrics"]) == {"candidate", "item_mean"}
    assert (version / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0


def test_the_second_run_takes_everything_from_cache_and_pushes_nothing(ran, capfd):
    assert ran.recsys("run", ran.config) == 0
    said = capfd.readouterr().out
    for node in ("Ingest", "StatisticsGen", "Transform", "Trainer", "Baseline.item_mean"):
        assert any(line.split()[:2] == ["cached", node] for line in said.splitlines()), (node, said)
    assert any(line.split()[:2] == ["done", "ServingCheck"] for line in said.splitlines()), "asked each time"
    assert len(ran.versions) == 1
    assert "already holds this model" in said


def test_a_version_that_is_gone_from_the_folder_is_pushed_again(ran):
    before = ran.versions
    before[-1].rename(ran.folder / "taken-away")
    assert ran.recsys("run", ran.config) == 0
    assert len(ran.versions) == 1
    assert int(ran.versions[-1].name) > int(before[-1].name)


def test_changed_training_trains_again_and_ingests_nothing(ran, capfd):
    versions = len(ran.versions)
    assert ran.recsys("run", ran.config, "--set", "training.epochs=1") == 0
    said = capfd.readouterr().out
    states = {
        line.split()[1]: line.split()[0]
        for line in said.splitlines()
        if line.startswith("  ") and len(line.split()) > 1
    }
    assert states["Ingest"] == states["Transform"] == "cached"
    assert states["Trainer"] == states["Evaluator"] == states["Pusher"] == "done"
    assert "last blessed" in said
    assert len(ran.versions) == versions + 1


def test_node_by_node_is_the_same_as_a_run_and_safe_to_call_again(ran, capfd):
    from configs import load_config
    from pipeline.running.nodes import Graph

    graph = Graph(load_config(ran.config))
    for up, down in graph.edges():
        assert graph.nodes.index(up) < graph.nodes.index(down)
    versions = len(ran.versions)
    for node in graph.nodes:
        assert ran.recsys("run-node", ran.config, "--node", node, "--run-id", "by-hand") == 0
    said = capfd.readouterr().out
    assert "Trainer: cached" in said
    assert "model: " in said
    for node in ("Ingest", "Pusher"):
        assert ran.recsys("run-node", ran.config, "--node", node, "--run-id", "by-hand") == 0
    assert versions == len(ran.versions)


def test_a_node_whose_inputs_are_not_there_fails_and_says_so(ran, capfd):
    assert ran.recsys("run-node", ran.config, "--node", "Transform", "--run-id", "nothing-before-it") == 1
    assert "inputs are not there" in capfd.readouterr().err
    assert ran.recsys("run-node", ran.config, "--node", "Transfrom", "--run-id", "any") == 2
    assert "choose from Ingest" in capfd.readouterr().err


def test_the_served_model_answers_known_and_unknown_users(ran, capfd):
    assert ran.recsys("predict", ran.config, "--user", "0042", "--top", "5", "--json") == 0
    known = json.loads(capfd.readouterr().out)
    assert known["known"] is True
    assert [row["rank"] for row in known["items"]] == [1, 2, 3, 4, 5]
    assert known["items"][0]["name"].startswith('El "')
    scores = [row["score"] for row in known["items"]]
    assert scores == sorted(scores, reverse=True)
    assert ran.recsys("predict", ran.config, "--user", "nadie", "--json") == 0
    assert json.loads(capfd.readouterr().out)["known"] is False


def test_a_server_and_this_process_give_the_same_answer(ran, capfd):
    base = ran.versions[-1].parent
    factory = ServerFactory(ran.folder)
    server = factory("--model_name=shop", f"--model_base_path={base}")
    try:
        capfd.readouterr()
        answers = []
        for target in (
            [],
            ["--target", f"grpc://{server.grpc_address}"],
            ["--target", f"http://{server.rest_address}"],
        ):
            assert ran.recsys("predict", ran.config, "--user", "0042", "--json", *target) == 0
            answers.append(json.loads(capfd.readouterr().out)["items"])
        assert [[row["item"] for row in answer] for answer in answers] == [[row["item"] for row in answers[0]]] * 3
        for answer in answers:
            np.testing.assert_allclose([r["score"] for r in answer], [r["score"] for r in answers[0]], atol=1e-5)
    finally:
        factory.stop()


def test_a_request_may_leave_out_every_column_but_one(ran):
    with connect(ran.versions[-1].as_uri(), "shop") as client:
        full = client.predict({"producto": ["p-ñ1", "p-ñ2"], "cliente": ["001", "001"]}).outputs["score"]
        short = client.predict({"producto": ["p-ñ1", "p-ñ2"], "cliente": ["001"]}).outputs["score"]
        ranked = client.rank({"cliente": "001"}, {"producto": ["p-ñ1", "p-ñ2"]})
        nothing_known = client.predict({"ciudad": ["Köln"]}).outputs["score"]
    np.testing.assert_array_equal(full, short)
    np.testing.assert_array_equal(full, ranked)
    assert nothing_known.shape == (1,)


def test_unknown_ids_are_scored_by_content_and_by_what_the_user_just_met(ran):
    """In this process and by a server, over gRPC and REST: a user and an item that no log has."""
    base = ran.versions[-1].parent
    factory = ServerFactory(ran.folder)
    server = factory("--model_name=shop", f"--model_base_path={base}")
    met, nothing = ["p-ñ1", "p-ñ3", "p-ñ3"], ["", "", ""]
    try:
        for target in (base.as_uri(), f"grpc://{server.grpc_address}", f"http://{server.rest_address}"):
            with connect(target, "shop") as client:
                rows = {
                    "cliente": ["nadie", "nadie", "nadie", "001"],
                    "producto": ["p-ñ1", "nuevo", "nuevo", "nuevo"],
                    "temas": ["cine", "cine", "hogar", "cine"],
                    "recientes": [met, met, met, nothing],
                }
                score = client.predict(rows).outputs["score"]
                assert ((score > 0) & (score < 1)).all()
                assert score[1] != score[2], "an unknown item is told apart by its content"
                forgotten = client.predict({**rows, "recientes": [nothing] * 4}).outputs["score"]
                assert (np.abs(score - forgotten)[:3] > 0).all()
                assert score[3] == pytest.approx(forgotten[3], abs=1e-6)
                left_out = client.predict({k: v for k, v in rows.items() if k != "recientes"}).outputs["score"]
                np.testing.assert_allclose(left_out, forgotten, atol=1e-6)
                ranked = client.rank(
                    {"cliente": "nadie", "recientes": met}, {"producto": ["p-ñ1", "nuevo"], "temas": ["cine", "cine"]}
                )
                np.testing.assert_allclose(ranked, score[:2], atol=1e-5)
    finally:
        factory.stop()


def test_the_version_recommends_what_it_would_rank_first(ran):
    """Out of all items by one request, k and exclude by default or not, as by ranking the catalogue."""
    from components.catalogue import Catalogue

    manifest = json.loads((ran.versions[-1] / "assets.extra" / "manifest.json").read_text())
    catalogue = Catalogue(manifest["artifacts"]["catalogue"], load_config(ran.config))
    user = {"cliente": ["0042"], **{name: [value] for name, value in catalogue.user("0042").items()}}
    items = catalogue.items()
    with connect(ran.versions[-1].absolute().as_uri(), "shop") as client:
        scores = client.predict({**items.columns, **user}, signature="rank").outputs["scores"]
        found = client.predict(user, signature="recommend").outputs
        first = found["items"][0][0]
        without = client.predict({**user, "k": [3], "exclude": [[first]]}, signature="recommend").outputs
    best = np.sort(scores)[::-1][:10]
    np.testing.assert_allclose(found["scores"][0], best, atol=1e-5)
    by_id = dict(zip(items.ids, scores, strict=True))
    np.testing.assert_allclose([by_id[i.decode()] for i in found["items"][0]], best, atol=1e-5)
    assert without["items"][0].tolist() == found["items"][0][1:4].tolist()


def test_a_user_is_ranked_with_the_history_up_to_the_last_event(ran):
    from components.catalogue import Catalogue
    from configs import load_config

    manifest = json.loads((ran.versions[-1] / "assets.extra" / "manifest.json").read_text())
    user = Catalogue(manifest["artifacts"]["catalogue"], load_config(ran.config)).user("0042")
    bought = interactions().query("cliente == '0042' and compra == 'sí'").sort_values("momento", kind="stable")
    assert user["recientes"] == bought["producto"].tolist()[-5:]


def test_compare_trains_on_one_split_and_prints_one_table(ran, capfd):
    names = "deepfm,item_mean,dos_torres,svdpp"
    assert ran.recsys("compare", ran.config, "--models", names, "--json") == 0
    document = json.loads(capfd.readouterr().out)
    models = {model["name"]: model for model in document["models"]}
    assert set(models) == set(names.split(","))
    for model in models.values():
        for split in ("eval", "test"):
            assert 0.4 < model[split]["auc"]["mean"] < 1
            assert {"gauc", "logloss", "ndcg10"} <= model[split].keys()
        assert model["parameters"] > 0
        assert model["examples_per_second"] > 0
    assert models["dos_torres"]["training"]["epochs"] == 1
    order = [model["eval"]["auc"]["mean"] for model in document["models"]]
    assert order == sorted(order, reverse=True)
    # What is counted is counted alike, and measured as the evaluator measured it. Many items tie: the last bit of a
    # score, which differs with the size of a batch, moves the fourth digit.
    manifest = json.loads((ran.versions[0] / "assets.extra" / "manifest.json").read_text())
    judged = manifest["metrics"]["item_mean"]
    for metric in ("auc", "gauc", "logloss"):
        assert models["item_mean"]["test"][metric]["mean"] == pytest.approx(judged[metric], abs=5e-4)
    assert ran.recsys("compare", ran.config, "--models", "deepfm,nada") == 2
    assert "--models nada: no model of that name; choose from" in capfd.readouterr().err


def test_tune_prints_lines_that_the_config_takes_and_goes_on_where_it_was(ran, capfd):
    from ruamel.yaml import YAML

    assert ran.recsys("tune", ran.config, "--trials", "1") == 0
    said = capfd.readouterr().out
    assert "trial   0" in said
    assert ran.recsys("tune", ran.config, "--trials", "2", "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert sorted(trial["number"] for trial in document["trials"]) == [0, 1]
    assert document["trials"][0]["eval_auc"] == max(trial["eval_auc"] for trial in document["trials"])
    best = YAML(typ="safe").load(document["best"])
    assert (
        ran.recsys(
            "compare", ran.config, "--models", "item_mean", *(f"--set={k}={json.dumps(v)}" for k, v in best.items())
        )
        == 0
    )


def test_schema_accept_then_diff_shows_no_change_and_new_data_shows_one(ran, capfd):
    assert ran.recsys("schema", "accept", ran.config) == 0
    assert ran.recsys("schema", "diff", ran.config) == 0
    schema = ran.config.with_name("shop.schema.pbtxt")
    text = schema.read_text()
    schema.write_text(text.replace('value: "Köln"', 'value: "Bonn"').replace('value: "K\\303\\266ln"', 'value: "Bonn"'))
    capfd.readouterr()
    assert ran.recsys("schema", "diff", ran.config) == 3
    assert "ln" in capfd.readouterr().out
    schema.unlink()


def test_killed_at_any_moment_the_same_command_finishes_and_no_half_version_shows(tmp_path):
    project = make_project(tmp_path)
    chance = random.Random(20260101)
    for _ in range(3):
        running = in_process_of_its_own("run", project.config)
        time.sleep(chance.uniform(20, 45))
        running.kill()
        running.wait()
        for version in project.versions:
            assert (version / "assets.extra" / "manifest.json").is_file()
            assert (version / "saved_model.pb").is_file()
    assert project.recsys("run", project.config) == 0
    assert all((v / "assets.extra" / "manifest.json").is_file() for v in project.versions)
    assert len(project.versions) == 1
    assert not list((project.folder / "served" / "shop").glob(".partial*"))


def test_logs_nobody_described_get_from_file_to_a_served_model(tmp_path, capfd):
    project = make_project(tmp_path)
    logs = interactions(seed=11).rename(columns={"cliente": "ID de cliente", "momento": "fecha", "compra": "comprado?"})
    logs["fecha"] = (logs["fecha"].astype(int) // 1).map(lambda s: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(s)))
    logs.to_csv(tmp_path / "ventas.csv", index=False, sep=";")
    assert project.recsys("init", "--data", tmp_path / "ventas.csv", "--output", tmp_path / "configs" / "ventas.yaml",
                          "--label", "comprado?") == 0  # fmt: skip
    said = capfd.readouterr().out
    assert "ID_de_cliente" in said
    few = [
        "--set",
        "training.epochs=1",
        "--set",
        "baselines={item_mean: {type: item_mean}}",
        "--set",
        "evaluation.gates=[]",
    ]
    assert project.recsys("run", tmp_path / "configs" / "ventas.yaml", *few) == 0
    assert len(list((tmp_path / "served" / "ventas").glob("[0-9]*"))) == 1


def test_the_candidate_is_trained_alone_by_two_workers(ran, capfd):
    """On what the last run transformed, in files of each worker's own, and nothing is pushed."""
    versions = ran.versions
    assert ran.recsys("train", ran.config, "--workers", "2", "--set", "training.epochs=1") == 0
    said = capfd.readouterr().out
    assert "2 workers, multi_worker_mirrored" in said
    assert "records are dealt out" not in said
    assert ran.versions == versions
    (model,) = [line.split()[1] for line in said.splitlines() if line.startswith("model ")]
    history = json.loads((Path(model).parent / "logs" / "training.json").read_text())
    assert [worker["index"] for worker in history["workers"]] == [0, 1]
    assert {table["feature"] for table in history["tables"]} >= {"cliente", "producto", "hora"}
    with connect(Path(model).as_uri(), "shop") as client:
        scores = client.predict({"cliente": ["001"], "producto": ["p-ñ1", "p-ñ2"]}, signature="rank").outputs["scores"]
    assert ((scores > 0) & (scores < 1)).all()


def test_training_alone_wants_the_examples_of_the_same_features(ran, project, capfd):
    assert project.recsys("train", project.config) == 2
    assert "no run has transformed examples yet" in capfd.readouterr().err
    assert ran.recsys("train", ran.config, "--set", "features.precio.buckets=7") == 2
    assert "features are not those of the last run" in capfd.readouterr().err


def test_the_projector_shows_items_by_name(ran):
    """TensorBoard itself serves the folder: curves by model, vectors and titles of every item."""
    board = make_board(load_config(ran.config), None)
    assert {"candidate", "item_mean"} <= {entry.name for entry in Path(board).iterdir()}
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", board, "--port", str(port), "--load_fast=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page = f"http://127.0.0.1:{port}/data/plugin/projector"
        deadline = time.monotonic() + 60
        while True:
            try:
                runs = httpx.get(f"{page}/runs").json()
                if runs:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.3)
        told = httpx.get(f"{page}/info", params={"run": runs[0]}).json()["embeddings"]
        assert told[0]["tensorName"] == "producto"
        asked = {"run": runs[0], "name": "producto"}
        labels = httpx.get(f"{page}/metadata", params=asked).text.splitlines()
        assert labels[0].split("\t")[0] == "titulo"
        assert len(labels) == 1 + told[0]["tensorShape"][0] == 41
        title, item = labels[1].split("\t")[0], labels[1].split("\t")[-1]
        assert title == f'El "{item[3:]}", tomo {item[3:]}'
        vectors = np.frombuffer(httpx.get(f"{page}/tensor", params=asked).content, np.float32)
        assert vectors.size == 40 * told[0]["tensorShape"][1]
        assert np.ptp(vectors) > 0
    finally:
        server.terminate()
        server.wait()
