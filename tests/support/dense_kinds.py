"""Small networks with the heads of detectors, segmenters and readers in the forms in which they are deployed.

Each has the input x (1, 3, 32, 32). ``KINDS`` says what an expert takes for the scores: how many classes, on how
many levels, whether there is an objectness, and the layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from deployed import quantize
from nets import Net
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

CLASSES = 3
SIZES = (8, 4)  # of the maps of two levels
FORMS = ("float16", "qdq", "qoperator", "dynamic")


class Kind(NamedTuple):
    """A network, and what an expert takes for its scores."""

    write: Callable[[Net], dict[str, list[int | str] | None]]
    classes: int
    levels: int = 1
    objectness: bool = False
    layers: tuple[str, ...] = ("level0", "level1")


def pyramid(net: Net) -> list[str]:
    """Two levels of 8 channels, with two convolutions on each before the heads."""
    x, levels = net.op("Relu", net.conv(net.input("x", [1, 3, 32, 32]), (3, 8), stride=2), out="stem"), list[str]()
    for k in range(2):
        x = net.op("Relu", net.conv(x, (8, 8), stride=2), out=f"level{k}")
        x = two_more(net, x, k)
        levels.append(x)
    return levels


def two_more(net: Net, x: str, level: int) -> str:
    """What a level has before its heads: with them a cell sees more than one kernel of what stands before it."""
    return net.op("Relu", net.conv(net.op("Relu", net.conv(x, (8, 8)), out=f"neck{level}"), (8, 8)), out=f"top{level}")


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def columns(net: Net, x: str, start: int, end: int, axis: int = -1) -> str:
    return net.op("Slice", x, net.ints(start), net.ints(end), net.ints(axis))


def anchors_last(net: Net, x: str, width: int, anchors: int = 1, out: str = "") -> str:
    """(1, A·W, H, W') → (1, H·W'·A, W), as anchor detectors lay out their boxes."""
    y = net.op("Transpose", x, perm=[0, 2, 3, 1])
    return net.op("Reshape", y, net.ints(1, -1, width), out=out)


def yolov5(net: Net, face: bool = False) -> dict[str, list[int | str] | None]:
    """One Sigmoid over all columns, boxes decoded behind it; ten numbers of landmarks of a face pass through none."""
    marks = 10 if face else 0
    width, parts = 5 + marks + CLASSES, []
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        y = net.op("Reshape", net.conv(x, (8, 2 * width), kernel=1, out=f"head{k}"), net.ints(1, 2, width, side, side))
        y = net.op("Transpose", y, perm=[0, 1, 3, 4, 2], out=f"raw{k}")
        grid = net.array(np.random.default_rng(k).uniform(0, side, (1, 2, side, side, 2)).astype(np.float32))
        if face:
            boxes_and_object = net.op("Sigmoid", columns(net, y, 0, 5))
            classes = net.op("Sigmoid", columns(net, y, 15, width))
            p = net.op("Concat", boxes_and_object, columns(net, y, 5, 15), classes, axis=-1)
            p = net.op("Add", p, net.array(np.zeros((1, 2, side, side, width), np.float32)))
        else:
            p = net.op("Sigmoid", y)
        xy = net.op("Mul", net.op("Add", columns(net, p, 0, 2), grid), net.array(number(4)))
        wh = net.op("Mul", net.op("Pow", columns(net, p, 2, 4), net.array(number(2))), net.array(number(16)))
        joined = [xy, wh, columns(net, p, 4, 5)]
        if face:
            scaled = [net.op("Mul", columns(net, p, 5 + 2 * m, 7 + 2 * m), net.array(number(4))) for m in range(5)]
            joined += [net.op("Add", s, grid) for s in scaled]
        p = net.op("Concat", *joined, columns(net, p, 5 + marks, width), axis=-1)
        parts.append(net.op("Reshape", p, net.ints(1, -1, width)))
    net.op("Concat", *parts, axis=1, out="y")
    return {"y": [1, 160, width]}


def yunet(net: Net) -> dict[str, list[int | str] | None]:
    """Class, objectness, boxes and landmarks of each level apart, one face for each cell."""
    outputs: dict[str, list[int | str] | None] = {}
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        for name, width in [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)]:
            y = net.conv(x, (8, width), kernel=1, out=f"{name}_head{k}")
            squashed = name in ("cls", "obj")
            y = anchors_last(net, y, width, out="" if squashed else f"{name}{k}")
            if squashed:
                net.op("Sigmoid", y, out=f"{name}{k}")
            outputs[f"{name}{k}"] = [1, side * side, width]
    return outputs


def scrfd(net: Net, batch: bool = True) -> dict[str, list[int | str] | None]:
    """Two anchors in each cell, one class; in some exports without an axis for the batch."""
    outputs: dict[str, list[int | str] | None] = {}
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        for name, width in [("score", 1), ("bbox", 4), ("kps", 10)]:
            y = net.op("Transpose", net.conv(x, (8, 2 * width), kernel=1, out=f"{name}_head{k}"), perm=[0, 2, 3, 1])
            dims = [1, 2 * side * side, width] if batch else [2 * side * side, width]
            y = net.op("Reshape", y, net.ints(*dims), out="" if name == "score" else f"{name}{k}")
            if name == "score":
                net.op("Sigmoid", y, out=f"{name}{k}")
            outputs[f"{name}{k}"] = list(dims)
    return outputs


def centernet(net: Net, squash: bool = True, classes: int = 1) -> dict[str, list[int | str] | None]:
    """A heat map beside two-column sizes and offsets."""
    x = pyramid(net)[0]
    net.conv(x, (8, 2), out="wh")
    net.conv(x, (8, 2), out="reg")
    net.conv(x, (8, classes), out="heat" if squash else "hm")
    if squash:
        net.op("Sigmoid", "heat", out="hm")
    return {"wh": [1, 2, 8, 8], "hm": [1, classes, 8, 8], "reg": [1, 2, 8, 8]}


def raw_v5(net: Net, anchors: int = 3, permuted: bool = False) -> dict[str, list[int | str] | None]:
    """Three anchors × (5 + K) for each level, as exported for other runtimes."""
    outputs: dict[str, list[int | str] | None] = {}
    width = 5 + CLASSES
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        y = net.conv(x, (8, anchors * width), kernel=1, out=f"head{k}" if permuted else f"out{k}")
        outputs[f"out{k}"] = [1, anchors * width, side, side]
        if permuted:
            y = net.op("Reshape", y, net.ints(1, anchors, width, side, side))
            net.op("Transpose", y, perm=[0, 1, 3, 4, 2], out=f"out{k}")
            outputs[f"out{k}"] = [1, anchors, side, side, width]
    return outputs


def squashed_v5(net: Net) -> dict[str, list[int | str] | None]:
    """The same with a Sigmoid over all, and boxes that nothing decodes."""
    outputs = raw_v5(net)
    for k in range(2):
        net.op("Sigmoid", f"out{k}", out=f"p{k}")
    return {name.replace("out", "p"): dims for name, dims in outputs.items()}


def raw_yolox(net: Net) -> dict[str, list[int | str] | None]:
    """Box, objectness and classes of each level from convolutions of their own, joined."""
    outputs: dict[str, list[int | str] | None] = {}
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        parts = [net.conv(x, (8, width), kernel=1) for width in (4, 1, CLASSES)]
        net.op("Concat", *parts, axis=1, out=f"out{k}")
        outputs[f"out{k}"] = [1, 5 + CLASSES, side, side]
    return outputs


def raw_v8(net: Net, bins: int = 16) -> dict[str, list[int | str] | None]:
    """4 × 16 bins of box distances, then the classes, for each level."""
    outputs: dict[str, list[int | str] | None] = {}
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        parts = [
            net.conv(x, (8, 4 * bins), kernel=1, out=f"box{k}"),
            net.conv(x, (8, CLASSES), kernel=1, out=f"cls{k}"),
        ]
        net.op("Concat", *parts, axis=1, out=f"out{k}")
        outputs[f"out{k}"] = [1, 4 * bins + CLASSES, side, side]
    return outputs


def raw_apart(net: Net, objectness: bool = True, bins: int = 1) -> dict[str, list[int | str] | None]:
    """Boxes, objectness and classes of each level as maps of their own."""
    outputs: dict[str, list[int | str] | None] = {}
    kinds = [("box", 4 * bins), *([("obj", 1)] if objectness else []), ("cls", CLASSES)]
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        for name, width in kinds:
            net.conv(x, (8, width), kernel=1, out=f"{name}{k}")
            outputs[f"{name}{k}"] = [1, width, side, side]
    return outputs


def end_to_end(net: Net, nms: bool = False) -> dict[str, list[int | str] | None]:
    """(1, 5, 6): box, score and class of the five best, which a TopK picks."""
    parts, boxes = [], []
    for k, x in enumerate(pyramid(net)):
        side = SIZES[k]
        parts.append(
            net.op("Reshape", net.conv(x, (8, CLASSES), kernel=1, out=f"cls{k}"), net.ints(1, CLASSES, side**2))
        )
        box = net.op("Reshape", net.conv(x, (8, 4), kernel=1, out=f"box{k}"), net.ints(1, 4, side**2))
        boxes.append(net.op("Mul", box, net.array(number(4))))
    p = net.op("Sigmoid", net.op("Concat", *parts, axis=2, out="logits"), out="p")
    box = net.op("Transpose", net.op("Concat", *boxes, axis=2), perm=[0, 2, 1])
    y = net.op("Transpose", p, perm=[0, 2, 1])
    best = net.op("ReduceMax", y, net.ints(2), keepdims=0)
    _, index = net.ops("TopK", best, net.ints(5), out=["best", "index"])
    wide = net.op("Expand", net.op("Unsqueeze", index, net.ints(2)), net.ints(1, 5, 4))
    many = net.op("Expand", net.op("Unsqueeze", index, net.ints(2)), net.ints(1, 5, CLASSES))
    boxes_kept = net.op("GatherElements", box, wide, axis=1)
    scores = net.op("GatherElements", y, many, axis=1)
    score = net.op("ReduceMax", scores, net.ints(2), keepdims=1)
    label = net.op("Cast", net.op("ArgMax", scores, axis=2, keepdims=1), to=TensorProto.FLOAT)
    net.op("Concat", boxes_kept, score, label, axis=2, out="dets")
    return {"dets": [1, 5, 6]}


def detr(net: Net, squash: str = "") -> dict[str, list[int | str] | None]:
    """Queries: raw logits of the classes (and of no object), beside boxes that pass through a Sigmoid."""
    x = pyramid(net)[1]
    tokens = net.op("Transpose", net.op("Reshape", x, net.ints(1, 8, 16)), perm=[0, 2, 1], out="memory")
    queries = net.array(np.random.default_rng(0).standard_normal((1, 6, 8)).astype(np.float32))
    shares = net.op("Softmax", net.op("MatMul", queries, net.op("Transpose", tokens, perm=[0, 2, 1])), axis=-1)
    y = net.op("Add", queries, net.op("MatMul", shares, net.op("MatMul", tokens, net.random(8, 8))), out="decoded")
    logits = net.op("MatMul", y, net.random(8, CLASSES + 2))
    net.op("Add", logits, net.random(CLASSES + 2), out="logits" if squash else "pred_logits")
    if squash:
        net.op(squash, "logits", out="pred_logits", **({"axis": 2} if squash == "Softmax" else {}))
    net.op("Sigmoid", net.op("Add", net.op("MatMul", y, net.random(8, 4)), net.random(4)), out="pred_boxes")
    outputs: dict[str, list[int | str] | None] = {"pred_logits": [1, 6, CLASSES + 2], "pred_boxes": [1, 6, 4]}
    return outputs


def ctc(net: Net) -> dict[str, list[int | str] | None]:
    """Convolutions only: (1, T, K), and T follows the width."""
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 32, "width"]), (3, 8), stride=2), out="stem")
    x = two_more(net, net.op("Relu", net.conv(x, (8, 8)), out="level0"), 0)
    y = net.op(
        "Transpose",
        net.conv(net.op("ReduceMean", x, net.ints(2), keepdims=1), (8, 7), kernel=1, out="head"),
        perm=[0, 3, 1, 2],
    )
    net.op("Squeeze", y, net.ints(3), out="steps")
    return {"steps": [1, "t", 7]}


def mask(net: Net) -> dict[str, list[int | str] | None]:
    """(1, 1, H, W) logits in the size of the image."""
    x = pyramid(net)[0]
    x = net.op("Resize", x, "", net.array(np.array([1, 1, 4, 4], np.float32)), mode="nearest")
    net.conv(net.op("Concat", x, "x", axis=1), (11, 1), out="mask")
    return {"mask": [1, 1, 32, 32]}


def model(write: Callable[[Net], dict[str, list[int | str] | None]]) -> onnx.ModelProto:
    """Return the network that ``write`` writes."""
    net = Net(seed=2)
    return net.model(write(net))


def open_sizes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network for images of any size, and any number of them."""
    for info in [*proto.graph.input, *proto.graph.output]:
        for k, dim in enumerate(info.type.tensor_type.shape.dim):
            if k != 1:
                dim.dim_param = "N" if k == 0 else f"{info.name}_{k}"
    return proto


