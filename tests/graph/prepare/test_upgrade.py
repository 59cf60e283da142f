"""Whole models: real ones of old opsets against onnxruntime, and what must stay as it is."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from opsets import check_same, fed, i64, old_node, raised, random, run

from onnx_gradcam.graph.prepare.upgrade import raise_opset

LIGHT = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
# Inputs with dynamic dimensions, and one cut to a size that a test can afford.
SHAPES = {
    "geometric-shapes": (2, 1, 64, 64),
    "mesonet": (2, 256, 256, 3),
    "niivue-3d": (1, 1, 24, 24, 24),
    "ppocr-cls-v3": (2, 3, 48, 192),
    "stm-mobilenetv2-035-tfs": (2, 3, 128, 128),
    "winml-mnist": (1, 1, 28, 28),
}
X = random(2, 3, 4, 5)


def picture(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The input that is not a weight."""
    weights = {t.name for t in model.graph.initializer}
    return next(i for i in model.graph.input if i.name not in weights)


def check_raised(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Names stay; outputs are equal within 1e-5 of the largest one.

    In float16 the last place may differ: the CPU has no such kernels, and at opset 18 onnxruntime falls back
    on the function body of Relu instead of casting around it, so it rounds elsewhere. Its own optimisation
    levels do as much to the untouched model.
    """
    given, new = picture(model), raised(model)
    dtype = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    feeds = {given.name: np.random.default_rng(0).uniform(-2, 2, shape).astype(dtype)}
    assert [o.name for o in new.graph.output] == [o.name for o in model.graph.output]
    assert [i.name for i in new.graph.input] == [i.name for i in model.graph.input]
    assert value_names(model) - value_names(new) == masks(model)
    for before, after in zip(run(model, feeds), run(new, feeds), strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert before.size == 1 or np.ptp(before) > 0
        last_place = np.spacing(np.abs(before)) if before.dtype == np.float16 else 0
        difference = np.abs(after.astype(np.float64) - before)
        assert (difference <= 1e-5 * np.abs(before.astype(np.float64)).max() + last_place).all()


def value_names(model: onnx.ModelProto) -> set[str]:
    return {o for n in model.graph.node for o in n.output if o}


def masks(model: onnx.ModelProto) -> set[str]:
    return {o for n in model.graph.node if n.op_type == "Dropout" for o in n.output[1:]}


ZOO = [
    "deeplab-dm05",
    "fastestdet",
    "geometric-shapes",
    "mesonet",
    "nanodet-m-320",
    "niivue-3d",
    "ppocr-cls-v3",
    "shufflenetv2-int8",
    "sinet-softmax",
    "squeezenet-fp16",
    "squeezenet-fp32-from-fp16",
    "stm-mobilenetv2-035-tfs",
    "ultraface-320",
    "winml-mnist",
    "yolox-nano",
]


@pytest.mark.parametrize("name", ZOO)
def test_deployed_models_compute_the_same(zoo: pathlib.Path, name: str) -> None:
    model = onnx.load(zoo / "models" / f"{name}.onnx")
    replace_maps(model)
    dims = picture(model).type.tensor_type.shape.dim
    shape = SHAPES.get(name) or tuple(d.dim_value for d in dims)
    for dim in dims if name in SHAPES else ():
        dim.Clear()
    check_raised(model, shape)


def replace_maps(model: onnx.ModelProto) -> None:
    """Put what a ZipMap was given in place of the map that it makes, which is not a tensor."""
    for output in [o for o in model.graph.output if not o.type.HasField("tensor_type")]:
        producer = next(n for n in model.graph.node if output.name in n.output)
        model.graph.output.remove(output)
        model.graph.output.append(helper.make_empty_tensor_value_info(producer.input[0]))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_classic_architectures_compute_the_same(path: pathlib.Path) -> None:
    model = onnx.load(path)
    vary_weights(model)
    for node in model.graph.node:
        if node.op_type == "Softmax":
            model.graph.output.append(helper.make_empty_tensor_value_info(node.input[0]))
    check_raised(model, (1, 3, 224, 224))


def vary_weights(model: onnx.ModelProto) -> None:
    """Random numbers in place of the ConstantOfShape nodes that stand for weights; large ones repeat a block."""
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "ConstantOfShape"]:
        shape, name = tuple(int(d) for d in shapes[node.input[0]]), node.output[0]
        if len(shape) == 1:  # biases, and what normalisation needs: the variance is positive
            weights = rng.uniform(0.5, 1.5, shape)
        else:
            repeats = math.gcd(shape[1], 256) if math.prod(shape) > 3_000_000 else 1
            weights = rng.standard_normal((shape[0], shape[1] // repeats, *shape[2:]))
            weights *= np.sqrt(2 / math.prod(shape[1:]))
            if repeats > 1:
                times = np.array([1, repeats] + [1] * (len(shape) - 2))
                model.graph.initializer.append(numpy_helper.from_array(times, f"{name}/times"))
                node.CopyFrom(helper.make_node("Tile", [f"{name}/block", f"{name}/times"], [name]))
                name = f"{name}/block"
        if name == node.output[0]:
            model.graph.node.remove(node)
        model.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), name))


def parse(text: str, opset: int, ir_version: int = 7, **domains: int) -> onnx.ModelProto:
    imports = ", ".join(f'"{d}": {v}' for d, v in {"": opset, **domains}.items())
    return onnx.parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]>\n{text}")


def test_bodies_of_if_and_loop_are_raised() -> None:
    model = parse(
        """
        branches (float[2,3,4] x, bool flag, int64 count) => (float[2,3,4] y, float[2,3,4] z) {
            low = Clip <min: float = 0.0> (x)
            y = If (flag) <
                then_branch = then_body () => (float[2,3,4] t) {
                    s = Softmax <axis: int = 1> (x)
                    t = Clip <max: float = 0.1> (s)
                },
                else_branch = else_body () => (float[2,3,4] e) {
                    u = ReduceMax <axes: ints = [2]> (low)
                    e = Add (u, x)
                }
            >
            yes = Constant <value = bool {1}> ()
            z = Loop (count, yes, x) <
                body = loop_body (int64 i, bool go, float[2,3,4] a) => (bool on, float[2,3,4] b) {
                    on = Identity (go)
                    p = Pad <pads: ints = [0, 0, 1, 0, 0, 0], value: float = 2.0> (a)
                    b = Slice <axes: ints = [2], starts: ints = [0], ends: ints = [4]> (p)
                }
            >
        }
        """,
        opset=9,
    )
    new = raised(model)
    onnx.checker.check_model(new, full_check=True)
    for flag in (True, False):
        feeds = {"x": random(2, 3, 4), "flag": np.array(flag), "count": np.array(2, np.int64)}
        check_same(run(new, feeds), run(model, feeds))


def test_new_names_avoid_those_of_the_model() -> None:
    model = old_node("Clip", 10, [X], {"min": 0.0, "max": 1.0})
    for k in range(0, 40, 2):
        model.graph.node.append(helper.make_node("Identity", ["x0"], [f"opset18/const_{k}"]))
    new = raised(model)
    check_same(run(new, fed([X])), [X.clip(0, 1)])
    names = [t.name for t in new.graph.initializer] + [o for n in new.graph.node for o in n.output]
    assert len(names) == len(set(names))


def test_foreign_nodes_stay_and_a_dtype_behind_them_need_not_be_known() -> None:
    text = """
        foreign (float[2,3,4] x) => (y) {
            g = com.microsoft.FastGelu (x)
            c = Clip <min: float = 0.0, max: float = 0.5> (g)
            y = Softmax <axis: int = 1> (c)
        }
        """
    model = parse(text, 9, **{"com.microsoft": 1, "ai.onnx.ml": 2})
    new = raised(model)
    assert new.graph.node[0] == model.graph.node[0]
    assert {o.domain: o.version for o in new.opset_import} == {"": 18, "com.microsoft": 1, "ai.onnx.ml": 2}
    feeds = {"x": random(2, 3, 4)}
    check_same(run(new, feeds), run(model, feeds))


def test_a_foreign_operator_of_the_same_name_stays() -> None:
    model = parse(
        "same (float[2] x) => (float[2] y) { y = my.domain.Clip <min: float = 0.0> (x) }", 7, **{"my.domain": 1}
    )
    assert raised(model).graph.node[0] == model.graph.node[0]


def test_shapes_of_inner_values_are_inferred_where_they_are_not_declared() -> None:
    text = """
        inner (float[2,3,4,1] x) => (float[2,3,1,1] y) {
            m = ReduceMax <axes: ints = [2]> (x)
            c = Clip <min: float = 0.0> (m)
            y = Softmax (c)
        }
        """
    assert [n.op_type for n in raised(parse(text, 9)).graph.node] == ["ReduceMax", "Clip", "Softmax"]


def test_operators_that_onnx_does_not_know_stay() -> None:
    model = old_node("EfficientNMS_TRT", 11, [X, X], {"score_threshold": 0.25}, outputs=4)
    assert raised(model).graph.node[0] == model.graph.node[0]


@pytest.mark.parametrize("opset", [18, 19, 21])
def test_newer_models_stay_as_they_are(opset: int) -> None:
    model = old_node("ReduceMax", opset, [X], constants=[i64(1)])
    copy = ir.from_proto(model)
    before = ir.to_proto(copy)
    raise_opset(copy)
    assert ir.to_proto(copy) == before


def test_raising_twice_changes_nothing_more() -> None:
    once = raised(old_node("Softmax", 7, [X]))
    assert raised(once) == once


def test_the_type_of_a_graph_output_stays() -> None:
    model = parse("typed (float[2,3] x) => (float[2,3] y) { y = Hardmax (x) }", 7, ir_version=3)
    new = raised(model)
    assert new.graph.output == model.graph.output
    assert new.graph.input == model.graph.input
    assert new.ir_version == 8
