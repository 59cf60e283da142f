"""Small networks with maps: heat maps, masks, several streams, steps of readers; and what an expert takes of them.

``MAPS`` says for each network which heads it has, what is explained first before the others, and the layers of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from dense_kinds import CLASSES, SIZES, columns, number, pyramid, two_more
from nets import Net

Outputs = dict[str, list[int | str] | None]


class Head(NamedTuple):
    """The outputs of a head, and how many classes it has on how many levels; ``gated``: with an objectness."""

    outputs: str
    classes: int
    levels: int = 1
    gated: bool = False


class Maps(NamedTuple):
    """A network, what an expert takes for its heads, the layers of the first, and the image where there are two."""

    write: Callable[[Net], Outputs]
    heads: tuple[Head, ...]
    layers: tuple[str, ...] = ("neck0",)
    image: str | None = None


def enlarged(net: Net, x: str, factor: int, out: str = "", mode: str = "nearest") -> str:
    """Resize a map by a factor."""
    return net.op("Resize", x, "", net.array(np.array([1, 1, factor, factor], np.float32)), out=out, mode=mode)


def squashed(net: Net, x: str, width: int, out: str) -> None:
    """A map of 8 channels, through a convolution and a Sigmoid."""
    net.op("Sigmoid", net.conv(x, (8, width), out=f"{out}_logits"), out=out)


def keypoint_centernet(net: Net) -> Outputs:
    """Heat maps of objects and of their joints, beside sizes and offsets of two columns."""
    x = pyramid(net)[0]
    for name, width in (("wh", 2), ("hps", 34), ("reg", 2), ("hp_offset", 2)):
        net.conv(x, (8, width), out=name)
    squashed(net, x, 1, "hm")
    squashed(net, x, 17, "hm_hp")
    widths = {"hm": 1, "wh": 2, "hps": 34, "reg": 2, "hm_hp": 17, "hp_offset": 2}
    return {name: [1, width, 8, 8] for name, width in widths.items()}


def corners(net: Net) -> Outputs:
    """Heat maps of two corners on one grid, with tags and offsets."""
    x, outputs = pyramid(net)[0], Outputs()
    for corner in ("tl", "br"):
        squashed(net, x, CLASSES, f"{corner}_heat")
        net.conv(x, (8, 1), out=f"{corner}_tag")
        net.conv(x, (8, 2), out=f"{corner}_off")
        outputs |= {f"{corner}_{n}": [1, w, 8, 8] for n, w in (("heat", CLASSES), ("tag", 1), ("off", 2))}
    return outputs


def peaks(net: Net) -> Outputs:
    """Heat maps of which a 3 × 3 maximum leaves the peaks."""
    x = pyramid(net)[0]
    squashed(net, x, CLASSES, "heat")
    largest = net.op("MaxPool", "heat", kernel_shape=[3, 3], pads=[1] * 4)
    net.op("Mul", "heat", net.op("Cast", net.op("Equal", "heat", largest), to=onnx.TensorProto.FLOAT), out="hm")
    net.conv(x, (8, 2), out="wh")
    return {"hm": [1, CLASSES, 8, 8], "wh": [1, 2, 8, 8]}


def picked_peaks(net: Net) -> Outputs:
    """The five best peaks of all classes: their scores, classes and sizes."""
    peaks(net)
    net.ops("TopK", net.op("Reshape", "hm", net.ints(1, -1)), net.ints(5), out=["scores", "places"])
    net.op("Cast", net.op("Div", "places", net.ints(64)), to=onnx.TensorProto.FLOAT, out="classes")
    sizes = net.op("Reshape", net.op("Transpose", "wh", perm=[0, 2, 3, 1]), net.ints(1, 64, 2))
    cells = net.op("Unsqueeze", net.op("Mod", "places", net.ints(64)), net.ints(2))
    net.op("GatherElements", sizes, net.op("Expand", cells, net.ints(1, 5, 2)), axis=1, out="sizes")
    return {"scores": [1, 5], "classes": [1, 5], "sizes": [1, 5, 2]}


def masks_of_queries(net: Net) -> Outputs:
    """Raw logits of the classes of queries, and of no object, beside a mask for each query."""
    x, deep = pyramid(net)
    tokens = net.op("Transpose", net.op("Reshape", deep, net.ints(1, 8, 16)), perm=[0, 2, 1])
    queries = net.array(np.random.default_rng(0).standard_normal((1, 6, 8)).astype(np.float32))
    shares = net.op("Softmax", net.op("MatMul", queries, net.op("Transpose", tokens, perm=[0, 2, 1])), axis=-1)
    y = net.op("Add", queries, net.op("MatMul", shares, tokens))
    net.op("Add", net.op("MatMul", y, net.random(8, CLASSES + 1)), net.random(CLASSES + 1), out="class_logits")
    embedded = net.op("MatMul", y, net.random(8, 8))
    net.op("Einsum", embedded, net.conv(x, (8, 8)), equation="bqc,bchw->bqhw", out="mask_logits")
    return {"class_logits": [1, 6, CLASSES + 1], "mask_logits": [1, 6, 8, 8]}


def fine_points(net: Net) -> Outputs:
    """A Softmax over the 4 × 4 places of each cell and none, of which the places become the pixels of a fine map."""
    p = net.op("Softmax", net.conv(pyramid(net)[0], (8, 17), kernel=1, out="point_logits"), axis=1)
    p = net.op("Slice", p, net.ints(0), net.ints(16), net.ints(1))
    p = net.op("Reshape", net.op("Transpose", p, perm=[0, 2, 3, 1]), net.ints(1, 8, 8, 4, 4))
    net.op("Reshape", net.op("Transpose", p, perm=[0, 1, 3, 2, 4]), net.ints(1, 32, 32), out="scores")
    return {"scores": [1, 32, 32]}


def stages(net: Net) -> Outputs:
    """Raw heat maps of two stages on one grid."""
    x = pyramid(net)[0]
    for k in range(2):
        net.conv(x, (8, 16), kernel=1, out=f"hm{k}")
        x = net.op("Relu", net.conv(x, (8, 8)))
    return {f"hm{k}": [1, 16, 8, 8] for k in range(2)}


def side_outputs(net: Net) -> Outputs:
    """Masks of several depths and of all of them, each in the size of the image."""
    fine, coarse = pyramid(net)
    each = [net.conv(enlarged(net, x, factor), (8, 1)) for x, factor in ((fine, 4), (coarse, 8))]
    fused = net.conv(net.op("Concat", *each, axis=1), (2, 1), kernel=1)
    for k, x in enumerate([fused, *each]):
        net.op("Sigmoid", x, out=f"d{k}")
    return {f"d{k}": [1, 1, 32, 32] for k in range(3)}


def text_map(net: Net) -> Outputs:
    """A score of text beside distances and an angle, which pass through a Sigmoid and are scaled."""
    x = pyramid(net)[0]
    squashed(net, x, 1, "score")
    distances = net.op("Mul", net.op("Sigmoid", net.conv(x, (8, 4), kernel=1)), net.array(number(512)))
    turned = net.op("Sub", net.op("Sigmoid", net.conv(x, (8, 1), kernel=1)), net.array(number(0.5)))
    net.op("Concat", distances, net.op("Mul", turned, net.array(number(3.14))), axis=1, out="geo")
    return {"score": [1, 1, 8, 8], "geo": [1, 5, 8, 8]}


def prototypes(net: Net) -> Outputs:
    """Boxes, classes and mask coefficients of two levels, and prototypes of masks behind a SiLU."""
    parts = {name: [] for name in ("box", "cls", "mask")}
    for k, x in enumerate(pyramid(net)):
        for name, width in (("box", 4), ("cls", CLASSES), ("mask", 32)):
            y = net.conv(x, (8, width), kernel=1, out=f"{name}{k}")
            parts[name].append(net.op("Reshape", y, net.ints(1, width, -1)))
    box, cls, mask = (net.op("Concat", *each, axis=2) for each in parts.values())
    net.op("Concat", net.op("Mul", box, net.array(number(8))), net.op("Sigmoid", cls), mask, axis=1, out="output0")
    y = net.conv("level0", (8, 32))
    net.op("Mul", y, net.op("Sigmoid", y), out="output1")
    return {"output0": [1, 4 + CLASSES + 32, 80], "output1": [1, 32, 8, 8]}


def mask_in_bytes(net: Net) -> Outputs:
    """A mask of 0 to 255."""
    y = net.op("Sigmoid", net.conv(enlarged(net, pyramid(net)[0], 4), (8, 1), out="logits"))
    net.op("Clip", net.op("Mul", y, net.array(number(255))), net.array(number(0)), net.array(number(255)), out="y")
    return {"y": [1, 1, 32, 32]}


def two_streams(net: Net) -> Outputs:
    """Two streams of a segmenter that meet in its logits."""
    x, ends = net.input("x", [1, 3, 32, 32]), []
    for k in range(2):
        y = net.op("Relu", net.conv(x, (3, 8), stride=2))
        y = net.op("Relu", net.conv(y, (8, 8), stride=2), out=f"end{k}")
        y = net.op("Conv", enlarged(net, y, 4), net.random(8, 8, 3, 3), pads=[1] * 4)
        ends.append(net.conv(net.op("Conv", y, net.random(8, 8, 3, 3), pads=[1] * 4), (8, 5), kernel=1))
    net.op("Softmax", net.op("Add", *ends, out="logits"), axis=1, out="y")
    return {"y": [1, 5, 32, 32]}


def gate_of_places(net: Net) -> Outputs:
    """A segmenter with a gate of one channel, which is made on a coarser grid than all features."""
    deep = pyramid(net)[1]
    pooled = net.op("MaxPool", deep, kernel_shape=[2, 2], strides=[2, 2])
    gate = net.op("Sigmoid", net.conv(net.op("Relu", net.conv(pooled, (8, 1))), (1, 1)))
    y = net.op("Mul", net.op("Relu", net.conv(deep, (8, 8)), out="features"), enlarged(net, gate, 2))
    y = net.op("Relu", net.conv(enlarged(net, y, 8), (8, 8)))
    net.op("Softmax", net.conv(y, (8, 5), out="logits"), axis=1, out="y")
    return {"y": [1, 5, 32, 32]}


def down_again(net: Net) -> Outputs:
    """A segmenter that goes down, up, and down again: the second value of lowest resolution depends on the first."""
    fine, deep = pyramid(net)
    up = net.op("Relu", net.conv(net.op("Concat", enlarged(net, deep, 2), fine, axis=1), (16, 8)))
    again = net.op("Add", net.op("Relu", net.conv(up, (8, 8), stride=2)), deep)
    again = net.op("Relu", net.conv(again, (8, 8)), out="again")
    y = net.op("Concat", enlarged(net, again, 2), up, axis=1)
    y = net.op("Relu", net.conv(y, (16, 8)))
    net.op("Softmax", net.conv(enlarged(net, y, 4), (8, 5), out="logits"), axis=1, out="y")
    return {"y": [1, 5, 32, 32]}


def gated(net: Net) -> Outputs:
    """YOLOv4: objectness × class of three anchors in each cell, beside boxes of an axis of their own."""
    boxes, scores = [], []
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        y = net.conv(x, (8, 3 * (5 + CLASSES)), kernel=1, out=f"head{k}")
        y = net.op("Reshape", y, net.ints(1, 3, 5 + CLASSES, side * side))
        gate, cls = (net.op("Sigmoid", columns(net, y, a, b, 2)) for a, b in ((4, 5), (5, 5 + CLASSES)))
        p = net.op("Transpose", net.op("Mul", cls, gate, out=f"p{k}"), perm=[0, 1, 3, 2])
        scores.append(net.op("Reshape", p, net.ints(1, 3 * side * side, CLASSES)))
        size = net.op("Mul", net.op("Exp", columns(net, y, 2, 4, 2)), net.array(number(0.1)))
        centre = net.op("Mul", net.op("Sigmoid", columns(net, y, 0, 2, 2)), net.array(number(0.2)))
        box = net.op("Transpose", net.op("Concat", centre, size, axis=2), perm=[0, 1, 3, 2])
        boxes.append(net.op("Reshape", box, net.ints(1, 3 * side * side, 1, 4)))
    net.op("Concat", *boxes, axis=1, out="boxes")
    net.op("Concat", *scores, axis=1, out="confs")
    return {"boxes": [1, 240, 1, 4], "confs": [1, 240, CLASSES]}


def tracker(net: Net) -> Outputs:
    """Classes and boxes of five anchors in each cell of a search image, where it is like a smaller template."""
    kernels = [net.random(8, 3, 3, 3), net.random(8, 8, 3, 3)]
    ends = []
    for name, side in (("template", 16), ("search", 32)):
        x = net.input(name, [1, 3, side, side])
        for k, kernel in enumerate(kernels):
            x = net.op("Relu", net.op("Conv", x, kernel, pads=[1] * 4, strides=[2, 2]), out=f"{name}{k}")
        ends.append(x)
    like = net.op("Conv", ends[1], net.op("Reshape", ends[0], net.ints(8, 1, 4, 4)), group=8, out="matched")
    x = net.op("Relu", net.conv(like, (8, 8)))
    net.conv(x, (8, 10), kernel=1, out="cls")
    net.conv(x, (8, 20), kernel=1, out="loc")
    return {"cls": [1, 10, 5, 5], "loc": [1, 20, 5, 5]}


def two_backbones(net: Net) -> Outputs:
    """Two streams of a detector whose logits are summed."""
    x, ends = net.input("x", [1, 3, 32, 32]), []
    for k in range(2):
        y = net.op("Relu", net.conv(x, (3, 8), stride=2))
        ends.append(two_more(net, net.op("Relu", net.conv(y, (8, 8), stride=2), out=f"end{k}"), k))
    y = net.op("Add", *(net.conv(end, (8, CLASSES), kernel=1) for end in ends), out="logits")
    box = net.op("Mul", net.op("Exp", net.conv(ends[0], (8, 4), kernel=1)), net.array(number(8)))
    net.op("Reshape", net.op("Sigmoid", y), net.ints(1, CLASSES, 64), out="scores")
    net.op("Reshape", box, net.ints(1, 4, 64), out="boxes")
    return {"scores": [1, CLASSES, 64], "boxes": [1, 4, 64]}


def with_texts(net: Net) -> Outputs:
    """Classes as products of what the levels hold with embedded texts, an input beside the image."""
    texts, scores, boxes = net.input("txt_feats", [1, CLASSES, 8]), [], []
    for k, x in enumerate(pyramid(net)):
        rows = net.op(
            "Transpose",
            net.op("Reshape", net.conv(x, (8, 8), kernel=1, out=f"embedded{k}"), net.ints(1, 8, -1)),
            perm=[0, 2, 1],
        )
        y = net.op("MatMul", rows, net.op("Transpose", texts, perm=[0, 2, 1]), out=f"products{k}")
        scores.append(net.op("Add", net.op("Mul", y, net.array(number(1.7))), net.array(number(-2))))
        boxes.append(net.op("Reshape", net.conv(x, (8, 4), kernel=1), net.ints(1, 4, -1)))
    net.op("Sigmoid", net.op("Concat", *scores, axis=1), out="scores")
    net.op("Mul", net.op("Concat", *boxes, axis=2), net.array(number(8)), out="boxes")
    return {"scores": [1, 80, CLASSES], "boxes": [1, 4, 80]}


def reader(net: Net, form: str) -> Outputs:
    """A reader of convolutions only: its last one along the steps, with a LogSoftmax or without, or before the mean."""
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 64]), (3, 8), stride=2))
    x = two_more(net, net.op("Relu", net.conv(x, (8, 8)), out="level0"), 0)
    if form == "mean of maps":
        net.op("ReduceMean", net.conv(x, (8, 7), kernel=1), net.ints(2), keepdims=0, out="y")
        return {"y": [1, 7, 32]}
    y = net.op("Conv", net.op("ReduceMean", x, net.ints(2), keepdims=0), net.random(7, 8, 1), net.random(7), out="raw")
    net.op(
        *(("LogSoftmax", y) if form == "squashed" else ("Identity", y)),
        out="y",
        **({"axis": 1} if form == "squashed" else {}),
    )
    return {"y": [1, 7, 32]}


def coarse(net: Net, detector: bool) -> Outputs:
    """A map of 2 × 2 before the scores of a detector or a segmenter."""
    x = two_more(net, net.op("Relu", net.conv(pyramid(net)[1], (8, 8), stride=2), out="coarse"), 2)
    if not detector:
        net.op("Softmax", net.conv(enlarged(net, x, 16), (8, 5), kernel=1), axis=1, out="y")
        return {"y": [1, 5, 32, 32]}
    net.op("Sigmoid", net.conv(x, (8, CLASSES), kernel=1), out="cls")
    net.op("Exp", net.conv(x, (8, 4), kernel=1), out="box")
    return {"cls": [1, CLASSES, 2, 2], "box": [1, 4, 2, 2]}


MAPS = {
    "centernet of joints": Maps(keypoint_centernet, (Head("hm", 1), Head("hm_hp", 17))),
    "cornernet": Maps(corners, (Head("tl_heat", 3), Head("br_heat", 3))),
    "peaks": Maps(peaks, (Head("hm", 3),)),
    "picked peaks": Maps(picked_peaks, (Head("scores,classes,sizes", 3),)),
    "masks of queries": Maps(masks_of_queries, (Head("class_logits", 4),), ("top1",)),
    "stages": Maps(stages, (Head("hm0", 16), Head("hm1", 16)), ("level0",)),
    "fine points": Maps(fine_points, (Head("scores", 16),), ("level0",)),
    "side outputs": Maps(side_outputs, (Head("d0", 1), Head("d1", 1), Head("d2", 1)), ("neck1",)),
    "text map": Maps(text_map, (Head("score", 1),)),
    "prototypes": Maps(prototypes, (Head("output0", 3, 2),), ("level0", "level1")),
    "mask in bytes": Maps(mask_in_bytes, (Head("y", 1),)),
    "two streams": Maps(two_streams, (Head("y", 5),), ("end0", "end1")),
    "gate of places": Maps(gate_of_places, (Head("y", 5),), ("top1",)),
    "down again": Maps(down_again, (Head("y", 5),), ("top1",)),
    "gated classes": Maps(gated, (Head("confs", 3, 2, True),), ("level0", "level1")),
    "tracker": Maps(tracker, (Head("cls", 2),), ("search1",), "search"),
    "two backbones": Maps(two_backbones, (Head("scores", 3),), ("end0", "end1")),
    "texts": Maps(with_texts, (Head("scores", 3, 2),), ("level0", "level1")),
    "reader": Maps(lambda net: reader(net, ""), (Head("y", 7),), ("level0",)),
    "reader, squashed": Maps(lambda net: reader(net, "squashed"), (Head("y", 7),), ("level0",)),
    "reader, mean of maps": Maps(lambda net: reader(net, "mean of maps"), (Head("y", 7),), ("level0",)),
    "coarse detector": Maps(lambda net: coarse(net, True), (Head("cls", 3),), ("coarse",)),
    "coarse segmenter": Maps(lambda net: coarse(net, False), (Head("y", 5),), ("coarse",)),
}
