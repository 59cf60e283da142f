"""How many windows a pool has: onnxruntime's count, on which onnx's shape inference is wrong in places.

Before opset 22 it counts a last window of ceil_mode that would start in the padding; with SAME padding it takes the
dilated kernel, where onnxruntime takes the bare one.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
SAME = ("SAME_UPPER", "SAME_LOWER")


def same_pads(size: int, kernel: int, stride: int, auto_pad: str) -> tuple[int, int]:
    """Return the padding before and after ⌈size / stride⌉ centred windows; odd padding has one more at the end (UPPER)
    or the beginning (LOWER)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    return before, total - before


def window_count(size: int, pads: tuple[int, int], reach: int, stride: int, *, rounds_up: bool) -> int:
    """Return how many windows of ``reach`` + 1 elements there are; with ceil_mode none starts in the padding at the
    end."""
    room = size + sum(pads) - reach - 1
    count = (-(-room // stride) if rounds_up else room // stride) + 1
    return count - 1 if rounds_up and (count - 1) * stride >= size + pads[0] else count


@dataclass(frozen=True)
class Line:
    """The windows along one spatial axis: how many, and pads between which they fit without ceil_mode.

    ``given``: the padding at the end as the node has it.
    """

    count: int
    before: int
    after: int
    given: int


def last_pad(size: int, pads: tuple[int, int], reach: int, stride: int, count: int) -> int:
    """Return the padding at the end with which ``count`` windows fit without ceil_mode: the given one, if they do."""
    needed = (count - 1) * stride + reach + 1 - size - pads[0]
    return min(max(pads[1], needed), needed + stride - 1)


def make_explicit(node: ir.Node) -> bool:
    """Give a pool whose output shape inference gets wrong the pads that say the same without ceil_mode or auto_pad.

    onnxruntime infers shapes as onnx does, and fails to load where a gradient then does not fit. Returns whether the
    node was such a pool; one that counts padding and overhangs it cannot be said otherwise and stays.
    """
    lines, y = _lines(node), node.outputs[0]
    found = [] if y.shape is None else list(y.shape)[2:]
    if not any(isinstance(d, int) and d != line.count for d, line in zip(found, lines, strict=False)):
        return False
    if node.attributes.get_int("count_include_pad", 0) and any(line.after > line.given for line in lines):
        return False
    pads = [line.before for line in lines] + [line.after for line in lines]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    for name in ("auto_pad", "ceil_mode"):
        node.attributes.pop(name, None)
    return True


def _lines(node: ir.Node) -> list[Line]:
    """Return the windows of a pool of known size that shape inference may misread; empty for all others."""
    x, given = node.inputs[0] if node.inputs else None, node.attributes
    if node.op_type not in POOLS or node.domain != "" or x is None or x.shape is None:
        return []
    kernel = given.get_ints("kernel_shape", ())
    n, auto_pad, rounds_up = len(kernel), given.get_string("auto_pad", "NOTSET"), bool(given.get_int("ceil_mode", 0))
    strides, dilations = given.get_ints("strides", (1,) * n), given.get_ints("dilations", (1,) * n)
    sizes = [d for d in list(x.shape)[2:] if isinstance(d, int)]
    if len(sizes) != n or not (rounds_up or (auto_pad in SAME and max(dilations) > 1)):
        return []
    written = given.get_ints("pads", (0,) * 2 * n) if auto_pad == "NOTSET" else (0,) * 2 * n
    found = []
    for j, size in enumerate(sizes):
        pads, reach, stride = (written[j], written[n + j]), dilations[j] * (kernel[j] - 1), strides[j]
        if auto_pad in SAME:
            pads = same_pads(size, kernel[j], stride, auto_pad)
        count = window_count(size, pads, reach, stride, rounds_up=rounds_up)
        found.append(Line(count, pads[0], last_pad(size, pads, reach, stride, count), pads[1]))
    return found
