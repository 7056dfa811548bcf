from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from serving.server import config_protos
from serving.server.batching import BatchingParameters, BatchQueue, Runtime, rows_of
from serving.server.metrics import ServerMetrics
from serving.server.saved_model import Input, Signature
from serving.server.status import ServingError


class Doubler:
    """A graph that doubles, notes how many rows each run had, and chokes on 13."""

    def __init__(self):
        self.rows = []

    def __call__(self, feeds):
        (x,) = feeds
        self.rows.append(len(x))
        if (x == 13).any():
            raise ValueError("13 is not for me")
        return [x * 2]


def queue(graph, parameters):
    declared = {"x": Input("x", "x:0", 1, np.dtype(np.float32), (-1,))}
    signature = Signature("s", "predict", declared, {"y": "y:0"}, {"y": 1}, graph, False, True, ("y",))
    return BatchQueue("m", signature, parameters, Runtime(2), ServerMetrics())


def serve(parameters, requests):
    graph = Doubler()

    async def main():
        waiting = queue(graph, parameters)
        return await asyncio.gather(*(waiting.run({"x": each}, len(each)) for each in requests), return_exceptions=True)

    return graph, asyncio.run(main())


def test_waiting_requests_share_a_run_and_get_their_own_rows():
    graph, answers = serve(BatchingParameters(max_batch_size=8), [[1.0], [2.0, 3.0], np.array([4.0], np.float32)])
    assert [answer[0].tolist() for answer in answers] == [[2.0], [4.0, 6.0], [8.0]]
    assert graph.rows == [4]


def test_a_batch_takes_no_more_than_fits():
    graph, answers = serve(BatchingParameters(max_batch_size=2, num_batch_threads=1), [[1.0], [2.0], [3.0]])
    assert [answer[0].tolist() for answer in answers] == [[2.0], [4.0], [6.0]]
    assert sorted(graph.rows) == [1, 2]


def test_batches_are_padded_to_the_allowed_sizes():
    graph, answers = serve(BatchingParameters(max_batch_size=8, allowed_batch_sizes=(4, 8)), [[1.0], [2.0]])
    assert [answer[0].tolist() for answer in answers] == [[2.0], [4.0]]
    assert graph.rows == [4]


def test_one_bad_request_fails_alone():
    _, answers = serve(BatchingParameters(), [[1.0], [13.0], [3.0]])
    assert answers[0][0].tolist() == [2.0]
    assert isinstance(answers[1], ValueError)
    assert answers[2][0].tolist() == [6.0]


def test_other_inner_shapes_go_in_other_batches():
    wide = np.ones((2, 3), np.float32)
    graph, answers = serve(BatchingParameters(), [[1.0], wide, [2.0]])
    assert answers[1][0].shape == (2, 3)
    assert sorted(graph.rows) == [2, 2]


def test_too_large_a_request_and_too_long_a_queue_are_refused():
    _, (answer,) = serve(BatchingParameters(max_batch_size=2), [[1.0, 2.0, 3.0]])
    assert isinstance(answer, ServingError)
    assert "larger than maximum input batch size 2" in answer.message
    parameters = BatchingParameters(max_batch_size=1, max_enqueued_batches=2, num_batch_threads=1)
    _, answers = serve(parameters, [[1.0]] * 5)
    refused = [answer for answer in answers if isinstance(answer, ServingError)]
    assert {answer.code.name for answer in refused} == {"UNAVAILABLE"}
    assert len(refused) == 3


def test_large_requests_are_split_on_request():
    graph, (answer,) = serve(BatchingParameters(max_batch_size=2, enable_large_batch_splitting=True), [[1.0, 2.0, 3.0]])
    assert answer[0].tolist() == [2.0, 4.0, 6.0]
    assert max(graph.rows) == 2


def test_parameters_are_read_from_their_text():
    text = "max_batch_size { value: 32 } batch_timeout_micros { value: 500 } allowed_batch_sizes: [8, 32]"
    parameters = BatchingParameters.from_proto(config_protos.parse_text("BatchingParameters", text))
    assert (parameters.max_batch_size, parameters.batch_timeout_micros) == (32, 500)
    with pytest.raises(ServingError, match="must grow and end in max_batch_size"):
        BatchingParameters(max_batch_size=16, allowed_batch_sizes=(8, 32))


def test_a_run_that_was_slow_once_does_not_hold_the_loop_up_again():
    runtime = Runtime(1)
    runtime.timed(1, 1, lambda: None)
    assert runtime.is_short(1, 1)
    assert not runtime.is_short(1, 100)  # nothing is known of larger ones
    runtime.timed(1, 1, lambda: time.sleep(0.02))
    assert not runtime.is_short(1, 1)


def test_rows_of():
    assert rows_of({"a": [1, 2], "b": np.ones((2, 3))}) == 2
    assert rows_of({"a": [1], "b": [1, 2]}) is None
    assert rows_of({"a": np.array(1.0)}) is None
