"""One check for every VJP rule: finite differences in float64, ONNX Runtime in float32, static and dynamic shapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnx_gradcam.autodiff.registry import RULES, find
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.lowering.table import is_lowered, lower
from onnx_gradcam.graph.prepare.inference import infer
from onnx_gradcam.jobs.cuda_kernels import without_kernel

# OPERATORS.md, "Safe core set", and the few more that rules may emit; what is not here lacks a kernel on some provider.
SAFE = frozenset(
    "Add Sub Mul Div Neg Exp Log Erf Sqrt Reciprocal Tanh Sigmoid Pow Clip Greater Less Equal Not Cast Where MatMul "
    "Gemm Conv ConvTranspose AveragePool ReduceSum ReduceMean ReduceMax Reshape Transpose Slice Split Concat Pad "
    "Expand Resize Gather Squeeze Unsqueeze Abs Identity MaxPool".split()
)
SHAPE_ARITHMETIC = frozenset(
    "Shape NonZero Range Constant ConstantOfShape Max Min Mod CumSum Size".split()
)  # int64 only
# What the rules of single operators emit besides.
BESIDE = {
    # nothing else adds at places that are known at run time only; constant ones are written with Gather
    "Gather": "ScatterElements",
    "GatherElements": "ScatterElements",
    "GatherND": "ScatterElements GatherND",
    # only where axes or steps, or with the former borders that copy, are not constant
    "Slice": "ScatterElements",
    "Pad": "ScatterElements",
    # their places differ, so that nothing is added: providers have ScatterElements without a reduction
    "TopK": "ScatterElements",
    "ScatterElements": "ScatterElements GatherElements",
    "ScatterND": "ScatterND GatherND ScatterElements",
    # the derivative is the other one; the transform of frames is that of each
    "Sin": "Cos",
    "Cos": "Sin",
    "STFT": "DFT",
    # a length that is known at run time only; the body, which repeats activations, falls back to the CPU in places
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "Scan Relu LeakyRelu ThresholdedRelu HardSigmoid Elu Softsign Softplus"),
    "If": "If",
    # where the model's own node has a kernel, so has the one of its rule
    **{name: name for name in "CumProd CumSum DFT Det Einsum OneHot ReduceProd ReverseSequence Trilu".split()},
    # places between elements are rounded; what is read there is added back
    "MaxUnpool": "ScatterElements",  # of numbers, none of which is added
    "RoiAlign": "ScatterElements GatherElements Floor Ceil",
    "DeformConv": "ScatterElements GatherElements Floor",
    "MaxRoiPool": "Floor Ceil",
    "GridSample": "ScatterElements GatherElements Floor Round",
}


@dataclass(frozen=True)
class Case:
    """One operator with concrete inputs.

    ``inputs``: float64 (or integer) arrays, None for an omitted optional input. ``wrt``: the inputs to differentiate.
    ``constants``: positions of inputs that are initializers. Everything else is a graph input.
    ``typed``: positions of inputs that keep their own dtype. ``free``: the axes of graph inputs that have symbolic
    lengths in the dynamic check; None: all.
    """

    op_type: str
    inputs: Sequence[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    wrt: Sequence[int] = (0,)
    constants: Sequence[int] = ()
    typed: Sequence[int] = ()
    free: Sequence[int] | None = None
    outputs: int = 1
    opset: int = 18
    id: str = ""
    step: float = 1e-6
    tolerance: float = 1e-6
    ort: bool = True

    def __str__(self) -> str:
        return f"{self.op_type}-{self.id}" if self.id else self.op_type


def forward_model(case: Case, dtype: np.dtype[Any], dynamic: bool) -> onnx.ModelProto:
    """The operator alone, as a model with outputs y0, y1, …"""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(case.inputs)]
    arrays = {n: _typed_input(case, i, dtype) for i, n in enumerate(names) if n}
    constants = {f"x{i}" for i in case.constants}
    free = range(99) if case.free is None else case.free

    def info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
        dims = [f"{name}_{k}" if dynamic and k in free else d for k, d in enumerate(array.shape)]
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), dims)

    ys = [f"y{i}" for i in range(case.outputs)]
    node = onnx.helper.make_node(case.op_type, names, ys, name="the_node", **case.attributes)
    graph = onnx.helper.make_graph(
        [node],
        "case",
        [info(n, a) for n, a in arrays.items() if n not in constants],
        [onnx.ValueInfoProto(name=y) for y in ys],
        [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if n in constants],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", case.opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def with_gradients(
    case: Case, dtype: np.dtype[Any], dynamic: bool, cotangents: Mapping[str, np.ndarray] | None = None
) -> ir.Model:
    """The model plus inputs g0 (cotangent of y0), … and outputs grad0, … for every input of ``wrt``.

    The cotangents are of the outputs' shapes, or of the shapes that ``cotangents`` has.
    """
    model = ir.from_proto(forward_model(case, dtype, dynamic))
    infer(model)
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    nodes = list(graph)
    op = Builder(graph)
    seeds = {}
    for i in range(case.outputs):
        y = values[f"y{i}"]
        if y.dtype is None:  # shape inference does not know GroupNormalization, whose output is like its input
            y.dtype, y.shape = values["x0"].dtype, values["x0"].shape
        if y.dtype is not None and y.dtype.is_floating_point():
            shape = y.shape if cotangents is None else cotangents[f"g{i}"].shape
            seeds[y] = ir.val(f"g{i}", dtype=y.dtype, shape=shape)
            graph.inputs.append(seeds[y])
    gradients = pull_back(op, nodes, seeds, [values[f"x{i}"] for i in case.wrt])
    for i, gradient in zip(case.wrt, gradients, strict=True):
        out = op.Identity(gradient)
        out.name = f"grad{i}"
        out.dtype, out.shape = values[f"x{i}"].dtype, values[f"x{i}"].shape
        graph.outputs.append(out)
    return model


class Erf(OpRun):
    """The reference evaluator's own Erf rounds to float32."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


