"""Loop, Scan and sequences of known length: the gradient against differences of the deployed model, in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.lowering import replay
from onnx_gradcam.graph.prepare.prepare import prepare

CONSTANTS = """<int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three = {3}, int64 minus = {-1},
    bool yes = {1}, bool no = {0}, double half = {0.5}, int64[2] lengths = {1, 2}, int64[1] axis = {0},
    double[3, 3] w = {0.3, -0.2, 0.5, 0.1, 0.7, -0.4, 0.6, 0.2, -0.3}>"""
BODY = "<body = b (int64 i, bool go, double[a, b] v)"
LOOPS = {
    "a state": f"""y = Loop (three, , x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n m = MatMul(v, w)\n u = Tanh(m) }}>""",
    "the number of the repetition": f"""y = Loop (three, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n f = Cast <to = 11> (i)\n s = Mul(v, f)\n u = Add(s, x) }}>""",
    "what each repetition returns": """last, all = Loop (three, yes, x)
        <body = b (int64 i, bool go, double[a, b] v) => (bool more, double[a, b] u, double[a, b] s)
        { more = Identity(go)\n u = Sin(v)\n s = Mul(v, v) }>
        t = ReduceSum <keepdims = 0> (all, axis)\n y = Mul(t, last)""",
    "two states that change places": """p, q = Loop (three, yes, x, x)
        <body = b (int64 i, bool go, double[a, b] v, double[a, b] z) => (bool more, double[a, b] r, double[a, b] s)
        { more = Identity(go)\n r = Identity(z)\n s = Sin(v) }>
        y = Mul(p, q)""",
    "a state that stays": """p, y = Loop (three, yes, x, x)
        <body = b (int64 i, bool go, double[a, b] v, double[a, b] z) => (bool more, double[a, b] v, double[a, b] s)
        { more = Identity(go)\n s = Mul(v, z) }>""",
    "an end that the count decides": f"""y = Loop (, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ n = Add(i, one)\n more = Less(n, two)\n u = Mul(v, v) }}>""",
    "no repetition": f"""l = Loop (zero, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n u = Mul(v, v) }}>\n y = Sin(l)""",
    "no repetition, by its condition": f"""l = Loop (three, no, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n u = Mul(v, v) }}>\n y = Sin(l)""",
    "a state that grows": f"""r = Loop (two, yes, x) {BODY} => (bool more, double[c, d] u)
        {{ more = Identity(go)\n s = Sin(v)\n u = Concat <axis = 1> (v, s) }}>\n y = Mul(r, r)""",
    "a weight in the body": f"""y = Loop (three, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n k = Constant <value = double[1] {{0.7}}> ()\n s = Mul(v, k)\n u = Sin(s) }}>""",
    "a loop in a loop": f"""y = Loop (two, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n f = Cast <to = 11> (i)
           u = Loop (two, go, v) <body = c (int64 j, bool on, double[a, b] r) => (bool again, double[a, b] t)
           {{ again = Identity(on)\n m = MatMul(r, w)\n s = Add(m, f)\n q = Tanh(s)\n t = Add(q, v) }}> }}>""",
    "a branch that the count decides": f"""y = Loop (three, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n c = Equal(i, one)
           u = If (c) <then_branch = t () => (double[a, b] r) {{ r = MatMul(v, w) }},
                       else_branch = e () => (double[a, b] q) {{ q = Sin(v) }}> }}>""",
    "a branch that the numbers decide": f"""y = Loop (three, yes, x) {BODY} => (bool more, double[a, b] u)
        {{ more = Identity(go)\n t = ReduceSum <keepdims = 0> (v)\n c = Greater(t, half)
           u = If (c) <then_branch = t () => (double[a, b] r) {{ m = MatMul(v, w)\n r = Add(m, x) }},
                       else_branch = e () => (double[a, b] q) {{ q = Sin(v) }}> }}>""",
    "a loop in a branch": f"""t = ReduceSum <keepdims = 0> (x)\n c = Greater(t, half)
        y = If (c) <then_branch = t () => (double[a, b] r) {{
            r = Loop (three, yes, x) {BODY} => (bool more, double[a, b] u) {{ more = Identity(go)\n u = Sin(v) }}> }},
        else_branch = e () => (double[a, b] q) {{ q = Mul(x, x) }}>""",
    "rows by their number": """y = Loop (two, yes)
        <body = b (int64 i, bool go) => (bool more, double[b] s)
        { more = Identity(go)\n r = Gather <axis = 0> (x, i)\n s = Mul(r, r) }>""",
    "a scan": """last, y = Scan <num_scan_inputs = 1, body = b (double[3] h, double[3] r) => (double[3] n, double[3] o)
        { s = Mul(h, r)\n n = Tanh(s)\n o = Add(n, r) }> (start, x)""",
    "a scan along other axes": """last, o = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1],
        scan_input_directions = [1, 0], scan_output_axes = [1], scan_output_directions = [1],
        body = b (double[2] h, double[2] r, double[2] s) => (double[2] n, double[2] o1)
        { m = Mul(h, r)\n a = Add(m, s)\n n = Tanh(a)\n o1 = Mul(n, s) }> (column, x, x)
        t = Gather <axis = 1> (o, axis)\n u = Sin(o)\n q = Add(u, t)\n k = Unsqueeze(last, one1)\n y = Mul(q, k)""",
}
SEQUENCES = {
    "taken out": "s = SplitToSequence <axis = 1, keepdims = 0> (x)\n e = SequenceAt(s, minus)\n y = Mul(e, e)",
    "parts of a length": "s = SplitToSequence <axis = 1> (x, two)\n e = SequenceAt(s, one)\n y = Sin(e)",
    "parts of given lengths": "s = SplitToSequence <axis = 1> (x, lengths)\n e = SequenceAt(s, one)\n y = Sin(e)",
    "put together": """t = Sin(x)\n q = SequenceConstruct(x, t)\n r = SequenceInsert(q, w, zero)
        p = SequenceErase(r, zero)\n y = ConcatFromSequence <axis = 1> (p)""",
    "stacked": "t = Sin(x)\n q = SequenceConstruct(x, t)\n y = ConcatFromSequence <axis = 0, new_axis = 1> (q)",
    "collected by a loop": """s = SplitToSequence <axis = 0> (x)\n n = SequenceLength(s)
        q = SequenceEmpty <dtype = 11> ()
        r = Loop (n, yes, q) <body = b (int64 i, bool go, seq(double[c, d]) c) => (bool more, seq(double[c, d]) m)
        { more = Identity(go)\n e = SequenceAt(s, i)\n t = Tanh(e)\n m = SequenceInsert(c, t) }>
        y = ConcatFromSequence <axis = 1> (r)""",
    "optional": "o = Optional(x)\n h = OptionalHasElement(o)\n e = OptionalGetElement(o)\n y = Sin(e)",
}


def model(text: str, rows: int | str = 2) -> onnx.ModelProto:
    """Return a model of double numbers, whose input is x of 2 rows and whose output is y."""
    extra = "double[3] start = {1, 0.5, -1}, double[2] column = {0.5, -1}, int64[1] one1 = {1}, "
    constants = CONSTANTS.replace("<", f"<{extra}", 1)
    head = '<ir_version: 8, opset_import: ["": 18]> g (double[ROWS, 3] x) => (double[e, f] y)'.replace(
        "ROWS", str(rows)
    )
    if "y = SequenceAt" in text or "Mul(e, e)" in text or "new_axis = 1" in text:
        head = head.replace("[e, f]", "[e, f, h]" if "new_axis = 1" in text else "[e]")
    return onnx.parser.parse_model(f"{head} {constants} {{ {text} }}")


def gradient(text: str, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the gradient of ⟨g, y⟩ on ONNX Runtime."""
    prepared = prepare(load(model(text)).model)
    graph = prepared.graph
    y = graph.outputs[0]
    seed = ir.val("g", dtype=y.dtype, shape=y.shape)
    forward = list(graph)
    graph.inputs.append(seed)
    op = Builder(graph)
    (found,) = pull_back(op, forward, {y: seed}, [graph.inputs[0]])
    out = op.Identity(found)
    out.name = "grad"
    graph.outputs.append(out)
    return run(prepared, {"x": x, "g": g}, ["grad"])["grad"]


