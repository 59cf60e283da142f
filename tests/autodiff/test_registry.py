from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.defs import OpSchema
from rule_tables import tables
from signatures import attributes_of

from onnx_gradcam.autodiff import registry, rules
from onnx_gradcam.autodiff.registry import EACH, RULES, Key, Refused, Rule, Unwritten, vjp
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.attributes import RECORD
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import NO_GRADIENT
from onnx_gradcam.graph.lowering.registry import LOWERINGS
from onnx_gradcam.graph.prepare.prepare import NEWEST

OPSETS = range(18, NEWEST + 1)
EVERY = sorted(RULES)


def test_every_rule_has_a_row_in_a_test_table() -> None:
    tested = {(case.op_type, i) for case in tables() for i in case.wrt}
    operators = {op_type for op_type, _ in tested}
    missing = [key for key in RULES if key not in tested and not (key[1] == EACH and key[0] in operators)]
    assert missing == []


def test_every_theme_is_imported_by_the_package() -> None:
    folder = Path(rules.__file__ or "").parent
    registering = {p.stem for p in folder.glob("*.py") if "vjp(" in p.read_text("utf-8")}
    assert registering <= set(rules.__all__)


# Operators between real numbers that the walk meets without a rule, by what stands in their way.
LEFT = {
    "not a tensor": "ConcatFromSequence Optional OptionalGetElement SequenceAt SequenceConstruct SequenceErase "
    "SequenceInsert SequenceMap SplitToSequence",
}


def test_no_operator_between_real_numbers_is_forgotten() -> None:
    latest = {
        s.name: s for s in map(onnx.defs.get_schema, {s.name for s in onnx.defs.get_all_schemas() if not s.domain})
    }
    lowered = {name for domain, name in LOWERINGS if not domain}
    known = {op_type for op_type, _ in RULES} | lowered | NO_GRADIENT | set(" ".join(LEFT.values()).split())
    forgotten = [
        name
        for name, s in latest.items()
        if not s.deprecated and s.since_version <= max(OPSETS) and holds_floats(s.inputs) and holds_floats(s.outputs)
        if name not in known and not s.has_function and not s.has_context_dependent_function
    ]
    assert forgotten == []


def holds_floats(parameters: Sequence[OpSchema.FormalParameter]) -> bool:
    return any("float" in dtype for parameter in parameters for dtype in parameter.types)


def schemas(op_type: str) -> list[OpSchema]:
    """The operator in each of the opsets that has it, oldest first."""
    found = [onnx.defs.get_schema(op_type, v) for v in OPSETS if onnx.defs.has(op_type, v)]
    assert found, f"no opset from 18 to {NEWEST} has {op_type}"
    return found


def same_name(parameter: str, name: str) -> bool:
    return parameter in (name, name[:1].lower() + name[1:])


@pytest.mark.parametrize("key", EVERY, ids=lambda key: f"{key[0]}-{key[1]}")
def test_parameters_are_the_inputs_of_the_specification(key: Key) -> None:
    op_type, wrt = key
    rule = RULES[key]
    first, *inputs = [p for p in rule.signature.parameters.values() if p.kind != p.KEYWORD_ONLY]
    g, y, *inputs = inputs
    assert (first.name, g.name, y.name) == (("op", "gs", "ys") if rule.multi else ("op", "g", "y"))
    for schema in schemas(op_type):
        assert len(schema.inputs) <= len(inputs)
    for i, (parameter, formal) in enumerate(zip(inputs, schemas(op_type)[-1].inputs, strict=True)):
        assert same_name(parameter.name, formal.name), f"{parameter.name} is {formal.name} in the specification"
        if formal.option == OpSchema.FormalParameterOption.Variadic:
            assert parameter.kind == parameter.VAR_POSITIONAL
        elif formal.option == OpSchema.FormalParameterOption.Optional and i != wrt:
            assert parameter.default is None
        else:
            assert parameter.kind == parameter.POSITIONAL_OR_KEYWORD
            assert parameter.default in (parameter.empty, None)


