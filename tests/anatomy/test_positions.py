from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from nets import Net

from onnx_gradcam.anatomy.positions import SpatialLayout, follow, layout_of
from onnx_gradcam.anatomy.tokens import TokenGrid, TokenPositions
from onnx_gradcam.errors import LayerError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

ROWS, COLUMNS = 2, 3


def layout(net: Net, name: str, batch: int = 2) -> SpatialLayout | None:
    """Of the value ``name``, where x is (N, C, H, W)."""
    graph = prepare(load(net.model({name: None})).model).graph
    x = graph.inputs[0]
    found = {v.name: p for v, p in follow(list(graph), {x: (0, 1, 2, 3)}, [x]).items()}
    return layout_of(found[name]) if found.get(name) else None


def start(batch: int = 2) -> tuple[Net, str]:
    net = Net()
    return net, net.input("x", [batch, 4, ROWS, COLUMNS])


def check(found: SpatialLayout | None, axes: tuple[int, ...], tokens: list[list[int]] | None = None) -> None:
    assert found is not None
    assert found.axes == axes
    assert (found.token_grid is None) if tokens is None else (found.token_grid is not None)
    if tokens is not None:
        np.testing.assert_array_equal(found.token_grid, tokens)


IN_ROWS = [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("batch", [1, 2])
def test_flattened_and_transposed(batch: int) -> None:
    net, x = start(batch)
    flat = net.op("Reshape", x, net.ints(batch, 4, -1), out="flat")
    net.op("Transpose", flat, perm=[0, 2, 1], out="tokens")
    net.op("Transpose", flat, perm=[2, 0, 1], out="sequence_first")
    check(layout(net, "flat", batch), (0, 1, 2), IN_ROWS)
    check(layout(net, "tokens", batch), (0, 2, 1), IN_ROWS)
    if batch == 2:  # of one image alone, the batch axis and one of a size of 1 look alike
        check(layout(net, "sequence_first", batch), (1, 2, 0), IN_ROWS)


def test_down_the_columns() -> None:
    net, x = start()
    net.op("Reshape", net.op("Transpose", x, perm=[0, 3, 2, 1]), net.ints(2, -1, 4), out="tokens")
    check(layout(net, "tokens"), (0, 2, 1), [[0, 2, 4], [1, 3, 5]])


def test_a_reshape_that_does_not_fit_ends_the_positions() -> None:
    """As an exporter may write it; the runtime says what is wrong with such a model."""
    net, x = start()
    net.op("Reshape", x, net.ints(2, 4, 7), out="misfit")
    assert layout(net, "misfit") is None


def test_a_convolution_along_features_begins_no_grid() -> None:
    """As it does that weighs the class tokens of several streams."""
    net = Net()
    y = net.conv(net.input("x", [1, 3, ROWS, COLUMNS]), (3, 8), out="convolved")
    flat = net.op("Transpose", net.op("Reshape", y, net.ints(1, 8, -1)), perm=[0, 2, 1])
    tokens = net.op("Concat", net.random(1, 1, 8), flat, axis=1)
    first = [net.op("Gather", v, net.ints(0), axis=1) for v in (tokens, net.op("Relu", tokens))]
    net.op("Conv", net.op("Concat", *first, axis=1), net.random(1, 2, 1), out="features")
    graph = prepare(load(net.model({"features": [1, 1, 8]})).model).graph
    assert [v.name for v in TokenPositions(graph).on_grid()] == ["convolved"]


def test_other_tokens_before_and_behind() -> None:
    net, x = start()
    tokens = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 3, 1]), net.ints(2, -1, 4))
    net.op("Concat", net.random(2, 2, 4), tokens, net.random(2, 1, 4), axis=1, out="all")
    check(layout(net, "all"), (0, 2, 1), [[2, 3, 4], [5, 6, 7]])


def test_channels_last_and_moved() -> None:
    net, x = start()
    y = net.op("Relu", net.op("Transpose", x, perm=[0, 2, 3, 1], out="last"), out="relu")
    net.op("MatMul", y, net.random(4, 7), out="linear")
    parts = [net.op("Slice", y, net.ints(a), net.ints(b), net.ints(2)) for a, b in [(1, 3), (0, 1)]]
    net.op("Concat", *parts, axis=2, out="rolled")
    for name in ("last", "relu", "linear"):
        check(layout(net, name), (0, 3, 1, 2))
    assert layout(net, "rolled") is None
    net.op("Reshape", "rolled", net.ints(2, -1, 4), out="rolled_tokens")
    check(layout(net, "rolled_tokens"), (0, 2, 1), [[2, 0, 1], [5, 3, 4]])