def check_vjp(case: Case, *, seed: int = 0, reference_ops: Sequence[type] = ()) -> dict[int, np.ndarray]:
    """Assert that every gradient of ``case`` is right; returns them (float64, by input position).

    ⟨v, x̄⟩ is compared with ⟨g, (f(x + hv) − f(x − hv)) / 2h⟩ for five random v, in float64 on the reference
    evaluator; compact cotangents with their expansion; ONNX Runtime in float32 (optimisations off and on, static and
    dynamic shapes) with that result.
    """
    reference_ops = [Erf, *reference_ops]
    rng = np.random.default_rng(seed)
    evaluator = ReferenceEvaluator(forward_model(case, np.dtype("float64"), False), new_ops=list(reference_ops))
    fed = _feeds(case, np.dtype("float64"))
    ys = evaluator.run(None, fed)
    gs = {f"g{i}": rng.standard_normal(y.shape).astype(y.dtype) for i, y in enumerate(ys) if y.dtype.kind == "f"}
    model = with_gradients(case, np.dtype("float64"), False)
    lint(model)
    names = [f"grad{i}" for i in case.wrt]
    reference = ReferenceEvaluator(ir.to_proto(model), new_ops=list(reference_ops))
    gradients = dict(zip(case.wrt, reference.run(names, fed | gs), strict=True))
    for i in case.wrt:
        assert gradients[i].shape == np.shape(case.inputs[i])
        _finite_differences(case, evaluator, fed, gs, i, gradients[i], rng)
    for parity in (None, 0, 1):
        _check_compact(case, parity, fed, gs, reference, reference_ops)
    if case.ort:
        for dynamic in (False, True):
            _check_ort(case, dynamic, gs, gradients)
    return gradients


def _check_compact(case, parity, fed, gs, reference, reference_ops) -> None:  # type: ignore[no-untyped-def]
    """A cotangent of size 1 along all, the even or the odd axes gives what its expansion gives."""
    axes = {k: tuple(range(g.ndim) if parity is None else range(parity, g.ndim, 2)) for k, g in gs.items()}
    small = {k: g.mean(axis=axes[k], keepdims=True) for k, g in gs.items()}
    if all(small[k].shape == g.shape for k, g in gs.items()):
        return
    names = [f"grad{i}" for i in case.wrt]
    model = ir.to_proto(with_gradients(case, np.dtype("float64"), False, small))
    found = ReferenceEvaluator(model, new_ops=reference_ops).run(names, fed | small)
    expected = reference.run(names, fed | {k: np.broadcast_to(small[k], g.shape) for k, g in gs.items()})
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=f"{case}, compact cotangent {parity}")


def pulled_back(
    case: Case,
    *gs: np.ndarray,
    dtype: str = "float32",
    dynamic: bool = False,
    reference: bool = False,
    reference_ops: Sequence[type] = (),
) -> list[np.ndarray]:
    """The gradients of ``case`` for given cotangents of its outputs, for tests of exact values.

    float64 runs on the reference evaluator, the others on ONNX Runtime unless ``reference`` is set.
    """
    kind = np.dtype(dtype)
    model = with_gradients(case, kind, dynamic)
    lint(model)
    fed = _feeds(case, kind) | _typed(model, {f"g{i}": np.asarray(g) for i, g in enumerate(gs)})
    names = [f"grad{i}" for i in case.wrt]
    if reference or kind == np.float64:
        found = ReferenceEvaluator(ir.to_proto(model), new_ops=[Erf, *reference_ops]).run(names, fed)
    else:
        found = _run_ort(ir.to_proto(model).SerializeToString(), names, fed, True)
    return [np.asarray(x) for x in found]


