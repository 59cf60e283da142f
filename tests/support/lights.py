"""A detector of lights, so small that its boxes are computed by hand, and a scene with four of them."""

from __future__ import annotations

import numpy as np
import onnx
from nets import Net

CELL, ROWS, COLUMNS = 8, 6, 8
HEIGHT, WIDTH = ROWS * CELL, COLUMNS * CELL


def lights() -> onnx.ModelProto:
    """Rows (N, 4 + 1 + 2, P): boxes of 12 × 12 about each cell, an objectness, and two classes.

    It sees light in a cell: objectness 8·b − 4 for the brightness b, class 0 from red (6·r − 3), class 1 from blue.
    """
    net = Net()
    net.input("x", ["N", 3, HEIGHT, WIDTH])
    per_channel = np.zeros((3, 3, CELL, CELL), np.float32)
    for c in range(3):
        per_channel[c, c] = 1 / CELL**2
    cells = net.op("Relu", net.op("Conv", "x", net.array(per_channel), strides=[CELL, CELL]), out="cells")

    def linear(weights: list[list[float]], bias: list[float]) -> str:
        w = net.array(np.array(weights, np.float32)[:, :, None, None])
        return net.op("Conv", cells, w, net.array(np.array(bias, np.float32)))

    y, x = np.mgrid[:ROWS, :COLUMNS] + 0.5
    centre = np.stack([x * CELL, y * CELL]).astype(np.float32)[None]
    xy = net.op("Add", linear([[0, 0, 0]] * 2, [0, 0]), net.array(centre))
    wh = linear([[0, 0, 0]] * 2, [12, 12])
    gate = net.op("Sigmoid", linear([[8, 0, 8]], [-4]))
    classes = net.op("Sigmoid", linear([[6, 0, 0], [0, 0, 6]], [-3, -3]))
    maps = net.op("Concat", xy, wh, gate, classes, axis=1)
    flat = net.op("Reshape", maps, net.ints(0, 7, ROWS * COLUMNS), out="found")
    return net.model({flat: ["N", 7, ROWS * COLUMNS]})


def scene(*spots: tuple[int, int, int, float]) -> np.ndarray:
    """(1, 3, H, W), black, with cells (row, column) lit in a channel."""
    x = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    for row, column, channel, value in spots:
        x[0, channel, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = value
    return x


RED, BLUE = 0, 2
SCENE = scene((1, 1, RED, 1.0), (1, 2, RED, 0.9), (4, 6, BLUE, 0.8), (4, 2, RED, 0.95))