def test_merged_patches_lie_between_those_they_are_made_of() -> None:
    net = Net()
    x = net.op("Transpose", net.input("x", [2, 4, 4, 6]), perm=[0, 2, 3, 1])
    y = net.op("Reshape", x, net.ints(2, 2, 2, 3, 2, 4))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), net.ints(2, 6, 16), out="beside")
    net.op("MatMul", y, net.random(16, 5), out="merged")
    assert layout(net, "beside") is None
    check(layout(net, "merged"), (0, 2, 1), IN_ROWS)


def test_mixed_places_are_none() -> None:
    net, x = start()
    flat = net.op("Reshape", x, net.ints(2, 4, -1))
    net.op("MatMul", flat, net.random(6, 6), out="over_tokens")
    net.op("MatMul", net.op("Transpose", flat, perm=[0, 2, 1]), flat, out="attention")
    net.op("ReduceMean", flat, net.ints(2), out="mean")
    for name in ("over_tokens", "attention", "mean"):
        assert layout(net, name) is None


def test_fewer_queries_than_keys_merge_tokens() -> None:
    """As LeViT does: queries of every second row and column, and no stream goes around their attention."""
    net = Net()
    x = net.input("x", [2, 4, 4, 6])
    flat = net.op("Transpose", net.op("Reshape", x, net.ints(2, 4, 24)), perm=[0, 2, 1])
    every = net.op("Slice", x, net.ints(0, 0), net.ints(4, 6), net.ints(2, 3), net.ints(2, 2))
    fewer = net.op("Transpose", net.op("Reshape", every, net.ints(2, 4, 6)), perm=[0, 2, 1])
    for name, tokens in (("merged", fewer), ("mixed", flat)):
        product = net.op("MatMul", tokens, net.op("Transpose", flat, perm=[0, 2, 1]))
        shares = net.op("Softmax", net.op("Mul", product, net.array(np.float32(0.5))), axis=-1)
        net.op("MatMul", shares, flat, out=name)
    check(layout(net, "merged"), (0, 2, 1), IN_ROWS)
    assert layout(net, "mixed") is None  # the stream that is added to keeps the positions


@pytest.mark.parametrize("change", ["Pad", "MaxPool", "AveragePool", "Resize", "ReduceMean"])
def test_what_changes_the_grid_begins_another(change: str) -> None:
    """Merged behind it, the tokens lie in the rows and columns of the new grid."""
    net = Net()
    x = net.input("x", [2, 4, 4, 6])
    half = {"kernel_shape": [2, 2], "strides": [2, 2]}
    if change == "Pad":
        y = net.op("Pad", x, net.ints(0, 0, 0, 0, 0, 0, 1, 1), out="y")
    elif change == "Resize":
        y = net.op("Resize", x, "", net.array(np.array([1, 1, 0.5, 1.5], np.float32)), out="y")
    elif change == "ReduceMean":
        y = net.op("ReduceMean", net.op("Reshape", x, net.ints(2, 4, 2, 2, 3, 2)), net.ints(3, 5), keepdims=0, out="y")
    else:
        y = net.op(change, x, **half, out="y")
    height, width = {"Pad": (5, 7), "Resize": (2, 9)}.get(change, (2, 3))
    net.op("Transpose", net.op("Reshape", y, net.ints(2, 4, -1)), perm=[0, 2, 1], out="tokens")
    check(layout(net, "y"), (0, 1, 2, 3))
    check(layout(net, "tokens"), (0, 2, 1), np.arange(height * width).reshape(height, width).tolist())


def test_one_number_for_a_grid_has_no_position() -> None:
    net, x = start()
    net.op("GlobalAveragePool", x, out="pooled")
    net.op("ReduceMean", x, net.ints(2, 3), out="mean")
    net.op("ReduceMax", x, net.ints(2), keepdims=0, out="columns")
    assert layout(net, "pooled") is None
    assert layout(net, "mean") is None
    check(layout(net, "columns"), (0, 1, 2), [[0, 1, 2]])


