"""Ray Serve on protobuf 7, which took `FieldDescriptor.label` away (ray-project/ray issue 64710, in Ray 2.55).

Goes with the Ray version that says `is_repeated`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def mend() -> None:
    """Gives Ray Serve's configuration a reader of messages that knows both protobufs, where it needs one."""
    if hasattr(FieldDescriptor, "label"):
        return
    from ray.serve._private import config

    vars(config)["_proto_to_dict"] = as_dict


def as_dict(message: Message) -> dict[str, Any]:
    """Every field by its name. Scalars that are not set have their default; messages and optional ones are absent."""
    found = {
        field.name: field.default_value
        for field in message.DESCRIPTOR.fields
        if field.type != FieldDescriptor.TYPE_MESSAGE and not field.containing_oneof
    }
    for field, value in message.ListFields():
        nested = field.type == FieldDescriptor.TYPE_MESSAGE
        if field.is_repeated:
            found[field.name] = [as_dict(one) for one in value] if nested else list(value)
        else:
            found[field.name] = as_dict(value) if nested else value
    return found
