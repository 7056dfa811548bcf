"""A closed-loop client in a process of its own: so many requests in flight, each answered before the next.

Reads one JSON object a line (protocol, port, rows, in_flight, seconds) and answers each with another (requests, rate,
latency percentiles in milliseconds). Requests are made before the clock starts, so that what is measured is the server
and not the client's Python.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import grpc
import numpy as np
import orjson
import uvloop
from tensorflow_serving.apis import predict_pb2

from benchmarks.serving.deepfm import BUCKETS, FIELDS

MODEL = "deepfm"
DISTINCT = 64
WARM_SECONDS = 1.0
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def columns(rows: int, seed: int) -> dict[str, list[int]]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, BUCKETS, rows).tolist() for name in FIELDS}


def grpc_request(model: str, rows: int, seed: int) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, values in columns(rows, seed).items():
        tensor = request.inputs[name]
        tensor.dtype = 9  # DT_INT64
        tensor.tensor_shape.dim.add(size=rows)
        tensor.int64_val.extend(values)
    return request.SerializeToString()


def rest_request(rows: int, seed: int) -> bytes:
    made = columns(rows, seed)
    return orjson.dumps({"instances": [{name: made[name][row] for name in FIELDS} for row in range(rows)]})


async def measure(send, bodies: list[bytes], in_flight: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    stop = time.perf_counter() + seconds

    async def worker(first: int) -> None:
        number = first
        while (start := time.perf_counter()) < stop:
            await send(bodies[number % len(bodies)])
            latencies.append(time.perf_counter() - start)
            number += 1

    begin = time.perf_counter()
    await asyncio.gather(*(worker(number) for number in range(in_flight)))
    took = time.perf_counter() - begin
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return {"requests": len(latencies), "seconds": took, "qps": len(latencies) / took, "p50_ms": p50, "p99_ms": p99}


async def run(task: dict) -> dict[str, float]:
    in_flight, rows, port = task["in_flight"], task["rows"], task["port"]
    if task["protocol"] == "grpc":
        bodies = [grpc_request(MODEL, rows, seed) for seed in range(DISTINCT)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(PREDICT)
            await asyncio.wait_for(channel.channel_ready(), 60)
            await measure(call, bodies, in_flight, WARM_SECONDS)
            return await measure(call, bodies, in_flight, task["seconds"])
    bodies = [rest_request(rows, seed) for seed in range(DISTINCT)]
    url = f"http://127.0.0.1:{port}/v1/models/{MODEL}:predict"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def post(body: bytes) -> None:
            async with session.post(url, data=body) as response:
                await response.read()
                response.raise_for_status()

        await measure(post, bodies, in_flight, WARM_SECONDS)
        return await measure(post, bodies, in_flight, task["seconds"])


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(run(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
