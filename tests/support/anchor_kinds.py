"""Small detectors with several anchors in each cell, or maps of their own for boxes and classes, as they are deployed.

``ANCHORED`` says for each what an expert takes for its scores, and computes the logits of all cells, (P, K), from what
the untouched model returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from dense_kinds import CLASSES, SIZES, anchors_last, columns, number, pyramid
from nets import Net

Outputs = dict[str, list[int | str] | None]
Results = dict[str, np.ndarray]


class Anchored(NamedTuple):
    """A network, and what an expert takes for its scores; ``logits``: of all classes (P, K), ``gate``: (P, 1)."""

    write: Callable[[Net], Outputs]
    classes: int
    levels: int
    logits: Callable[[Results], np.ndarray]
    gate: Callable[[Results], np.ndarray] | None = None


def rows(y: np.ndarray, anchors: int = 1) -> np.ndarray:
    """(1, A·K, H, W) → (A·H·W, K)."""
    return y.reshape(anchors, y.shape[1] // anchors, -1).transpose(0, 2, 1).reshape(-1, y.shape[1] // anchors)


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p.astype(np.float64) / (1 - p.astype(np.float64)))


def maps(net: Net, widths: dict[str, int], anchors: tuple[int, int] = (1, 1), squash: str = "") -> Outputs:
    """For each level a map of A · width columns for each name; that called ``squash`` passes through a Sigmoid."""
    outputs: Outputs = {}
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        for name, width in widths.items():
            made = anchors[k] * width
            y = net.conv(x, (8, made), kernel=1, out=f"{name}_head{k}" if name == squash else f"{name}{k}")
            if name == squash:
                net.op("Sigmoid", y, out=f"{name}{k}")
            outputs[f"{name}{k}"] = [1, made, side, side]
    return outputs


def joined(net: Net, widths: dict[str, int], anchors: tuple[int, int] = (2, 2), squash: str = "") -> Outputs:
    """The anchors of all levels behind one another, an output for each name."""
    levels = list(enumerate(pyramid(net)))
    count = anchors[0] * 64 + anchors[1] * 16
    for name, width in widths.items():
        parts = [anchors_last(net, net.conv(x, (8, anchors[k] * width), kernel=1), width) for k, x in levels]
        y = net.op("Concat", *parts, axis=1, out=f"{name}_logits" if name == squash else name)
        if name == squash:
            net.op("Sigmoid", y, out=name)
    return {name: [1, count, width] for name, width in widths.items()}


def decoded(net: Net, centre: bool) -> Outputs:
    """Raw classes beside boxes that arithmetic made, and a raw centre-ness."""
    outputs: Outputs = {}
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        net.conv(x, (8, CLASSES), kernel=1, out=f"cls{k}")
        net.op("Mul", net.op("Exp", net.conv(x, (8, 4), kernel=1)), net.array(number(8)), out=f"reg{k}")
        outputs |= {f"cls{k}": [1, CLASSES, side, side], f"reg{k}": [1, 4, side, side]}
        if centre:
            net.conv(x, (8, 1), kernel=1, out=f"centerness{k}")
            outputs[f"centerness{k}"] = [1, 1, side, side]
    return outputs


def with_kernels(net: Net) -> Outputs:
    """The same with kernels of dynamic masks on each level, and features of masks."""
    outputs = decoded(net, False)
    for k, (x, side) in enumerate(zip(("level0", "level1"), SIZES, strict=True)):
        net.conv(x, (8, 20), kernel=1, out=f"kernel{k}")
        outputs[f"kernel{k}"] = [1, 20, side, side]
    return outputs


def one_level(net: Net, width: int, last: bool = False) -> Outputs:
    """One map of anchors × (4 + 1 + K) columns."""
    y = net.conv(pyramid(net)[1], (8, width), kernel=1, out="head" if last else "y")
    if last:
        net.op("Transpose", y, perm=[0, 2, 3, 1], out="y")
    return {"y": [1, 4, 4, width] if last else [1, width, 4, 4]}


def rows_of_anchors(net: Net) -> Outputs:
    """Raw boxes, objectness and classes of three anchors in each cell, all cells behind one another."""
    parts, width = [], 5 + CLASSES
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        y = net.conv(x, (8, 3 * width), kernel=1, out=f"head{k}")
        y = net.op("Transpose", net.op("Reshape", y, net.ints(1, 3, width, side, side)), perm=[0, 1, 3, 4, 2])
        parts.append(net.op("Reshape", y, net.ints(1, -1, width)))
    net.op("Concat", *parts, axis=1, out="y")
    return {"y": [1, 240, width]}


def assigned(net: Net, by_rows: bool) -> Outputs:
    """A face detector: a Sigmoid over some columns, assigned to a tensor of zeros, and boxes and points over them.

    Exporters write the indices of single entries, or put the columns first and write rows.
    """
    width, parts = 15 + CLASSES, []
    squashed = [*range(5), *range(15, width)]
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        y = net.op("Reshape", net.conv(x, (8, 2 * width), kernel=1, out=f"head{k}"), net.ints(1, 2, width, side, side))
        y = net.op("Transpose", y, perm=[0, 1, 3, 4, 2])
        whole = net.op("ConstantOfShape", net.ints(1, 2, side, side, width))
        grid = net.array(np.random.default_rng(k).uniform(0, side, (1, 2, side, side, 2)).astype(np.float32))
        p = net.op("Sigmoid", net.op("Gather", y, net.ints(*squashed), axis=4))
        whole = assign(net, whole, squashed, p, side, by_rows)
        whole = assign(net, whole, range(5, 15), columns(net, y, 5, 15), side, by_rows)
        for start in (0, 2, *range(5, 15, 2)):
            scaled = net.op("Mul", columns(net, whole, start, start + 2), net.array(number(4)))
            moved = net.op("Add", scaled, grid) if start != 2 else net.op("Mul", scaled, scaled)
            whole = assign(net, whole, range(start, start + 2), moved, side, by_rows)
        parts.append(net.op("Reshape", whole, net.ints(1, -1, width)))
    net.op("Concat", *parts, axis=1, out="y")
    return {"y": [1, 160, width]}


def assign(net: Net, whole: str, places: Sequence[int], values: str, side: int, by_rows: bool) -> str:
    """Write ``values`` over the columns ``places`` of (1, 2, side, side, columns)."""
    if not by_rows:
        cells = np.meshgrid([0], range(2), range(side), range(side), list(places), indexing="ij")
        return net.op("ScatterND", whole, net.array(np.stack(cells, -1).astype(np.int64)), values)
    first, back = [4, 0, 1, 2, 3], [1, 2, 3, 4, 0]
    rows = [net.op("Transpose", v, perm=first) for v in (whole, values)]
    index = net.array(np.array(places, np.int64)[:, None])
    return net.op("Transpose", net.op("ScatterND", rows[0], index, rows[1]), perm=back)


def masks_of_v5(net: Net) -> Outputs:
    """YOLOv5 with masks: a Sigmoid for each of centre, size, and objectness with classes; coefficients of masks."""
    width, parts = 5 + CLASSES + 8, []
    for k, (x, side) in enumerate(zip(pyramid(net), SIZES, strict=True)):
        y = net.op("Reshape", net.conv(x, (8, 3 * width), kernel=1, out=f"head{k}"), net.ints(1, 3, width, side, side))
        y = net.op("Transpose", y, perm=[0, 1, 3, 4, 2])
        names = [f"{name}{k}" for name in ("xy", "wh", "conf", "mask")]
        xy, wh, conf, mask = net.ops("Split", y, net.ints(2, 2, 1 + CLASSES, 8), out=names, axis=4)
        grid = net.array(np.random.default_rng(k).uniform(0, side, (1, 3, side, side, 2)).astype(np.float32))
        xy = net.op("Mul", net.op("Add", net.op("Sigmoid", xy), grid), net.array(number(8)))
        wh = net.op("Mul", net.op("Pow", net.op("Sigmoid", wh), net.array(number(2))), net.array(number(16)))
        y = net.op("Concat", xy, wh, net.op("Sigmoid", conf), mask, axis=4)
        parts.append(net.op("Reshape", y, net.ints(1, -1, width)))
    net.op("Concat", *parts, axis=1, out="y")
    return {"y": [1, 240, width]}


def texts_in_weights(net: Net) -> Outputs:
    """Classes as products of what the levels hold with embedded texts, which the file has as weights."""
    texts, scores, boxes = net.random(CLASSES, 8), [], []
    for k, x in enumerate(pyramid(net)):
        y = net.op("Einsum", net.conv(x, (8, 8), kernel=1, out=f"embedded{k}"), texts, equation="bchw,kc->bkhw")
        y = net.op("Add", net.op("Mul", y, net.array(number(1.7))), net.array(number(-2)))
        scores.append(net.op("Reshape", y, net.ints(1, CLASSES, -1)))
        boxes.append(net.op("Reshape", net.conv(x, (8, 4), kernel=1), net.ints(1, 4, -1)))
    box = net.op("Mul", net.op("Concat", *boxes, axis=2), net.array(number(8)))
    net.op("Concat", box, net.op("Sigmoid", net.op("Concat", *scores, axis=2)), axis=1, out="y")
    return {"y": [1, 4 + CLASSES, 80]}


def levels(name: str, anchors: tuple[int, int] = (1, 1)) -> Callable[[Results], np.ndarray]:
    return lambda out: np.concatenate([rows(out[f"{name}{k}"], anchors[k]) for k in range(2)])


def of_one_level(anchors: int, first: int, end: int | None, last: bool = False) -> Callable[[Results], np.ndarray]:
    return lambda out: rows(out["y"].transpose(0, 3, 1, 2) if last else out["y"], anchors)[:, first:end]


def faces(out: Results) -> np.ndarray:
    return logit(out["y"][0, :, 15:])


def gates(out: Results) -> np.ndarray:
    return logit(out["y"][0, :, 4:5])


SSD = (4, 6)
ANCHORED = {
    "ssd": Anchored(lambda n: maps(n, {"a": 3, "b": 4}, SSD), 3, 2, levels("a", SSD)),
    "ssd, named": Anchored(lambda n: maps(n, {"loc": 4, "conf": 2}, (2, 2)), 2, 2, levels("conf", (2, 2))),
    "ssd, equal columns": Anchored(lambda n: maps(n, {"conf": 4, "loc": 4}, SSD), 4, 2, levels("conf", SSD)),
    "retinanet": Anchored(lambda n: maps(n, {"a": 3, "b": 4}, (9, 9)), 3, 2, levels("a", (9, 9))),
    "retinanet, squashed": Anchored(
        lambda n: maps(n, {"a": 3, "b": 4}, (9, 9), "a"), 3, 2, lambda out: logit(levels("a", (9, 9))(out))
    ),
    "four classes of three anchors, squashed": Anchored(
        lambda n: maps(n, {"b": 4, "a": 4}, (3, 3), "a"), 4, 2, lambda out: logit(levels("a", (3, 3))(out))
    ),
    "four classes, joined and squashed": Anchored(
        lambda n: joined(n, {"b": 4, "a": 4}, squash="a"), 4, 2, lambda out: logit(out["a"][0])
    ),
    "joined": Anchored(lambda n: joined(n, {"a": 3, "b": 4}), 3, 2, lambda out: out["a"][0]),
    "joined, equal columns": Anchored(
        lambda n: joined(n, {"boxes": 4, "scores": 4}), 4, 2, lambda out: out["scores"][0]
    ),
    "one class and points": Anchored(
        lambda n: joined(n, {"regressors": 16, "classificators": 1}, (2, 6)), 1, 2, lambda out: out["classificators"][0]
    ),
    "one class, boxes and points": Anchored(
        lambda n: joined(n, {"a": 1, "b": 4, "c": 10}), 1, 2, lambda out: out["a"][0]
    ),
    "fcos": Anchored(lambda n: decoded(n, True), 3, 2, levels("cls"), levels("centerness")),
    "rtmdet": Anchored(lambda n: decoded(n, False), 3, 2, levels("cls")),
    "rtmdet with masks": Anchored(with_kernels, 3, 2, levels("cls")),
    "yolov2": Anchored(lambda n: one_level(n, 125), 20, 1, of_one_level(5, 5, None), of_one_level(5, 4, 5)),
    "yolov2, channels last": Anchored(
        lambda n: one_level(n, 125, True), 20, 1, of_one_level(5, 5, None, True), of_one_level(5, 4, 5, True)
    ),
    "one level of yolov3": Anchored(
        lambda n: one_level(n, 255), 80, 1, of_one_level(3, 5, None), of_one_level(3, 4, 5)
    ),
    "assigned entries": Anchored(
        lambda n: assigned(n, False),
        3,
        2,
        lambda out: logit(out["y"][0, :, 15:]),
        lambda out: logit(out["y"][0, :, 4:5]),
    ),
    "assigned rows": Anchored(
        lambda n: assigned(n, True),
        3,
        2,
        lambda out: logit(out["y"][0, :, 15:]),
        lambda out: logit(out["y"][0, :, 4:5]),
    ),
    "yolov5 with masks": Anchored(masks_of_v5, 3, 2, lambda out: logit(out["y"][0, :, 5:8]), gates),
    "texts in the weights": Anchored(texts_in_weights, 3, 2, lambda out: logit(out["y"][0, 4:].T)),
    "rows of anchors": Anchored(rows_of_anchors, 3, 2, lambda out: out["y"][0, :, 5:], lambda out: out["y"][0, :, 4:5]),
}
