"""The conversation, without I/O: generators that yield what to send and are given what came back."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from serving.client.columns import array_of, as_columns, check_names
from serving.client.messages import (
    DEFAULT_SIGNATURE,
    RANK_SIGNATURE,
    Features,
    Prediction,
    Send,
    Sleep,
    TensorTypes,
    VersionStatus,
    Which,
)
from serving.client.wires import GrpcWire, RestWire
from serving.server.status import Code, ServingError

FIRST_BACKOFF_SECONDS = 0.05


Answer = TypeVar("Answer")
Steps = Generator[Send | Sleep, bytes | None, Answer]


@dataclass
class Session:
    """What a client knows of the server it talks to, and the steps of each call."""

    wire: GrpcWire | RestWire
    which: Which
    timeout: float
    retries: int
    _types: dict[Which, dict[str, TensorTypes]] = field(default_factory=dict)

    def predict(
        self,
        features: Features,
        *,
        signature: str = DEFAULT_SIGNATURE,
        outputs: Sequence[str] = (),
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Steps[Prediction]:
        """The steps of Client.predict."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        which = self._chosen(version, label)
        columns = as_columns(features)
        known = which in self._types
        types = yield from self._signature(which, signature, deadline)
        try:
            return (yield from self._predict(which, signature, columns, types, outputs, deadline))
        except ServingError as error:
            if not known or error.code not in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION):
                raise
        # The signature may have changed with the version since it was asked for.
        del self._types[which]
        types = yield from self._signature(which, signature, deadline)
        return (yield from self._predict(which, signature, columns, types, outputs, deadline))

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> Steps[np.ndarray]:
        """The steps of Client.rank."""
        columns = as_columns(items)
        for name, value in user.items():
            columns[name] = [value]
        prediction = yield from self.predict(columns, signature=RANK_SIGNATURE, **options)
        return scores(prediction)

    def status(self) -> Steps[list[VersionStatus]]:
        """The steps of Client.status."""
        which = self.which
        data = yield from self._call(self.wire.status(which), time.monotonic() + self.timeout)
        return self.wire.read_status(data)

    def _chosen(self, version: int | None, label: str | None) -> Which:
        if version is None and label is None:
            return self.which
        return Which(self.which.model, version, label)

    def _signature(self, which: Which, signature: str, deadline: float) -> Steps[TensorTypes]:
        if which not in self._types:
            data = yield from self._call(self.wire.metadata(which), deadline)
            self._types[which] = self.wire.read_metadata(data)
        try:
            return self._types[which][signature]
        except KeyError:
            found = sorted(self._types.pop(which))
            raise ServingError(
                Code.FAILED_PRECONDITION, f"model {which.model!r} has no signature {signature!r}; it has {found}"
            ) from None

    def _predict(
        self,
        which: Which,
        signature: str,
        columns: Mapping[str, Any],
        types: TensorTypes,
        outputs: Sequence[str],
        deadline: float,
    ) -> Steps[Prediction]:
        check_names(columns, types, signature)
        arrays = {name: array_of(name, values, types.inputs[name]) for name, values in columns.items()}
        data = yield from self._call(self.wire.predict(which, signature, arrays, types, outputs), deadline)
        prediction = self.wire.read_prediction(data, which, signature, types)
        if not outputs:
            return prediction
        wanted = {name: prediction.outputs[name] for name in outputs}
        return Prediction(wanted, prediction.model, prediction.signature, prediction.version)

    def _call(self, message: tuple[str, str, bytes], deadline: float) -> Steps[bytes]:
        method, path, body = message
        for attempt in range(self.retries + 1):
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed before the server answered")
            try:
                return cast(bytes, (yield Send(method, path, body, left)))
            except ServingError as error:
                # Some milliseconds, doubling, none of them the same for two clients of a server that comes back.
                pause = FIRST_BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.0)
                last = attempt == self.retries or deadline - time.monotonic() <= pause
                if error.code is not Code.UNAVAILABLE or last:
                    raise
            yield Sleep(pause)
        raise AssertionError("unreachable")


def scores(prediction: Prediction) -> np.ndarray:
    """The scores of a `rank` answer, shape [items]."""
    if "scores" in prediction.outputs:
        return prediction.outputs["scores"]
    if len(prediction.outputs) == 1:
        return next(iter(prediction.outputs.values()))
    raise ServingError(
        Code.FAILED_PRECONDITION, f"signature 'rank' answers {sorted(prediction.outputs)}, and none of it is 'scores'"
    )