@pytest.mark.parametrize("key", EVERY, ids=lambda key: f"{key[0]}-{key[1]}")
def test_keywords_are_the_attributes_of_the_specification(key: Key) -> None:
    """Those of a record among them: it has no field that one of its operators lacks, and lacks none itself."""
    op_type, wrt = key
    keywords = attributes_of(RULES[key].signature)
    if wrt == EACH:
        assert keywords.pop("i") is inspect.Parameter.empty
    if RULES[key].nested:
        assert keywords.pop("pull_back") is inspect.Parameter.empty
    attributes = {name: a for schema in schemas(op_type) for name, a in schema.attributes.items()}
    for name, default in keywords.items():
        assert name in attributes, f"{op_type} has no attribute {name}"
        assert same_default(default, attributes[name]), name
    assert {name for name, a in attributes.items() if a.required} <= set(keywords)
    if RECORD in RULES[key].signature.parameters:
        assert set(keywords) == set(attributes)


def same_default(default: object, attribute: OpSchema.Attribute) -> bool:
    """Whether a parameter's default is the attribute's; floating-point ones are float32 in the specification."""
    if attribute.required:
        return default is inspect.Parameter.empty
    if not attribute.default_value.type:
        return default is None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    match value:
        case bytes():
            return default == value.decode()
        case float():
            return isinstance(default, float) and np.float32(default) == np.float32(value)
        case list():
            return isinstance(default, Sequence) and list(default) == [
                v.decode() if isinstance(v, bytes) else v for v in value
            ]
        case _:
            return default == value and type(default) is type(value)


def passes(op: Builder, g: Value, y: Value, x: Value) -> Value:
    return g


