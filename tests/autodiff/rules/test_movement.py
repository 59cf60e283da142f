from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back, with_gradients

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder

RNG = np.random.default_rng(17)
END = 2**63 - 1
IMAGE = (2, 3, 7, 5)
BATCH = (0, 1)  # the symbolic axes, where a rule must know the lengths of the others


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def one(op_type: str, id: str, x: tuple[int, ...], *rest: np.ndarray | None, **form: Any) -> Case:
    """A case on one tensor; the other inputs are constants."""
    engine = {k: form.pop(k) for k in ("opset", "outputs", "free", "ort") if k in form}
    constants = tuple(1 + i for i, array in enumerate(rest) if array is not None)
    return Case(op_type, [tensor(*x), *rest], form, constants=constants, id=id, **engine)


SHAPES = [
    one("Reshape", "merge", IMAGE, ints(2, -1, 5)),
    one("Reshape", "copy", IMAGE, ints(0, 0, -1)),
    one("Reshape", "split", (6, 4), ints(2, 3, 2, 2)),
    one("Reshape", "batch", (2, 3, 4), ints(-1, 12), free=(0,)),
    replace(one("Reshape", "computed", (2, 6), ints(3, 4)), constants=()),
    one("Reshape", "allowzero", (2, 6), ints(3, 4), allowzero=1),
    one("Flatten", "default", IMAGE),
    one("Flatten", "axis-2", IMAGE, axis=2),
    one("Flatten", "axis-0", IMAGE, axis=0),
    one("Flatten", "axis-last", IMAGE, axis=-1),
    one("Flatten", "batch", (2, 3, 1, 1), free=(0,)),
    one("Squeeze", "axes", (2, 1, 3, 1), ints(1, -1)),
    one("Squeeze", "all", (1, 3, 1), free=(1,)),
    one("Unsqueeze", "axes", (2, 3), ints(0, -1)),
    one("Transpose", "default", (2, 3, 4)),
    one("Transpose", "perm", IMAGE, perm=[2, 0, 3, 1]),
    one("Expand", "leading", (3, 1), ints(2, 3, 4)),
    one("Expand", "both-ways", (3, 4), ints(2, 1, 1)),
    replace(one("Expand", "computed", (3, 1), ints(2, 1, 4), free=(1,)), constants=()),
    one("Tile", "three-axes", (2, 3, 4), ints(2, 1, 3)),
    one("Tile", "once", (2, 3), ints(1, 1)),
    one("Tile", "line", (3,), ints(4)),
    replace(one("Tile", "computed", (2, 3, 4), ints(2, 1, 3)), constants=()),
    one("DepthToSpace", "dcr", (2, 12, 2, 3), blocksize=2),
    one("DepthToSpace", "crd", (2, 12, 2, 3), blocksize=2, mode="CRD"),
    one("DepthToSpace", "crd-3", (1, 18, 2, 1), blocksize=3, mode="CRD", free=(0, 2)),
    one("SpaceToDepth", "by-2", (2, 3, 4, 6), blocksize=2),
    one("SpaceToDepth", "by-3", (1, 2, 3, 6), blocksize=3, free=(0,)),
    one("SpaceToDepth", "dcr", (2, 3, 4, 6), blocksize=2, mode="DCR", opset=28),
    one("SpaceToDepth", "crd", (2, 3, 4, 6), blocksize=2, mode="CRD", opset=28),
]
JOINTS = [
    Case("Concat", [tensor(2, 3, 4), tensor(2, 1, 4), tensor(2, 2, 4)], {"axis": -2}, (0, 1, 2), id="negative-axis"),
    Case("Concat", [tensor(2, 3), tensor(4, 3)], {"axis": 0}, (0, 1), id="first-axis"),
    Case("Concat", [tensor(2, 3), tensor(2, 5)], {"axis": 1}, (0, 1), free=(0,), id="batch"),
    Case("Concat", [tensor(2, 3)], {"axis": 0}, id="alone"),
    one("Split", "sizes", (2, 7), ints(2, 4, 1), axis=-1, outputs=3),
    one("Split", "sizes-first-axis", (7, 2), ints(2, 5), outputs=2),
    one("Split", "uneven-last", (7, 2), num_outputs=3, outputs=3),
    one("Split", "even", (2, 6, 2), num_outputs=2, axis=1, outputs=2),
    one("Split", "one", (7, 2), num_outputs=1, outputs=1),
]


