"""Every lowering has the inputs and the attributes of its operator's schema."""

from __future__ import annotations

import inspect
from typing import Any

import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
from signatures import attributes_of, record_fields

from onnx_gradcam.graph.attributes import RECORD, signature_of
from onnx_gradcam.graph.lowering.registry import LOWERINGS

SCHEMAS = {(s.domain, s.name): s for s in get_all_operator_schema() if s.domain == "com.microsoft"}
REFUSED = {  # attributes that are no part of a lowering: a node that has them is refused by name
    "Attention": {"past_present_share_buffer", "rotary_embedding_dim"},
}


@pytest.mark.parametrize("key", [key for key in LOWERINGS if key in SCHEMAS], ids=".".join)
def test_a_lowering_knows_every_input_and_attribute(key: tuple[str, str]) -> None:
    """Inputs in onnxruntime's order and by its names; a record has no field that one of its operators lacks."""
    signature = signature_of(LOWERINGS[key])
    parameters = list(signature.parameters.values())[1:]
    tensors = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    schema = SCHEMAS[key]
    assert [name.lower() for name in tensors] == [x.name.lower() for x in schema.inputs][: len(tensors)]
    assert len(tensors) == len(schema.inputs) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    assert set(schema.attributes) - set(attributes_of(signature)) == REFUSED.get(key[1], set())
    if RECORD in signature.parameters:
        for name, default in record_fields(signature.parameters[RECORD].annotation).items():
            assert name in schema.attributes, f"{key[1]} has no attribute {name}"
            assert same_default(default, schema.attributes[name]), name


@pytest.mark.parametrize("op_type", ["QLinearConv", "ConvInteger"])
def test_the_record_of_a_standard_operator_has_its_attributes(op_type: str) -> None:
    record = signature_of(LOWERINGS["", op_type]).parameters[RECORD].annotation
    assert record_fields(record).keys() == onnx.defs.get_schema(op_type).attributes.keys()


def same_default(default: object, attribute: Any) -> bool:
    """Whether a field's default is that of onnxruntime's schema, which has it in the form of a protobuf message."""
    proto = onnx.AttributeProto.FromString(attribute._default_value)
    if attribute.required:
        return default is inspect.Parameter.empty
    value = onnx.helper.get_attribute_value(proto) if proto.type else None
    return default == (value.decode() if isinstance(value, bytes) else value)