def node(op_type: str, attributes: dict[str, object] | None = None, outputs: int = 1, domain: str = "") -> ir.Node:
    """A node named /block/<op_type> with one input x, on a graph of opset 18."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([2, 3]))
    ys = [ir.val(f"y{i}", dtype=ir.DataType.FLOAT, shape=ir.Shape([2, 3])) for i in range(outputs)]
    made = ir.node(op_type, [x], attributes, domain=domain, outputs=ys, name=f"/block/{op_type}")
    ir.Graph([x], ys, nodes=[made], opset_imports={"": 18})
    return made


def applied(table: dict[Key, Rule], made: ir.Node) -> Value:
    assert made.graph is not None
    gs = [ir.val(f"g{i}", dtype=ir.DataType.FLOAT, shape=y.shape) for i, y in enumerate(made.outputs)]
    return registry.apply(table, Builder(made.graph), made, 0, gs, pull_back)


def refused(table: dict[Key, Rule], made: ir.Node) -> UnsupportedGradient:
    """The refusal, which must name the node, its value and the operator."""
    with pytest.raises(UnsupportedGradient) as caught:
        applied(table, made)
    error = caught.value
    assert (error.op_type, error.domain, error.node, error.input) == (made.op_type, made.domain, made.name, 0)
    assert f"node '/block/{made.op_type}', input 'x', output 'y0'" in str(error)
    assert "eigencam" in error.hint
    assert "reciprocam" in error.hint
    return error


def test_a_second_rule_for_the_same_input_is_refused() -> None:
    table: dict[Key, Rule] = {}
    vjp("Relu", wrt=0, table=table)(passes)
    with pytest.raises(ValueError, match="two VJP rules for Relu, input 0"):
        vjp("Relu", wrt=0, table=table)(passes)
    vjp("Relu", wrt=1, table=table)(passes)


def test_a_missing_rule_is_named() -> None:
    assert refused({}, node("Det")).what == "no VJP rule for Det, input 0"


def test_a_missing_rule_of_another_domain_is_named_with_it() -> None:
    table = {("Relu", 0): RULES["Relu", 0]}
    assert refused(table, node("Relu", domain="com.example")).what == "no VJP rule for com.example::Relu, input 0"


def test_an_attribute_that_the_rule_does_not_know_is_refused() -> None:
    table: dict[Key, Rule] = {}
    vjp("Softmax", wrt=0, table=table)(passes)
    error = refused(table, node("Softmax", {"axis": 1}))
    assert "Softmax, input 0" in error.what
    assert "'axis'" in error.what


@pytest.mark.parametrize(
    ("op_type", "attributes", "name"),
    [
        ("Conv", {"kernel_shape": [1, 1], "output_shape": [3, 3]}, "output_shape"),  # that of another record
        ("Conv", {"at": 1}, "at"),
        ("MaxPool", {"kernel_shape": [1, 1], "count_include_pad": 1}, "count_include_pad"),  # that of another rule
        ("MaxPool", {"strides": [1, 1]}, "kernel_shape"),  # required
        ("LSTM", {"linear_before_reset": 1}, "linear_before_reset"),
    ],
)
def test_an_attribute_that_the_record_does_not_know_is_refused(
    op_type: str, attributes: dict[str, object], name: str
) -> None:
    assert f"{name!r}" in refused(RULES, node(op_type, attributes)).what


def test_a_form_that_the_rule_was_not_written_for_is_refused() -> None:
    table: dict[Key, Rule] = {}

    @vjp("Softmax", wrt=0, table=table)
    def unwritten(op: Builder, g: Value, y: Value, x: Value, *, axis: int = -1) -> Value:
        raise Unwritten(f"axis={axis}")

    assert refused(table, node("Softmax", {"axis": 1})).what == "axis=1 for Softmax, input 0"


def test_what_is_not_meant_to_work_is_told_from_what_is_missing() -> None:
    """Operators without a body, sequences, and forms that a rule refuses; not the rest."""
    table: dict[Key, Rule] = {}

    @vjp("Softmax", wrt=0, table=table)
    def refusing(op: Builder, g: Value, y: Value, x: Value, *, axis: int = -1) -> Value:
        raise Refused(f"axis={axis}") if axis == 7 else Unwritten(f"axis={axis}")

    assert refused(table, node("Softmax", {"axis": 7})).by_design is True
    assert refused(table, node("Softmax", {"axis": 1})).by_design is False
    assert refused({}, node("Softmax")).by_design is False
    assert refused({}, node("SequenceConstruct")).by_design is True
    assert refused({}, node("StringNormalizer")).by_design is True
    assert refused({}, node("Relu", domain="com.example")).by_design is True
    assert refused({}, node("Attention", domain="com.microsoft")).by_design is False


def test_a_cotangent_of_a_second_output_needs_a_rule_for_all() -> None:
    table: dict[Key, Rule] = {}
    vjp("Split", wrt=0, table=table)(passes)
    assert "output other than the first" in refused(table, node("Split", outputs=2)).what

    @vjp("Split", wrt=0, multi=True, table=(several := {}))
    def second(op: Builder, gs: tuple[Value, ...], ys: tuple[Value, ...], x: Value) -> Value:
        return gs[1]

    assert applied(several, node("Split", outputs=2)).name == "g1"


def test_a_rule_for_each_input_learns_which_and_yields_to_one_for_that_input() -> None:
    table: dict[Key, Rule] = {}

    @vjp("Sum", wrt=EACH, table=table)
    def each(op: Builder, g: Value, y: Value, *data_0: Value, i: int) -> Value:
        return data_0[i]

    assert applied(table, node("Sum")).name == "x"
    vjp("Sum", wrt=0, table=table)(passes)
    assert applied(table, node("Sum")).name == "g0"


@pytest.mark.parametrize(("broadcasts", "kinds"), [(True, ["Relu"]), (False, ["Relu", "Expand"])])
def test_a_compact_cotangent_is_expanded_unless_the_rule_takes_it(broadcasts: bool, kinds: list[str]) -> None:
    table: dict[Key, Rule] = {}
    vjp("Relu", wrt=0, broadcasts=broadcasts, table=table)(passes)
    made = node("Relu")
    assert made.graph is not None
    g = ir.val("g", dtype=ir.DataType.FLOAT, shape=ir.Shape([2, 1]))
    registry.apply(table, Builder(made.graph), made, 0, [g], pull_back)
    assert [n.op_type for n in made.graph] == kinds