def sliced(id: str, *limits: np.ndarray | None, x: tuple[int, ...] = IMAGE, **engine: Any) -> Case:
    return one("Slice", id, x, *limits, **engine)


SLICES = [
    sliced("step-1", ints(1), ints(5), ints(2)),
    sliced("no-axes", ints(0, 1, 1), ints(2, 3, 4)),
    sliced("from-the-end", ints(-4), ints(-1), ints(2)),
    sliced("clamped", ints(1, -9), ints(END, 99), ints(-2, 3)),
    sliced("axes-out-of-order", ints(1, 2), ints(4, END), ints(3, 2)),
    sliced("steps", ints(1, 0), ints(END, END), ints(-2, -1), ints(2, 3)),
    sliced("step-beyond", ints(2), ints(END), ints(3), ints(9)),
    sliced("last", ints(6), ints(7), ints(2)),
    sliced("space-to-depth", ints(0, 1), ints(END, END), ints(2, 3), ints(2, 2), x=(1, 2, 4, 6)),
    sliced("reverse", ints(-1), ints(-END), ints(2), ints(-1), free=BATCH),
    sliced("negative-steps", ints(5, 4), ints(0, -END), ints(2, 3), ints(-2, -3), free=BATCH),
    replace(sliced("computed", ints(1), ints(5), ints(2)), constants=(3,)),
    replace(sliced("computed-from-the-end", ints(-4, 1), ints(-1, 5), ints(2, 3), ints(1, 2)), constants=(3, 4)),
    replace(sliced("computed-int32", *[ints(n).astype(np.int32) for n in (-3, 9, 1)]), constants=(3,)),
    replace(sliced("computed-clamped", ints(-20), ints(3), ints(2)), constants=(3,)),
    sliced("reverse-any", ints(-1), ints(-END), ints(2), ints(-1)),
    sliced("negative-steps-any", ints(5, 4), ints(0, -END), ints(2, 3), ints(-2, -3)),
    sliced("negative-step-past-the-end", ints(END, 3), ints(-END, 1), ints(2, 3), ints(-3, -1)),
    replace(sliced("computed-backwards", ints(-2, 9), ints(0, -9), ints(2, 3), ints(-2, -3)), constants=(3, 4)),
    replace(sliced("computed-axes", ints(1, -3), ints(5, END), ints(2, -1), ints(2, 1)), constants=(1, 2, 4)),
    replace(sliced("computed-steps", ints(1, -1), ints(5, -END), ints(2, 3), ints(2, -2)), constants=(1, 2, 3)),
    replace(sliced("computed-all", ints(1), ints(5), ints(2), ints(3)), constants=()),
    replace(sliced("computed-without-axes", ints(1, 0), ints(2, 3), free=(1, 2, 3)), constants=()),
]
PADS = [
    one("Pad", "constant", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), np.array(2.5)),
    one("Pad", "channels", IMAGE, ints(0, 1, 0, 0, 0, 2, 0, 0)),
    one("Pad", "axes", IMAGE, ints(1, 2, 0, 4), None, ints(-1, 1)),
    one("Pad", "negative", IMAGE, ints(0, 0, -1, 2, 0, 0, 3, -2)),
    replace(one("Pad", "computed", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0)), constants=()),
    replace(one("Pad", "computed-negative", IMAGE, ints(-1, 2, 3, -2), None, ints(2, 3)), constants=(3,)),
    *[
        one("Pad", mode, IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), mode=mode, opset=19, free=BATCH)
        for mode in ("reflect", "edge", "wrap")
    ],
    one("Pad", "reflect-axes", IMAGE, ints(1, 2), None, ints(-1), mode="reflect", free=BATCH),
    one("Pad", "edge-channels", (2, 3, 4, 5), ints(1, 2), None, ints(1), mode="edge", free=(0,)),
    one("Pad", "edge-batch", (2, 3), ints(1, 0, 2, 1), mode="edge", free=()),
    replace(one("Pad", "computed-axes", IMAGE, ints(1, -2, 0, 2), None, ints(-1, 2)), constants=(1,)),
    *[
        case
        for mode in ("reflect", "edge", "wrap")
        for case in (
            one("Pad", f"{mode}-any-size", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), mode=mode, opset=19),
            one("Pad", f"{mode}-negative", IMAGE, ints(-2, 1, 3, -2), None, ints(2, 3), mode=mode, opset=19),
            replace(
                one("Pad", f"{mode}-computed", IMAGE, ints(2, 1, 3, -2), None, ints(2, 3), mode=mode, opset=19),
                constants=(3,),
            ),
            replace(
                one("Pad", f"{mode}-computed-axes", IMAGE, ints(2, 1, 3, -2), None, ints(2, 3), mode=mode, opset=19),
                constants=(1,),
            ),
        )
    ],
    Case("Pad", [tensor(2, 3), ints(1, 0, 2, -1), np.array(1.5)], {}, (0, 2), (1,), id="value"),
    Case("Pad", [tensor(2, 3), ints(-1, 2), np.array(1.5), ints(1)], {}, (0, 2), id="value-computed"),
    Case("Pad", [tensor(2, 3), ints(1, 2), np.array(1.5), ints(1)], {"mode": "edge"}, (2,), (1, 3), id="value-unused"),
]
CASES = [*SHAPES, *JOINTS, *SLICES, *PADS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.outputs == 1 and "computed" not in c.id][::3], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