def test_tokens_that_padding_adds_have_no_position() -> None:
    net, x = start()
    tokens = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 3, 1]), net.ints(2, -1, 4))
    net.op("Pad", tokens, net.ints(0, 2, 0, 0, 3, 0), net.array(np.array(1, np.float32)), out="padded")
    net.op("Pad", tokens, net.ints(2, 3), "", net.ints(1), out="by_axis")
    check(layout(net, "padded"), (0, 2, 1), [[2, 3, 4], [5, 6, 7]])
    check(layout(net, "by_axis"), (0, 2, 1), [[2, 3, 4], [5, 6, 7]])


def test_windows_are_no_grid() -> None:
    net = Net()
    x = net.op("Transpose", net.input("x", [2, 4, 4, 6]), perm=[0, 2, 3, 1])
    y = net.op("Transpose", net.op("Reshape", x, net.ints(2, 2, 2, 3, 2, 4)), perm=[0, 1, 3, 2, 4, 5])
    y = net.op("Reshape", y, net.ints(12, 4, 4), out="windows")
    y = net.op("Transpose", net.op("Reshape", y, net.ints(2, 2, 3, 2, 2, 4)), perm=[0, 1, 3, 2, 4, 5])
    net.op("Reshape", y, net.ints(2, 4, 6, 4), out="back")
    assert layout(net, "windows") is None
    check(layout(net, "back"), (0, 3, 1, 2))


def test_an_open_batch() -> None:
    net = Net()
    x = net.conv(net.input("x", ["N", 3, 4, 6]), (3, 4), kernel=2, stride=2)
    net.op("Transpose", net.op("Reshape", x, net.ints(0, 4, -1)), perm=[0, 2, 1], out="tokens")
    found = TokenPositions(prepare(load(net.model({"tokens": None})).model).graph).layout("tokens")
    check(found, (0, 2, 1), IN_ROWS)


def test_arranging() -> None:
    array = np.arange(2 * 7 * 4).reshape(2, 7, 4)
    found = SpatialLayout((0, 2, 1), np.array([[1, 3], [2, 6]])).arrange(array)
    assert found.shape == (2, 4, 2, 2)
    np.testing.assert_array_equal(found[1, :, 0, 1], array[1, 3])
    np.testing.assert_array_equal(found[0, :, 1, 0], array[0, 2])


@pytest.mark.parametrize(
    ("text", "sizes", "before"),
    [("14x14", (14, 14), None), ("3x5+2", (3, 5), 2), ("9+0", (9,), 0), ("2x3x4", (2, 3, 4), None)],
)
def test_grids_in_words(text: str, sizes: tuple[int, ...], before: int | None) -> None:
    grid = TokenGrid.parse(text)
    assert (grid.sizes, grid.before) == (sizes, before)
    assert str(grid) == text


@pytest.mark.parametrize("text", ["", "0x3", "14x", "14x14+", "axb", "14 x 14", "-1x2"])
def test_what_is_no_grid(text: str) -> None:
    with pytest.raises(LayerError, match="is no grid"):
        TokenGrid.parse(text)


@pytest.mark.parametrize(
    ("grid", "dims", "axes", "tokens"),
    [
        ("2x3", [2, 7, 4], (0, 2, 1), [[1, 2, 3], [4, 5, 6]]),
        ("2x3+0", [2, 7, 4], (0, 2, 1), [[0, 1, 2], [3, 4, 5]]),
        ("2x3+1", [2, "T", 4], (0, 2, 1), [[1, 2, 3], [4, 5, 6]]),
        ("2x3", [2, 2, 3, 4], (0, 3, 1, 2), None),
        ("2x3", [2, 4, 2, 3], (0, 1, 2, 3), None),
        ("4", [2, 5, 3], (0, 2, 1), [1, 2, 3, 4]),
    ],
)
def test_how_a_grid_lies_in_a_value(grid: str, dims: list[int | str], axes: tuple[int, ...], tokens: object) -> None:
    found = TokenGrid.parse(grid).layout(ir.val("x", shape=dims))
    check(found, axes, tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grid", "dims"), [("2x3", [2, 5, 4]), ("2x3+2", [2, 7, 4]), ("2x3", [2, "T", 4]), ("2x3", [2, 3, 2, 4])]
)
def test_a_grid_that_does_not_fit(grid: str, dims: list[int | str]) -> None:
    with pytest.raises(LayerError, match="does not fit 'x'"):
        TokenGrid.parse(grid).layout(ir.val("x", shape=dims))
