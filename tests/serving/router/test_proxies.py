"""Both proxies in this process, before a model server that only says what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import aiohttp
import grpc
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from configs.serving import Rollback
from serving.release_state import CANARY, STABLE
from serving.router.grpc_proxy import GrpcProxy
from serving.router.rest_proxy import RestProxy
from serving.router.routing import USER_HEADER, Router
from serving.router.split import Split
from serving.server import http_server
from serving.server.grpc_server import GrpcLimits, Unfinished
from serving.server.http_server import HttpLimits
from tests.serving.conftest import unused_port

SERVICE = "/tensorflow.serving.PredictionService/"
KINDS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
}


def make_router(release, percent, shadow=0.0):
    release.canary(percent, version=2, shadow_percent=shadow)
    return Router(Split(release, Rollback()), "user")


class Backend(grpc.GenericRpcHandler):
    """Notes the label and the deadline of each request; the canary takes as long as it is told to."""

    def __init__(self, canary_seconds=0.0):
        self.seen = []
        self.canary_seconds = canary_seconds

    def service(self, handler_call_details):
        kind = KINDS.get(handler_call_details.method.rpartition("/")[2])

        async def behavior(data, context):
            spec = kind.FromString(data).model_spec
            self.seen.append((spec.name, spec.version_label, context.time_remaining()))
            if spec.version_label == CANARY:
                await asyncio.sleep(self.canary_seconds)
            return predict_pb2.PredictResponse().SerializeToString()

        return grpc.unary_unary_rpc_method_handler(behavior) if kind else None


@contextlib.asynccontextmanager
async def grpc_pair(router, backend):
    back = grpc.aio.server()
    back.add_generic_rpc_handlers((backend,))
    behind = back.add_insecure_port("127.0.0.1:0")
    await back.start()
    front = grpc.aio.server(options=GrpcLimits().channel_arguments())
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{behind}") as channel,
        contextlib.AsyncExitStack() as stack,
    ):
        front.add_generic_rpc_handlers((GrpcProxy(router, channel, Unfinished(30)),))
        port = front.add_insecure_port("127.0.0.1:0")
        await front.start()
        yield await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        await front.stop(None)
        await back.stop(None)


def request_of(kind, user=None, **spec):
    request = kind()
    request.model_spec.name = spec.pop("name", "m")
    for key, value in spec.items():
        setattr(request.model_spec, key, value)
    if user is not None and kind is predict_pb2.PredictRequest:
        tensor = request.inputs["user"]
        tensor.dtype = 7
        tensor.string_val.append(user)
    elif user is not None:
        request.input.example_list.examples.add().features.feature["user"].bytes_list.value.append(user)
    return request.SerializeToString()


@pytest.mark.parametrize("method", list(KINDS))
def test_every_method_gets_the_label_of_its_users_arm(release, method):
    async def ask():
        backend, router = Backend(), make_router(release, 100)
        async with grpc_pair(router, backend) as channel:
            call = channel.unary_unary(SERVICE + method)
            await call(request_of(KINDS[method], b"ann"), timeout=20)
            await call(request_of(KINDS[method]), timeout=20)  # of nobody
            await call(request_of(KINDS[method]), timeout=20, metadata=[(USER_HEADER, "ann")])
            await call(request_of(KINDS[method], b"ann", version_label="mine"), timeout=20)
            await call(request_of(KINDS[method], b"ann", name="other"), timeout=20)
        return [seen[:2] for seen in backend.seen]

    assert asyncio.run(ask()) == [("m", CANARY), ("m", STABLE), ("m", CANARY), ("m", "mine"), ("other", "")]


def test_a_deadline_that_the_canary_misses_counts_as_slow_and_shadows_have_their_own(release):
    async def ask():
        backend, router = Backend(canary_seconds=0.5), make_router(release, 100)
        async with grpc_pair(router, backend) as channel:
            call = channel.unary_unary(SERVICE + "Predict")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(request_of(KINDS["Predict"], b"ann"), timeout=0.3)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            async with asyncio.timeout(20):
                while (slow := router.split.account.arms()[CANARY]).p99_ms is None:  # the client knows first
                    await asyncio.sleep(0.01)
            release.canary(0, version=2, shadow_percent=100)
            router.split.refresh()
            await call(request_of(KINDS["Predict"], b"ann"), timeout=0.3)
            await router.drained()
        return slow, router.split.account.arms()[CANARY], backend.seen

    slow, shadowed, seen = asyncio.run(ask())
    assert (slow.requests, slow.errors) == (0, 0)
    assert slow.p99_ms > 200
    assert (shadowed.shadows, shadowed.errors) == (1, 0)
    assert seen[-1][1] == CANARY
    assert seen[-1][2] > 20


async def upstream(request: web.BaseRequest) -> web.Response:
    seen = {"path": request.rel_url.raw_path, "query": request.rel_url.raw_query_string}
    return web.json_response({"predictions": [0.5], **seen}, status=404 if "missing" in seen["path"] else 200)


@contextlib.asynccontextmanager
async def rest_front(router):
    behind, port = unused_port(), unused_port()
    servers = [await http_server.start(upstream, "127.0.0.1", behind, HttpLimits())]
    async with aiohttp.ClientSession() as session:
        proxy = RestProxy(router, session, f"http://127.0.0.1:{behind}")
        servers.append(await http_server.start(proxy, "127.0.0.1", port, HttpLimits(body_bytes=1 << 20)))
        yield port
        for server in servers:
            await server.cleanup()


async def raw(port: int, data: bytes) -> tuple[int, bytes]:
    """Status and body of what a socket gets for these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
            return int(head.split()[1]), await reader.readexactly(length)
    finally:
        writer.transport.abort()