@pytest.mark.parametrize("name", [*LOOPS, *SEQUENCES])
def test_differences(name: str) -> None:
    text = (LOOPS | SEQUENCES)[name]
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3))
    deployed = model(text)
    y = run(deployed, {"x": x}, ["y"])["y"]
    g = rng.standard_normal(y.shape)
    found, h = gradient(text, x, g), 1e-5
    for _ in range(3):
        v = rng.standard_normal(x.shape)
        ends = [run(deployed, {"x": x + s * h * v}, ["y"])["y"] for s in (1, -1)]
        assert np.vdot(found, v) == pytest.approx(np.vdot(g, ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", [*LOOPS, *SEQUENCES])
def test_prepare_changes_nothing(name: str) -> None:
    text = (LOOPS | SEQUENCES)[name]
    x = np.random.default_rng(4).standard_normal((2, 3))
    prepared = prepare(load(model(text)).model)
    np.testing.assert_allclose(run(prepared, {"x": x}, ["y"])["y"], run(model(text), {"x": x}, ["y"])["y"], rtol=1e-12)
    assert name in LOOPS or not any("Sequence" in n.op_type or n.op_type == "Optional" for n in prepared.graph)


MANY = BODY + " => (bool more, double[a, b] u) { more = Identity(go)\n u = Sin(v) }>"
REFUSED = {
    "a number of repetitions that is known in the run": (
        "Loop",
        f"n = Shape <end = 1> (x)\n y = Loop (n, yes, x) {MANY}",
    ),
    "a condition to go on that is known in the run": (
        "Loop",
        MANY.replace("<body", "y = Loop (, yes, x) <body").replace(
            "more = Identity(go)", "t = ReduceSum <keepdims = 0> (v)\n more = Greater(t, half)"
        ),
    ),
    "more than 40 repeated nodes": ("Loop", f"y = Loop (, yes, x) {MANY}"),
    "a length that is known in the run": ("Scan", LOOPS["a scan"]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_the_run_decides_is_refused_by_name(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST", 40)
    op_type, text = REFUSED[reason]
    prepared = prepare(load(model(text, rows="N")).model)
    y = prepared.graph.outputs[0]
    seed = ir.val("g", dtype=y.dtype, shape=y.shape)
    with pytest.raises(UnsupportedGradient, match=f"no VJP rule for {reason}.* for {op_type}") as error:
        pull_back(Builder(prepared.graph), list(prepared.graph), {y: seed}, [prepared.graph.inputs[0]])
    assert error.value.by_design


def test_a_trial_leaves_no_reader_behind() -> None:
    """Values that a body captures have the readers that the model gives them, no more."""
    prepared = prepare(load(model(LOOPS["the number of the repetition"])).model)
    (x,) = prepared.graph.inputs
    loop = next(n for n in prepared.graph if n.op_type == "Loop")
    assert sorted(use.node.op_type for use in x.uses()) == ["Add", "Loop"]
    assert all(v.uses() for n in loop.attributes["body"].as_graph() for v in n.inputs if v is not None)


def test_the_shape_of_what_a_loop_returns_is_found() -> None:
    """Its body says nothing of the shape of what it carries."""
    text = LOOPS["a state that grows"].replace("double[a, b] v", "double[q] v").replace("double[c, d] u", "double[q] u")
    prepared = prepare(load(model(text)).model)
    assert next(n for n in prepared.graph if n.op_type == "Loop").outputs[0].shape == [2, 12]


def test_the_shape_of_what_a_scan_collects_is_found() -> None:
    text = LOOPS["a scan"].replace("double[3] n, double[3] o)", "double[3] n, double[r] o)")
    unknown = model(text.replace("last, y = Scan", "last, c = Scan") + "\n y = Sin(c)")
    del unknown.graph.value_info[:]
    prepared = prepare(load(unknown).model)
    assert [v.shape for n in prepared.graph if n.op_type == "Scan" for v in n.outputs] == [[3], [2, 3]]


def test_the_body_of_an_older_opset_is_raised_first() -> None:
    """Unsqueeze has its axes as an attribute there; y = ((x + 1) + 2) + 3, so x̄ = g."""
    text = """<ir_version: 7, opset_import: ["": 11]>
        g (float[1] x) => (float[1] y, float[3, 1] all) <int64 three = {3}, bool yes = {1}, int64 one = {1}> {
            y, all = Loop (three, yes, x)
            <body = b (int64 i, bool go, float[1] v) => (bool more, float[1] u, float[1] s) {
                more = Identity(go)
                numbers = Constant <value = float[3] {1, 2, 3}> ()
                end = Add(i, one)
                first = Unsqueeze <axes = [0]> (i)
                last = Unsqueeze <axes = [0]> (end)
                term = Slice(numbers, first, last)
                u = Add(v, term)
                s = Mul(u, u)
            }>
        }"""
    model = prepare(load(onnx.parser.parse_model(text)).model)
    (x,), (y, squares) = model.graph.inputs, model.graph.outputs
    forward, seeds = list(model.graph), {}
    for value in (y, squares):
        seeds[value] = ir.val(f"g_{value.name}", dtype=value.dtype, shape=value.shape)
    model.graph.inputs.extend(seeds.values())
    (found,) = pull_back(Builder(model.graph), forward, seeds, [x])
    model.graph.outputs.append(found)
    fed = {"x": np.ones(1, np.float32), "g_y": np.full(1, 10, np.float32), "g_all": np.ones((3, 1), np.float32)}
    assert run(model, fed, [found.name or ""])[found.name or ""].item() == 10 + 2 * (2 + 4 + 7)
