"""Loop and Scan in float64, of which onnx's reference evaluator runs the body only.

It puts what a Loop collects behind each other instead of along a new axis, and has Scan for axis 0 and forwards only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnx_gradcam.graph.flow import captured
from onnx_gradcam.verify.doubles import widen_body

Arrays = Sequence[np.ndarray | None]
Function = Callable[[Arrays], list[np.ndarray]]


def repeated(node: ir.Node, operators: Sequence[type[OpRun]]) -> Function:
    """Return a Loop or Scan as a function of its inputs and of what its body captures.

    Args:
        node: the Loop or Scan.
        operators: take the place of the evaluator's own.
    """
    assert node.graph is not None
    body = ir.serde.serialize_graph(node.attributes["body"].as_graph())
    widen_body(body)
    own, outer = [v.name for v in body.input], [v.name or "" for v in captured(node)]
    for value in [*body.input, *body.output]:
        value.ClearField("type")
    del body.value_info[:]
    body.input.extend(onnx.ValueInfoProto(name=name) for name in outer)
    opset = onnx.helper.make_opsetid("", node.graph.opset_imports[""])
    evaluator = ReferenceEvaluator(onnx.helper.make_model(body, opset_imports=[opset]), new_ops=list(operators))
    count = len(node.inputs)

    def run(arrays: Arrays) -> list[np.ndarray]:
        fixed = dict(zip(outer, arrays[count:], strict=True))

        def step(*given: np.ndarray | None) -> list[np.ndarray]:
            return [np.asarray(a) for a in evaluator.run(None, dict(zip(own, given, strict=True)) | fixed)]

        return (_loop if node.op_type == "Loop" else _scan)(node, step, arrays[:count])

    return run


Step = Callable[..., list[np.ndarray]]


def _loop(node: ir.Node, step: Step, arrays: Arrays) -> list[np.ndarray]:
    limit, going, *states = [*arrays, None, None][: max(len(arrays), 2)]
    collected: list[list[np.ndarray]] = [[] for _ in node.outputs[len(states) :]]
    turn, goes_on = 0, going is None or bool(going.item())
    while goes_on and (limit is None or turn < limit.item()):
        more, *results = step(np.array(turn), np.array(goes_on), *states)
        states = list(results[: len(states)])
        for values, array in zip(collected, results[len(states) :], strict=True):
            values.append(array)
        goes_on, turn = bool(more.item()), turn + 1
    return [np.asarray(v) for v in states] + [np.stack(values) for values in collected]


def _scan(node: ir.Node, step: Step, arrays: Arrays) -> list[np.ndarray]:
    attributes = node.attributes
    count = attributes.get_int("num_scan_inputs", 0)
    states, inputs = list(arrays[:-count]), [np.asarray(a) for a in arrays[-count:]]
    results = len(node.outputs) - len(states)
    axes, turned = (attributes.get_ints(f"scan_input_{k}", [0] * count) for k in ("axes", "directions"))
    moved = [np.moveaxis(x, axis, 0) for x, axis in zip(inputs, axes, strict=True)]
    slices = [x[::-1] if backwards else x for x, backwards in zip(moved, turned, strict=True)]
    collected: list[list[np.ndarray]] = [[] for _ in range(results)]
    for now in zip(*slices, strict=True):
        made = step(*states, *now)
        states = list(made[: len(states)])
        for values, array in zip(collected, made[len(states) :], strict=True):
            values.append(array)
    axes, turned = (attributes.get_ints(f"scan_output_{k}", [0] * results) for k in ("axes", "directions"))
    ordered = [values[::-1] if backwards else values for values, backwards in zip(collected, turned, strict=True)]
    stacked = [np.stack(values, axis) for values, axis in zip(ordered, axes, strict=True)]
    return [np.asarray(v) for v in states] + stacked
