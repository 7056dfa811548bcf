"""Config messages of TensorFlow Serving that `tensorflow-serving-api` does not ship, declared by their field names.

Only their text form is ever read, so field numbers carry no meaning here.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format, wrappers_pb2

_PACKAGE = "recsys.serving"
_F = descriptor_pb2.FieldDescriptorProto

_MESSAGES: dict[str, dict[str, tuple[int, str | None, bool]]] = {
    "BatchingParameters": {
        "max_batch_size": (_F.TYPE_MESSAGE, ".google.protobuf.Int64Value", False),
        "batch_timeout_micros": (_F.TYPE_MESSAGE, ".google.protobuf.Int64Value", False),
        "max_enqueued_batches": (_F.TYPE_MESSAGE, ".google.protobuf.Int64Value", False),
        "num_batch_threads": (_F.TYPE_MESSAGE, ".google.protobuf.Int64Value", False),
        "thread_pool_name": (_F.TYPE_MESSAGE, ".google.protobuf.StringValue", False),
        "enable_large_batch_splitting": (_F.TYPE_MESSAGE, ".google.protobuf.BoolValue", False),
        "max_execution_batch_size": (_F.TYPE_MESSAGE, ".google.protobuf.Int64Value", False),
        "allowed_batch_sizes": (_F.TYPE_INT64, None, True),
        "pad_variable_length_inputs": (_F.TYPE_BOOL, None, False),
    },
    "PrometheusConfig": {
        "enable": (_F.TYPE_BOOL, None, False),
        "path": (_F.TYPE_STRING, None, False),
    },
    "MonitoringConfig": {
        "prometheus_config": (_F.TYPE_MESSAGE, f".{_PACKAGE}.PrometheusConfig", False),
    },
    "SSLConfig": {
        "server_key": (_F.TYPE_STRING, None, False),
        "server_cert": (_F.TYPE_STRING, None, False),
        "custom_ca": (_F.TYPE_STRING, None, False),
        "client_verify": (_F.TYPE_BOOL, None, False),
    },
}


def _declare() -> dict[str, type[message.Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="recsys/serving/config.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for number, (field, (kind, type_name, repeated)) in enumerate(fields.items(), start=1):
            label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
            declared.field.add(name=field, number=number, type=kind, type_name=type_name, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


_CLASSES = _declare()


def parse_text(kind: str, text: str) -> message.Message:
    """Parse the text of a BatchingParameters, MonitoringConfig or SSLConfig; raises text_format.ParseError."""
    return text_format.Parse(text, _CLASSES[kind]())
