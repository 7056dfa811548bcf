"""The error every layer of the server raises: a gRPC status code and a message for the client."""

from __future__ import annotations

from grpc import StatusCode as Code

_BY_NUMBER: dict[int, Code] = {code.value[0]: code for code in Code}

_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

# Several codes share a status: the one a client acts upon. 413 comes from proxies on the way.
_FROM_HTTP = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def code_of_http(status: int) -> Code:
    """The code that a server meant by an HTTP status; UNKNOWN where it is none of ours."""
    return _FROM_HTTP.get(status, Code.UNKNOWN)


# gRPC carries the message in a header, and one of more than 8 KiB would replace the status by another one.
MAX_MESSAGE_CHARACTERS = 2000


class ServingError(Exception):
    """A request (or a model) failed with a status that the client is to see."""

    def __init__(self, code: Code, message: str):
        if len(message) > MAX_MESSAGE_CHARACTERS:
            message = message[:MAX_MESSAGE_CHARACTERS] + "..."
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The code as the wire has it."""
        return self.code.value[0]

    @property
    def http(self) -> int:
        """The HTTP status TensorFlow Serving maps this code to."""
        return _HTTP[self.code]


def invalid_argument(message: str) -> ServingError:
    """INVALID_ARGUMENT with this message."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def from_exception(error: BaseException) -> ServingError:
    """What the client sees of any exception: TensorFlow's own codes are kept, the unforeseen is INTERNAL."""
    if isinstance(error, ServingError):
        return error
    number = getattr(error, "error_code", None)  # tensorflow.errors.OpError
    if isinstance(number, int):
        return ServingError(_BY_NUMBER.get(number, Code.UNKNOWN), str(getattr(error, "message", error)))
    if isinstance(error, UnicodeError):  # text of the request that no protobuf or JSON may hold
        return invalid_argument(f"The request has text that is not valid Unicode: {error}")
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
