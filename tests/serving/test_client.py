from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from serving.client import SavedModelClient, connect, connect_async
from serving.server.status import Code, ServingError
from tests.serving import saved_models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved_models.ranking(folder / "ranking", 1)
    saved_models.ranking(folder / "ranking", 2, offset=1.0)
    return folder


@pytest.fixture(scope="module")
def server(start_server, models):
    config = models / "models.config"
    config.write_text(
        f"""model_config_list {{ config {{ name: "ranking" base_path: "{models}/ranking" model_platform: "tensorflow"
        model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: 1 }} }} }}"""
    )
    return start_server(f"--model_config_file={config}", "--enable_batching")


def targets(server):
    return [f"grpc://{server.grpc_address}", f"http://{server.rest_address}"]


def check_answers(predict, rank):
    """Rows, columns, arrays, defaults and rank give the same numbers on every path."""
    rows = [{"age": 50, "item": "a"}, {"age": 10, "item": "zzz"}]
    assert predict(rows).outputs["score"] == pytest.approx([102.5, 4.1])
    columns = {"age": np.array([50, 10]), "item": ["a", b"zzz"]}
    assert predict(columns).outputs["score"] == pytest.approx([102.5, 4.1])
    assert predict({"item": ["zzz"]}).outputs["score"] == pytest.approx([4.3])
    assert rank({"age": 50}, [{"item": "a"}, {"item": "zzz"}]) == pytest.approx([102.5, 4.5])
    assert rank({"age": 50}, {"item": ["zzz"]}) == pytest.approx([4.5])
    transformed = predict(rows, signature="transform_features", outputs=["item_length"])
    assert transformed.outputs["item_length"].tolist() == [1, 3]
    assert list(transformed.outputs) == ["item_length"]


def check_errors(predict):
    for features, options, text in [
        ([], {}, "no rows"),
        ([{"age": 1}, {"item": "a"}], {}, "row 1"),
        ({"colour": [1]}, {}, "no input 'colour'"),
        ({"age": ["x"]}, {}, "feature 'age'"),
        ({"age": [1.5]}, {}, "fraction"),
        ({"item": [3]}, {}, "is not a string"),
        ({"item": ["a"]}, {"signature": "nothing"}, "no signature 'nothing'"),
    ]:
        with pytest.raises(ServingError) as caught:
            predict(features, **options)
        assert text in caught.value.message
        assert caught.value.code in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)


@pytest.mark.slow
def test_grpc_and_rest_answer_alike(server):
    for target in targets(server):
        with connect(target, "ranking") as client:
            check_answers(client.predict, client.rank)
            check_errors(client.predict)
            assert client.predict({"item": ["zzz"]}, label="stable").outputs["score"] == pytest.approx([3.3])
            assert client.predict({"item": ["zzz"]}, version=1).outputs["score"] == pytest.approx([3.3])
            assert [(each.version, each.state) for each in client.status()] == [(2, "AVAILABLE"), (1, "AVAILABLE")]
        with connect(target, "nobody") as client, pytest.raises(ServingError) as caught:
            client.predict({"item": ["a"]})
        assert caught.value.code is Code.NOT_FOUND


@pytest.mark.slow
def test_the_async_client_answers_alike(server):
    async def main():
        for target in targets(server):
            async with connect_async(target, "ranking", label="stable") as client:
                answers = await asyncio.gather(*(client.predict({"item": ["z" * size]}) for size in range(20)))
                found = [answer.outputs["score"][0] for answer in answers]
                assert found == pytest.approx([size + 0.3 for size in range(20)])
                assert await client.rank({"age": 50}, [{"item": "zzz"}]) == pytest.approx([3.5])
                assert (await client.status())[0].version == 1

    asyncio.run(main())


def test_a_saved_model_in_this_process_answers_alike(models):
    with SavedModelClient(models / "ranking") as client:
        check_answers(client.predict, client.rank)
        assert client.predict({"item": ["a"]}).version == 2
    with SavedModelClient(models / "ranking" / "1") as client, pytest.raises(ServingError, match="no input"):
        client.predict({"colour": ["a"]})
    with pytest.raises(ServingError, match="neither a SavedModel"):
        SavedModelClient(models / "ranking" / "1" / "assets")


class Flaky(grpc.GenericRpcHandler):
    """Fails so many times with one code, then answers; counts what it was asked."""

    def __init__(self, code: grpc.StatusCode, failures: int, seconds: float = 0.0):
        self.code, self.failures, self.seconds, self.calls = code, failures, seconds, 0

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, data, context):
        self.calls += 1
        time.sleep(self.seconds)
        if self.calls <= self.failures:
            context.abort(self.code, "not now")
        return b""  # an empty status: no versions


@contextlib.contextmanager
def flaky_server(handler):
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"grpc://localhost:{port}"
    server.stop(None)


def test_only_unavailable_is_tried_again():
    handler = Flaky(grpc.StatusCode.UNAVAILABLE, 2)
    with flaky_server(handler) as target, connect(target, "m") as client:
        assert client.status() == []
    assert handler.calls == 3
    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.ABORTED):
        handler = Flaky(code, 2)
        with flaky_server(handler) as target, connect(target, "m") as client, pytest.raises(ServingError) as caught:
            client.status()
        assert caught.value.code is code
        assert handler.calls == 1


def test_the_deadline_covers_the_retries():
    handler = Flaky(grpc.StatusCode.UNAVAILABLE, 1000)
    with flaky_server(handler) as target, connect(target, "m", timeout=0.3, retries=1000) as client:
        start = time.monotonic()
        with pytest.raises(ServingError):
            client.status()
        assert time.monotonic() - start < 2.0
    handler = Flaky(grpc.StatusCode.OK, 0, seconds=1.0)
    with flaky_server(handler) as target, connect(target, "m", timeout=0.1) as client:
        with pytest.raises(ServingError) as caught:
            client.status()
        assert caught.value.code is Code.DEADLINE_EXCEEDED


def test_nobody_there_is_unavailable_and_a_strange_target_is_named():
    for target in ("grpc://localhost:1", "http://localhost:1"):
        with connect(target, "m", retries=1) as client, pytest.raises(ServingError) as caught:
            client.status()
        assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(ServingError, match="ftp://x"):
        connect("ftp://x", "m")


def test_a_client_may_be_shared_by_threads():
    handler = Flaky(grpc.StatusCode.OK, 0)
    with flaky_server(handler) as target, connect(target, "m") as client:
        threads = [threading.Thread(target=client.status) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert handler.calls == 20
