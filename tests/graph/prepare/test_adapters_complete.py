"""That no operator was missed, read off the schemas of all opsets."""

from __future__ import annotations

import itertools
from typing import Any

import onnx

from onnx_gradcam.graph.prepare.adapters import ADAPTERS

# Attributes that came with a default that is not "do nothing", and dtypes that went: each looked at by hand.
ADDITIONS = {
    ("ArgMax", "select_last_index"): "0 is the old choice, the first",
    ("ArgMin", "select_last_index"): "0 is the old choice, the first",
    ("AveragePool", "ceil_mode"): "0 is the old rounding, down",
    ("AveragePool", "count_include_pad"): "0 is the old count, without",
    ("DepthToSpace", "mode"): "DCR is the old order",
    ("DequantizeLinear", "axis"): "scales were scalar, for which it is ignored",
    ("Erf", "dtypes"): "integers, for which onnxruntime never had a kernel",
    ("GRU", "layout"): "0 is the old layout",
    ("GatherND", "batch_dims"): "0 is none",
    ("LSTM", "layout"): "0 is the old layout",
    ("LpPool", "ceil_mode"): "0 is the old rounding, down",
    ("MaxPool", "ceil_mode"): "0 is the old rounding, down",
    ("MaxPool", "storage_order"): "0 is row major; the output it is for is as new",
    ("QuantizeLinear", "axis"): "scales were scalar, for which it is ignored",
    ("RNN", "layout"): "0 is the old layout",
    ("Resize", "antialias"): "0 is the old way",
    ("Resize", "keep_aspect_ratio_policy"): "stretch is the old way",
    ("Reshape", "allowzero"): "0 is the old meaning of 0",
    ("ScatterElements", "reduction"): "none is the old way",
    ("ScatterND", "reduction"): "none is the old way",
    ("Shape", "start"): "0 is all of it",
    ("TopK", "largest"): "1 is the old choice",
    ("TopK", "sorted"): "1 is the old order",
}
# A new meaning under the same attributes, or a new attribute whose default is another behaviour.
BEYOND_SCHEMAS = {"MeanVarianceNormalization": 9, "PRelu": 7, "Resize": 13, "RoiAlign": 16, "Split": 18}
EXPERIMENTS = {"Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"}


def default(attribute: onnx.defs.OpSchema.Attribute | None) -> Any:
    proto = attribute.default_value if attribute else None
    return onnx.helper.get_attribute_value(proto) if proto is not None and proto.type else None


def differences(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> set[str]:
    """How two versions of an operator differ: "form", which needs an adapter, or additions to look at."""
    found = set()
    for name in {*old.attributes, *new.attributes} - {"consumed_inputs"}:
        before, after = old.attributes.get(name), new.attributes.get(name)
        if before and after:
            same = before.type == after.type and default(before) == default(after)
            found |= set() if same and before.required >= after.required else {"form"}
        elif before or (after and after.required):
            found.add("form")
        elif default(after) is not None:
            found.add(name)
    inputs = list(zip(old.inputs, new.inputs, strict=False))
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    if (
        new.deprecated
        or len(new.inputs) < len(old.inputs)
        or new.min_input > old.min_input
        or new.max_output < old.max_output
        or any((a.option == variadic) != (b.option == variadic) for a, b in inputs)
    ):
        found.add("form")
    if any(set(a.types) - set(b.types) for a, b in [*inputs, *zip(old.outputs, new.outputs, strict=False)]):
        found.add("dtypes")
    return found


def test_every_operator_that_changed_not_only_by_addition_has_an_adapter() -> None:
    """Re-derived from the schemas of all versions up to 18: operator → the last opset that changed it."""
    history: dict[str, dict[int, onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= 18:
            history.setdefault(schema.name, {})[schema.since_version] = schema
    found = {
        (name, what, new)
        for name, versions in history.items()
        for old, new in itertools.pairwise(sorted(versions))
        for what in differences(versions[old], versions[new])
    }
    changed: dict[str, int] = {}
    for name, _, since in sorted(f for f in found if f[1] == "form"):
        changed[name] = max(since, changed.get(name, 0))
    changed |= BEYOND_SCHEMAS
    additions = {(name, what) for name, what, since in found if since > changed.get(name, 0)}
    assert changed == {name: until for name, (until, _) in ADAPTERS.items() if name not in EXPERIMENTS}
    assert additions == set(ADDITIONS)