def check_float16(case: Case, *, tolerance: float = 4e-3, reference_ops: Sequence[type] = ()) -> None:
    """The graph in float16 gives what float64 gives at the same (rounded) inputs and cotangent.

    On ONNX Runtime, whose CPU kernels compute in float32, and on the reference evaluator, which rounds every node.
    """
    half = np.dtype("float16")
    inputs = [
        x if x is None or i in case.typed else _cast(_cast(x, half), np.dtype("float64"))
        for i, x in enumerate(case.inputs)
    ]
    rounded = replace(case, inputs=inputs)
    rng = np.random.default_rng(0)
    wide = np.dtype("float64")
    evaluator = ReferenceEvaluator(forward_model(rounded, wide, False), new_ops=[Erf, *reference_ops])
    ys = evaluator.run(None, _feeds(rounded, wide))
    gs = [rng.standard_normal(y.shape).astype(half).astype(wide) for y in ys if y.dtype.kind == "f"]
    exact = pulled_back(rounded, *gs, dtype="float64", reference_ops=reference_ops)
    for reference in (False, True):
        with np.errstate(all="ignore"):  # of the forward operators of the reference evaluator
            gradients = pulled_back(rounded, *gs, dtype="float16", reference=reference, reference_ops=reference_ops)
        for found, expected in zip(gradients, exact, strict=True):
            assert found.dtype == half
            scale = max(float(np.abs(expected).max(initial=0)), 1.0)
            name = f"{case}{', reference evaluator' if reference else ''}"
            np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0, err_msg=name)


def check_torch(
    case: Case, function: Callable[..., Any], *, tolerance: float = 1e-9, reference_ops: Sequence[type] = ()
) -> None:
    """The gradients in float64 are those of torch autograd through ``function(torch, *inputs)``, kinks included."""
    torch = pytest.importorskip("torch", reason="torch: not installed")
    tensors = [None if x is None else torch.tensor(x) for x in case.inputs]
    for i in case.wrt:
        tensors[i].requires_grad_()
    y = function(torch, *tensors)
    g = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(torch.tensor(g))
    for i, found in zip(case.wrt, pulled_back(case, g, dtype="float64", reference_ops=reference_ops), strict=True):
        expected = tensors[i].grad.numpy()
        scale = max(float(np.abs(expected).max(initial=0)), 1.0)
        np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0, err_msg=str(case))


def check_forward(case: Case, *, reference_ops: Sequence[type] = (), tolerance: float = 2e-5) -> None:
    """ONNX Runtime computes what the reference evaluator does with ``reference_ops``."""
    evaluator = ReferenceEvaluator(forward_model(case, np.dtype("float64"), False), new_ops=list(reference_ops))
    expected = evaluator.run(None, _feeds(case, np.dtype("float64")))
    data = forward_model(case, np.dtype("float32"), False).SerializeToString()
    names = [f"y{i}" for i in range(case.outputs)]
    for found, y in zip(_run_ort(data, names, _feeds(case, np.dtype("float32")), True), expected, strict=True):
        np.testing.assert_allclose(found, y, atol=tolerance, rtol=tolerance, err_msg=str(case))


def check_affine(case: Case, *, tolerance: float = 1e-5) -> None:
    """For an operator that is affine in its first input: ⟨g, y(x) − y(0)⟩ = ⟨x̄, x⟩, all of it on ONNX Runtime.

    The reference evaluator is not asked: what is transposed is what the runtime does.
    """
    feeds = _feeds(case, np.dtype("float32"))
    data = forward_model(case, np.dtype("float32"), False).SerializeToString()
    y, at_zero = (_run_ort(data, ["y0"], feeds | {"x0": s * feeds["x0"]}, True)[0].astype(float) for s in (1, 0))
    rng = np.random.default_rng(0)
    alone = replace(case, wrt=(0,))
    for _ in range(3):
        g = rng.standard_normal(y.shape)
        (found,) = pulled_back(alone, g)
        scale = max(float(np.linalg.norm(found)), 1.0)
        assert abs(np.vdot(g, y - at_zero) - np.vdot(found, feeds["x0"])) <= tolerance * scale, str(case)


