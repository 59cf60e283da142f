"""The attributes that a rule or a lowering takes, for comparisons with the specification."""

from __future__ import annotations

import dataclasses
import inspect

from onnx_gradcam.graph.attributes import RECORD


def attributes_of(signature: inspect.Signature) -> dict[str, object]:
    """Return the default of each attribute by name, those of the record included; no attribute is taken twice."""
    defaults: dict[str, object] = {}
    for parameter in signature.parameters.values():
        if parameter.kind != parameter.KEYWORD_ONLY:
            continue
        own = record_fields(parameter.annotation) if parameter.name == RECORD else {parameter.name: parameter.default}
        assert defaults.keys().isdisjoint(own)
        defaults |= own
    return defaults


def record_fields(record: type) -> dict[str, object]:
    """Return the default of each field of a record by name."""
    return {
        f.name: inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default
        for f in dataclasses.fields(record)
    }