TWINS = {
    "Reshape-merge": lambda torch, x, *_: x.reshape(2, -1, 5),
    "Transpose-perm": lambda torch, x: x.permute(2, 0, 3, 1),
    "Expand-leading": lambda torch, x, _: x.expand(2, 3, 4),
    "Tile-three-axes": lambda torch, x, _: x.tile(2, 1, 3),
    "DepthToSpace-crd": lambda torch, x: torch.nn.functional.pixel_shuffle(x, 2),
    "SpaceToDepth-crd": lambda torch, x: torch.nn.functional.pixel_unshuffle(x, 2),
    "Slice-space-to-depth": lambda torch, x, *_: x[:, :, ::2, 1::2],
    "Slice-negative-steps": lambda torch, x, *_: x.flip(2)[:, :, 1:6:2].flip(3)[..., ::3],
    "Pad-reflect": lambda torch, x, _: torch.nn.functional.pad(x, (2, 0, 1, 3), mode="reflect"),
    "Pad-edge": lambda torch, x, _: torch.nn.functional.pad(x, (2, 0, 1, 3), mode="replicate"),
    "Pad-wrap": lambda torch, x, _: torch.nn.functional.pad(x, (2, 0, 1, 3), mode="circular"),
    "Pad-constant": lambda torch, x, *_: torch.nn.functional.pad(x, (2, 0, 1, 3), value=2.5),
    "Concat-negative-axis": lambda torch, *xs: torch.cat(xs, -2),
}


@pytest.mark.parametrize("name", TWINS)
def test_torch(name: str) -> None:
    (case,) = [c for c in CASES if str(c) == name]
    check_torch(case, TWINS[name])


@pytest.mark.parametrize(
    ("case", "g", "expected"),
    [
        (sliced("", ints(1), ints(END), ints(0), ints(2), x=(5,)), [7, 8], [0, 7, 0, 8, 0]),
        (sliced("", ints(-1), ints(-END), ints(0), ints(-2), x=(5,)), [7, 8, 9], [9, 0, 8, 0, 7]),
        (sliced("", ints(2), ints(2), ints(0), x=(3,)), [], [0, 0, 0]),
        (one("Tile", "", (2,), ints(3)), [1, 2, 3, 4, 5, 6], [9, 12]),
        (one("Pad", "", (3,), ints(2, 1), mode="reflect"), [1, 2, 3, 4, 5, 6], [3, 12, 6]),
        (one("Pad", "", (3,), ints(2, 1), mode="edge"), [1, 2, 3, 4, 5, 6], [6, 4, 11]),
        (one("Pad", "", (3,), ints(1, -2)), [1, 2], [2, 0, 0]),
        (one("Expand", "", (1, 2), ints(3, 2)), [[1, 2], [3, 4], [5, 6]], [[9, 12]]),
    ],
)
def test_known_elements(case: Case, g: Any, expected: list[float]) -> None:
    for form in ({"dtype": "float64"}, {}, {"dtype": "float16"}):
        np.testing.assert_array_equal(pulled_back(case, g, **form)[0], np.array(expected))