def _brought_in(model: ir.Model) -> set[str]:
    """What the nodes without a rule are made of: where they have a kernel, so do these."""
    copy = model.clone()
    op = Builder(copy.graph)
    own = [node for node in copy.graph if not (node.name or "").startswith("grad/")]
    for node in itertools.chain(own, op.written):  # which grows
        if find(RULES, node, 0) is None and is_lowered(node):
            lower(op, node)
    return {node.op_type for node in op.written}


def lint(model: ir.Model) -> None:
    """Added nodes are standard, and of operators that every provider has; on CUDA in the types that they have here,
    where it takes the operator itself."""
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    added = [node for node in nodes if (node.name or "").startswith("grad/")]
    brought = _brought_in(model)
    forward = brought | {node.op_type for node in set(nodes).difference(added)}
    on_cuda = without_kernel([n for n in nodes if n not in added], model.graph.opset_imports) == ()
    own = brought | {also for op_type in forward for also in BESIDE.get(op_type, "").split()}
    for node in added:
        assert node.domain == ""
        integer = node.outputs[0].dtype in (ir.DataType.INT64, ir.DataType.BOOL)
        allowed = own | (SAFE | SHAPE_ARITHMETIC if integer else SAFE)
        assert node.op_type in allowed, f"{node.op_type} is not in the safe set"
        if on_cuda and node.op_type not in forward and not integer:
            assert without_kernel([node], model.graph.opset_imports) == (), "it would run on the CPU beside CUDA"
        if node.op_type == "ScatterND":
            assert "reduction" not in node.attributes, "onnxruntime's CPU kernel loses updates that share a place"
        if node.op_type == "ConvTranspose":
            pads = node.attributes["pads"].value if "pads" in node.attributes else []
            assert list(pads[: len(pads) // 2]) == list(pads[len(pads) // 2 :]), "asymmetric ConvTranspose"


def _finite_differences(case, evaluator, fed, gs, i, gradient, rng) -> None:  # type: ignore[no-untyped-def]
    name, h = f"x{i}", case.step
    if name not in fed:
        raise AssertionError("differentiate graph inputs, not constants")
    keys = [int(g[1:]) for g in gs]
    for _ in range(5):
        v = rng.standard_normal(fed[name].shape)
        plus = evaluator.run(None, fed | {name: fed[name] + h * v})
        minus = evaluator.run(None, fed | {name: fed[name] - h * v})
        numeric = sum(float(np.sum(gs[f"g{k}"] * (plus[k] - minus[k]))) for k in keys) / (2 * h)
        exact = float(np.sum(gradient * v))
        scale = max(abs(numeric), float(np.linalg.norm(gradient)), 1e-3)
        assert abs(numeric - exact) <= case.tolerance * scale, (str(case), i, numeric, exact)


def _check_ort(case: Case, dynamic: bool, gs: dict[str, np.ndarray], gradients: dict[int, np.ndarray]) -> None:
    model = with_gradients(case, np.dtype("float32"), dynamic)
    lint(model)
    fed = _feeds(case, np.dtype("float32")) | _typed(model, gs)
    data = ir.to_proto(model).SerializeToString()
    for optimized in (False, True):
        found = _run_ort(data, [f"grad{i}" for i in case.wrt], fed, optimized)
        for i, array in zip(case.wrt, found, strict=True):
            scale = max(float(np.abs(gradients[i]).max(initial=0)), 1.0)
            np.testing.assert_allclose(array / scale, gradients[i] / scale, atol=2e-5, rtol=0, err_msg=str(case))


def _run_ort(data: bytes, names: list[str], fed: dict[str, np.ndarray], optimized: bool) -> list[np.ndarray]:
    level = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    used = {x.name for x in session.get_inputs()}
    return list(session.run(names, {k: v for k, v in fed.items() if k in used}))


def _typed(model: ir.Model, gs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The cotangents in the dtypes of the graph inputs that take them."""
    return {
        v.name: gs[v.name].astype(v.dtype.numpy()) for v in model.graph.inputs if v.name in gs and v.dtype is not None
    }


def _feeds(case: Case, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    given = [i for i, x in enumerate(case.inputs) if x is not None and i not in case.constants]
    return {f"x{i}": _typed_input(case, i, dtype) for i in given}


def _typed_input(case: Case, i: int, dtype: np.dtype[Any]) -> np.ndarray:
    array = np.asarray(case.inputs[i])
    return array if i in case.typed else _cast(array, dtype)


def _cast(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(dtype) if array.dtype.kind == "f" else array
