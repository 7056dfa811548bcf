"""Clients of a server, synchronous and for an event loop."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.client.in_process import SavedModelClient
from serving.client.messages import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    Features,
    Prediction,
    Sleep,
    VersionStatus,
    Which,
)
from serving.client.session import Answer, Session, Steps
from serving.client.transports import AsyncGrpcTransport, AsyncHttpTransport, GrpcTransport, HttpTransport
from serving.client.wires import GrpcWire, RestWire
from serving.server.status import Code, ServingError


def connect(
    target: str,
    model: str,
    *,
    version: int | None = None,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    retries: int = DEFAULT_RETRIES,
    root_certificates: bytes | None = None,
    client_certificate: tuple[bytes, bytes] | None = None,
) -> Client | SavedModelClient:
    """A client for `target`: grpc://, grpcs://, http:// or https://host:port, unix:/socket, or file:///model/folder.

    `client_certificate` is (key, certificate), both PEM; `root_certificates` PEM replaces the system's for grpcs and
    https. `timeout` is the deadline in seconds of a call, its retries included.
    """
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme == "file":
        return SavedModelClient(urllib.parse.unquote(urllib.parse.urlsplit(target).path), model)
    session = Session(_wire(scheme, target), Which(model, version, label), timeout, retries)
    if scheme in ("http", "https"):
        return Client(session, HttpTransport(target, root_certificates, client_certificate))
    return Client(session, GrpcTransport(target, root_certificates, client_certificate))


def connect_async(
    target: str,
    model: str,
    *,
    version: int | None = None,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    retries: int = DEFAULT_RETRIES,
    root_certificates: bytes | None = None,
    client_certificate: tuple[bytes, bytes] | None = None,
) -> AsyncClient:
    """As `connect`, for use in an event loop; file:// is not for it."""
    scheme = urllib.parse.urlsplit(target).scheme
    session = Session(_wire(scheme, target), Which(model, version, label), timeout, retries)
    if scheme in ("http", "https"):
        return AsyncClient(session, AsyncHttpTransport(target, root_certificates, client_certificate))
    return AsyncClient(session, AsyncGrpcTransport(target, root_certificates, client_certificate))


def _wire(scheme: str, target: str) -> GrpcWire | RestWire:
    if scheme in ("http", "https"):
        return RestWire()
    if scheme in ("grpc", "grpcs", "unix"):
        return GrpcWire()
    raise ServingError(
        Code.INVALID_ARGUMENT,
        f"{target!r}: expected grpc://, grpcs://, http:// or https://host:port, unix:/socket or file:///folder",
    )


class Client:
    """A synchronous client; make it with `connect`. Safe to share between threads."""

    def __init__(self, session: Session, transport: Any):
        self._session = session
        self._transport = transport

    def predict(self, features: Features, **options: Any) -> Prediction:
        """Outputs for every row of `features`.

        Options: signature, outputs (names; all by default), version or label, timeout (seconds).
        """
        return self._drive(self._session.predict(features, **options))

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """One score an item, shape [len(items)], in the items' order; `user` has one value a feature."""
        return self._drive(self._session.rank(user, items, **options))

    def status(self) -> list[VersionStatus]:
        """The model's versions, newest first."""
        return self._drive(self._session.status())

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, steps: Steps[Answer]) -> Answer:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = self._transport.send(step)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            return stop.value


class AsyncClient:
    """An asynchronous client; make it with `connect_async`. The methods are Client's, as coroutines."""

    def __init__(self, session: Session, transport: Any):
        self._session = session
        self._transport = transport

    async def predict(self, features: Features, **options: Any) -> Prediction:
        """See Client.predict."""
        return await self._drive(self._session.predict(features, **options))

    async def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """See Client.rank."""
        return await self._drive(self._session.rank(user, items, **options))

    async def status(self) -> list[VersionStatus]:
        """See Client.status."""
        return await self._drive(self._session.status())

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _drive(self, steps: Steps[Answer]) -> Answer:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = await self._transport.send(step)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            return stop.value