def of_width(proto: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """Return the network for images of one width, where that is open."""
    for info in [*proto.graph.input, *proto.graph.output]:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == "width":
                dim.dim_value = width
            elif not dim.dim_value:
                dim.Clear()
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def channels_last(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network as converters from TensorFlow write it: image and maps with their channels last."""
    (image,) = proto.graph.input
    maps = [o for o in proto.graph.output if len(o.type.tensor_type.shape.dim) == 4]
    renamed = {o.name: f"{o.name}/first" for o in maps} | {image.name: f"{image.name}/first"}
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for info in [image, *maps]:
        dims = info.type.tensor_type.shape.dim
        moved = [dims[0].dim_value, dims[2].dim_value, dims[3].dim_value, dims[1].dim_value]
        for dim, size in zip(dims, moved, strict=True):
            dim.dim_value = size
    transpose = onnx.helper.make_node("Transpose", [image.name], [renamed[image.name]], perm=[0, 3, 1, 2])
    proto.graph.node.insert(0, transpose)
    back = [onnx.helper.make_node("Transpose", [renamed[o.name]], [o.name], perm=[0, 2, 3, 1]) for o in maps]
    proto.graph.node.extend(back)
    return proto


KINDS = {
    "yolov5": Kind(yolov5, 3, 2, True),
    "yolov5-face": Kind(lambda net: yolov5(net, face=True), 3, 2, True),
    "yunet": Kind(yunet, 1, 2, True),
    "scrfd": Kind(scrfd, 1, 2),
    "scrfd without a batch": Kind(lambda net: scrfd(net, batch=False), 1, 2),
    "centernet, one class": Kind(centernet, 1, 1, False, ("neck0",)),
    "centernet": Kind(lambda net: centernet(net, classes=3), 3, 1, False, ("neck0",)),
    "centernet, raw": Kind(lambda net: centernet(net, squash=False), 1, 1, False, ("neck0",)),
    "centernet of 3, raw": Kind(lambda net: centernet(net, squash=False, classes=3), 3, 1, False, ("neck0",)),
    "raw v5": Kind(raw_v5, 3, 2, True),
    "raw v5, permuted": Kind(lambda net: raw_v5(net, permuted=True), 3, 2, True),
    "squashed v5": Kind(squashed_v5, 3, 2, True),
    "raw yolox": Kind(raw_yolox, 3, 2, True),
    "raw v8": Kind(raw_v8, 3, 2),
    "raw, apart": Kind(raw_apart, 3, 2, True),
    "raw, apart, without objectness": Kind(lambda net: raw_apart(net, objectness=False), 3, 2),
    "raw, apart, distributions": Kind(lambda net: raw_apart(net, objectness=False, bins=16), 3, 2),
    "end to end": Kind(end_to_end, 3, 2),
    "detr": Kind(detr, 5, 1, False, ("top1",)),
    "detr with a Softmax": Kind(lambda net: detr(net, "Softmax"), 5, 1, False, ("top1",)),
    "detr with a Sigmoid": Kind(lambda net: detr(net, "Sigmoid"), 5, 1, False, ("top1",)),
    "ctc": Kind(ctc, 7, 1, False, ("level0",)),
    "mask": Kind(mask, 1, 1, False, ("neck0",)),
}


def deployed(name: str, form: str, folder: Path) -> onnx.ModelProto:
    """Return a network of ``KINDS`` in one of ``FORMS``."""
    return in_form(model(KINDS[name].write), form, folder)


def in_form(proto: onnx.ModelProto, form: str, folder: Path) -> onnx.ModelProto:
    """Return a network with inputs of fixed sizes in one of ``FORMS``."""
    before, after = folder / "float.onnx", folder / "deployed.onnx"
    onnx.save(proto, before)
    if form == "float16":
        logging.disable(logging.WARNING)
        made: onnx.ModelProto = convert_float_to_float16(onnx.load(before), keep_io_types=True)
        logging.disable(logging.NOTSET)
        return made
    rng = np.random.default_rng(1)
    sizes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in proto.graph.input}
    name = proto.graph.input[0].name
    calibration = rng.standard_normal((4, *sizes.pop(name)[1:])).astype(np.float32)
    others = {other: rng.standard_normal(shape).astype(np.float32) for other, shape in sizes.items()}
    quantize(before, after, form, name, calibration, others)
    return onnx.load(after)