def post(body: bytes, path: bytes = b"/v1/models/m:predict", headers: bytes = b"", method: bytes = b"POST") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (method, path, len(body), headers, body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["user", "b64", "x"]), inner),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from(["inputs", "instances", "examples", "context", "user"]), VALUES) | VALUES


def test_no_request_ends_in_a_fault_of_the_router(release):
    router = make_router(release, 50)
    with asyncio.Runner() as runner:
        front = rest_front(router)
        port = runner.run(front.__aenter__())

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            document=DOCUMENTS,
            user=st.none() | st.binary(max_size=20).filter(lambda value: not set(value) & {0, 10, 13}),
            path=st.sampled_from([b"/v1/models/m:predict", b"/v1/models/m", b"/v1/models/%FF:predict", b"/?a=%zz&b"]),
        )
        def ask(document, user, path):
            headers = b"" if user is None else b"recsys-user: " + user + b"\r\n"
            status, _ = runner.run(raw(port, post(json.dumps(document).encode(), path, headers)))
            assert status < 500

        ask()
        for bad in (
            post(b"", b"*", method=b"OPTIONS"),
            post(b"", method=b"CONNECT"),
            post(b"", method=b"BREW"),
            post(b"[" * 200_000),
            post(b'{"a":' * 100_000),
            post(b"{}", headers=b"Content-Encoding: gzip\r\n"),
            post(b"{}", headers=b"Content-Encoding: nothing\r\n"),
            post(b"{}", headers=b"Content-Type: a\x01b\r\n"),
            post(b" " * (2 << 20)),
        ):
            assert runner.run(raw(port, bad))[0] < 500
        runner.run(front.__aexit__(None, None, None))


def test_paths_labels_and_errors_pass(release):
    async def ask():
        async with rest_front(make_router(release, 100)) as port:
            mine = await raw(port, post(b'{"inputs": {"user": ["ann"]}}', b"/v1/models/m:predict?a=b%20c"))
            rows = await raw(port, post(b'{"instances": [{"user": "ann"}, {"user": "bob"}]}'))
            labelled = await raw(port, post(b"{}", b"/v1/models/m/labels/mine:predict"))
            missing = await raw(port, post(b"{}", b"/v1/models/missing:predict"))
        return mine, rows, labelled, missing

    mine, rows, labelled, missing = asyncio.run(ask())
    assert json.loads(mine[1])["path"] == f"/v1/models/m/labels/{CANARY}:predict"
    assert json.loads(mine[1])["query"] == "a=b%20c"
    assert json.loads(rows[1])["path"] == f"/v1/models/m/labels/{STABLE}:predict"
    assert json.loads(labelled[1])["path"] == "/v1/models/m/labels/mine:predict"
    assert missing[0] == 404


def test_a_model_server_that_is_away_is_503(release):
    async def ask():
        router, port = make_router(release, 50), unused_port()
        async with aiohttp.ClientSession() as session:
            proxy = RestProxy(router, session, f"http://127.0.0.1:{unused_port()}")
            server = await http_server.start(proxy, "127.0.0.1", port, HttpLimits())
            answer = await raw(port, post(b"{}"))
            await server.cleanup()
        return answer

    status, body = asyncio.run(ask())
    assert status == 503
    assert "does not answer" in json.loads(body)["error"]


def test_half_sent_requests_shut_nobody_out(release):
    async def ask():
        router, port = make_router(release, 50), unused_port()
        async with aiohttp.ClientSession() as session:
            proxy = RestProxy(router, session, f"http://127.0.0.1:{unused_port()}")
            server = await http_server.start(proxy, "127.0.0.1", port, HttpLimits(connections=16))
            idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
            for each in idle:
                each.setblocking(False)
                with contextlib.suppress(OSError):
                    each.send(b"POST / HTTP/1.1\r\nHost")
            await asyncio.sleep(0.2)
            status, _ = await raw(port, post(b"", b"/router/report", method=b"GET"))
            for each in idle:
                each.close()
            await server.cleanup()
        return status

    assert asyncio.run(ask()) == 404
