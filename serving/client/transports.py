"""How messages reach a server: gRPC and HTTP, synchronous and for an event loop."""

from __future__ import annotations

import json
from typing import Any

from serving.client.messages import Send
from serving.server.status import Code, ServingError, code_of_http


def _channel_arguments(
    target: str, root_certificates: bytes | None, client_certificate: tuple[bytes, bytes] | None
) -> tuple[str, Any, list[tuple[str, int]]]:
    import grpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        return target, None, options
    credentials = None
    if scheme == "grpcs":
        key, certificate = client_certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(root_certificates, key, certificate)
    return rest.removeprefix("//"), credentials, options


class GrpcTransport:
    """gRPC, for any thread."""

    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        import grpc

        address, credentials, options = _channel_arguments(target, roots, certificate)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._calls: dict[str, Any] = {}

    def send(self, message: Send) -> bytes:
        """The body of the server's answer; raises ServingError."""
        import grpc

        call = self._calls.get(message.path)
        if call is None:
            call = self._calls[message.path] = self._channel.unary_unary(message.path)
        try:
            return call(message.body, timeout=message.timeout)
        except grpc.RpcError as error:
            raise ServingError(error.code(), error.details() or "") from error

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()


class AsyncGrpcTransport:
    """gRPC, in an event loop."""

    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        self._arguments = _channel_arguments(target, roots, certificate)
        self._channel: Any = None
        self._calls: dict[str, Any] = {}

    async def send(self, message: Send) -> bytes:
        """The body of the server's answer; raises ServingError."""
        import grpc

        if self._channel is None:  # an asynchronous channel belongs to the loop it is made in
            address, credentials, options = self._arguments
            if credentials is None:
                self._channel = grpc.aio.insecure_channel(address, options)
            else:
                self._channel = grpc.aio.secure_channel(address, credentials, options)
        call = self._calls.get(message.path)
        if call is None:
            call = self._calls[message.path] = self._channel.unary_unary(message.path)
        try:
            return await call(message.body, timeout=message.timeout)
        except grpc.aio.AioRpcError as error:
            raise ServingError(error.code(), error.details() or "") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._channel is not None:
            await self._channel.close()


def _http_answer(response: Any) -> bytes:
    if response.status_code == 200:
        return response.content
    try:
        text = json.loads(response.content)["error"]
    except (ValueError, KeyError, TypeError):
        text = response.text[:500]
    raise ServingError(code_of_http(response.status_code), text)


def _http_failure(error: Exception) -> ServingError:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return ServingError(Code.DEADLINE_EXCEEDED, f"no answer in time: {error!r}")
    return ServingError(Code.UNAVAILABLE, f"{error!r}")


def _tls_context(roots: bytes | None, certificate: tuple[bytes, bytes] | None) -> Any:
    import ssl
    import tempfile

    context = ssl.create_default_context(cadata=roots.decode() if roots else None)
    if certificate:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # the ssl module reads certificates from files only
            file.write(b"\n".join(certificate))
            file.flush()
            context.load_cert_chain(file.name)
    return context


class HttpTransport:
    """HTTP, for any thread."""

    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        import httpx

        self._client = httpx.Client(base_url=target, verify=_tls_context(roots, certificate), trust_env=False)

    def send(self, message: Send) -> bytes:
        """The body of the server's answer; raises ServingError."""
        import httpx

        try:
            response = self._client.request(
                message.method, message.path, content=message.body or None, timeout=message.timeout
            )
        except httpx.TransportError as error:
            raise _http_failure(error) from error
        return _http_answer(response)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncHttpTransport:
    """HTTP, in an event loop."""

    def __init__(self, target: str, roots: bytes | None, certificate: tuple[bytes, bytes] | None):
        import httpx

        self._client = httpx.AsyncClient(base_url=target, verify=_tls_context(roots, certificate), trust_env=False)

    async def send(self, message: Send) -> bytes:
        """The body of the server's answer; raises ServingError."""
        import httpx

        try:
            response = await self._client.request(
                message.method, message.path, content=message.body or None, timeout=message.timeout
            )
        except httpx.TransportError as error:
            raise _http_failure(error) from error
        return _http_answer(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
