"""The messages of KEDA's external scaler, described at run time so that no generated code has to fit a version.

Names and numbers of fields are those of `externalscaler.proto` in KEDA, package `externalscaler`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "externalscaler"
SERVICE = f"{PACKAGE}.ExternalScaler"

_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _BOOL, _INT64, _DOUBLE = _Field.TYPE_STRING, _Field.TYPE_BOOL, _Field.TYPE_INT64, _Field.TYPE_DOUBLE
_METADATA = "ScaledObjectRef.ScalerMetadataEntry"

_MESSAGES: dict[str, tuple[tuple[str, Any], ...]] = {
    "ScaledObjectRef": (("name", _STRING), ("namespace", _STRING), ("scalerMetadata", [_METADATA])),
    "IsActiveResponse": (("result", _BOOL),),
    "MetricSpec": (("metricName", _STRING), ("targetSize", _INT64), ("targetSizeFloat", _DOUBLE)),
    "GetMetricSpecResponse": (("metricSpecs", ["MetricSpec"]),),
    "GetMetricsRequest": (("scaledObjectRef", "ScaledObjectRef"), ("metricName", _STRING)),
    "MetricValue": (("metricName", _STRING), ("metricValue", _INT64), ("metricValueFloat", _DOUBLE)),
    "GetMetricsResponse": (("metricValues", ["MetricValue"]),),
}
"""Fields in the order of their numbers, from 1; a name is a message, a list of one name is many of it."""


def _add(message: Any, fields: tuple[tuple[str, Any], ...]) -> None:
    for number, (name, kind) in enumerate(fields, start=1):
        many = isinstance(kind, list)
        kind = kind[0] if many else kind
        field = message.field.add(
            name=name, number=number, label=_Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
        )
        if isinstance(kind, str):
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
        else:
            field.type = kind


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="externalscaler.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        _add(message, fields)
        if name == "ScaledObjectRef":
            # A map on the wire is a list of pairs.
            entry = message.nested_type.add(name="ScalerMetadataEntry")
            entry.options.map_entry = True
            _add(entry, (("key", _STRING), ("value", _STRING)))
    # A pool of its own: another library of the process may bring the same file.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _classes()
ScaledObjectRef: Any = _CLASSES["ScaledObjectRef"]
IsActiveResponse: Any = _CLASSES["IsActiveResponse"]
GetMetricSpecResponse: Any = _CLASSES["GetMetricSpecResponse"]
GetMetricsRequest: Any = _CLASSES["GetMetricsRequest"]
GetMetricsResponse: Any = _CLASSES["GetMetricsResponse"]
