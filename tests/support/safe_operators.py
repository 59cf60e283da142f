"""Which operators a gradient may be made of, so that every provider has them."""

from __future__ import annotations

import contextlib
import itertools

import onnx_ir as ir

from onnx_gradcam.autodiff.registry import RULES, find
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import is_lowered, lower
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


def _brought_in(model: ir.Model) -> set[str]:
    """What the nodes without a rule are made of: where they have a kernel, so do these."""
    copy = model.clone()
    op = Builder(copy.graph)
    own = [node for node in copy.graph if not (node.name or "").startswith("grad/")]
    for node in itertools.chain(own, op.written):  # which grows
        if find(RULES, node, 0) is None and is_lowered(node):
            with contextlib.suppress(Unlowered):  # a Range by its body, whose length the run decides
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