def test_concat_gives_each_input_its_part() -> None:
    case = Case("Concat", [np.zeros(2), np.zeros(1), np.zeros(3)], {"axis": -1}, (0, 1, 2))
    for dynamic in (False, True):
        found = pulled_back(case, [1, 2, 3, 4, 5, 6], dynamic=dynamic)
        assert [list(x) for x in found] == [[1, 2], [3], [4, 5, 6]]


def gradient(graph: str, g: list[float], seeded: str) -> np.ndarray:
    """∂⟨g, seeded⟩/∂x of a graph in ONNX's textual form, whose input is x, at x = 0."""
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> case {graph}'))
    nodes, values = list(model.graph), ir.convenience.create_value_mapping(model.graph)
    y, x, op = values[seeded], values["x"], Builder(model.graph)
    y.dtype, y.shape = x.dtype, ir.Shape([len(g)])
    (found,) = pull_back(op, nodes, {y: op.array(np.array(g, np.float32))}, [x])
    model.graph.outputs[:] = [found]
    (result,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": np.zeros(3, np.float32)})
    return np.asarray(result)


def test_the_same_input_twice() -> None:
    found = gradient("(float[3] x) => (float[6] y) { y = Concat<axis=0>(x, x) }", [1, 2, 3, 4, 5, 6], "y")
    np.testing.assert_array_equal(found, [5, 7, 9])


@pytest.mark.parametrize("length", ["3", "n"])
def test_a_split_with_an_output_off_the_path(length: str) -> None:
    """Zeros for what the score does not read, of another length too."""
    parts = "(float[%s] x) => (float[2] y, float[1] z) { s = Constant<value_ints=[2, 1]>() y, z = Split<axis=0>(x, s) }"
    np.testing.assert_array_equal(gradient(parts % length, [4, 5], "y"), [4, 5, 0])
    np.testing.assert_array_equal(gradient(parts % length, [6], "z"), [0, 0, 6])


def emitted(case: Case, dynamic: bool = False) -> list[str]:
    model = with_gradients(case, np.dtype("float32"), dynamic)
    return [n.op_type for n in model.graph if (n.name or "").startswith("grad/") and n.op_type != "Identity"]


def test_a_symbolic_batch_needs_no_shape_at_run_time() -> None:
    for id in ("Reshape-batch", "Flatten-batch", "Concat-batch", "SpaceToDepth-by-3"):
        (case,) = [c for c in CASES if str(c) == id]
        assert "Shape" not in emitted(case, dynamic=True)
        assert emitted(case, dynamic=True) == emitted(case)


def test_places_are_scattered_only_where_axes_or_steps_are_computed() -> None:
    for case in [*SLICES, *PADS]:
        computed = case.id.endswith(("computed-axes", "computed-steps", "computed-all"))
        copies = case.op_type == "Slice" or case.id.split("-")[0] in ("reflect", "edge", "wrap")
        for dynamic in (False, True):
            assert ("ScatterElements" in emitted(case, dynamic)) == bool(computed and copies), case.id


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize(("target", "axes"), [((5, 6), [1, 2]), ((3, 8), [-2, -1]), ((2, 7, 3), None)])
def test_center_crop_pad_goes_through_its_body(target: tuple[int, ...], axes: list[int] | None, computed: bool) -> None:
    form = {} if axes is None else {"axes": axes}
    check_vjp(Case("CenterCropPad", [tensor(2, 5, 6), ints(*target)], form, constants=() if computed else (1,)))


def test_an_empty_slice_of_an_axis_of_unknown_length() -> None:
    for step in (1, 2, -1, -3):
        case = sliced("", ints(2), ints(2), ints(0), ints(step), x=(4,))
        np.testing.assert_array_equal(pulled_back(case, [], dynamic=True)[0], np.zeros(4))
