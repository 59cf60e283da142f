from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net, run

from onnx_gradcam.engine.batches import batch_size, run_in_pieces
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

X = np.arange(35, dtype=np.float32).reshape(7, 5)


class Recorder:
    """Doubles x, and remembers what it was fed; takes ``size`` images and no other number."""

    def __init__(self, size: int | None) -> None:
        self.size, self.fed = size, []  # type: ignore[var-annotated]

    def __call__(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        x = feeds["x"]
        assert self.size is None or len(x) == self.size
        self.fed.append({k: v.copy() for k, v in feeds.items()})
        results = {
            "doubled": 2 * x,
            "maps": [{"first": float(row[0])} for row in x],
            "scalar": np.float32(3),
            "anchors": np.arange(8.0).reshape(2, 4),
        }
        return {name: results[name] for name in names}


@pytest.mark.parametrize("size", [None, 1, 2, 3, 6, 7, 8, 20])
def test_all_images_come_out_in_order(size: int | None) -> None:
    run_ = Recorder(size)
    found = run_in_pieces(run_, ["doubled", "maps"], {"x": X}, size)
    np.testing.assert_array_equal(found["doubled"], 2 * X)
    assert found["maps"] == [{"first": float(row[0])} for row in X]
    assert len(run_.fed) == (1 if size is None else -(-len(X) // size))


def test_a_short_piece_is_filled_with_its_last_image() -> None:
    run_ = Recorder(3)
    run_in_pieces(run_, ["doubled"], {"x": X}, 3)
    np.testing.assert_array_equal(run_.fed[1]["x"], X[3:6])
    np.testing.assert_array_equal(run_.fed[2]["x"], X[[6, 6, 6]])


@pytest.mark.parametrize("size", [1, 3, 7, 9])
def test_outputs_without_a_batch_axis_come_from_the_first_piece(size: int) -> None:
    found = run_in_pieces(Recorder(size), ["scalar", "anchors", "doubled"], {"x": X}, size)
    assert found["scalar"] == 3
    np.testing.assert_array_equal(found["anchors"], np.arange(8.0).reshape(2, 4))
    np.testing.assert_array_equal(found["doubled"], 2 * X)


def test_inputs_without_a_batch_axis_go_into_every_run() -> None:
    feeds = {"scale": np.float32(2), "anchors": np.arange(9.0), "x": X, "index": np.arange(7)}
    run_ = Recorder(2)
    run_in_pieces(run_, ["doubled"], feeds, 2)
    for k, fed in enumerate(run_.fed):
        assert fed["scale"] == 2
        np.testing.assert_array_equal(fed["anchors"], np.arange(9.0))
        np.testing.assert_array_equal(fed["index"], np.minimum([2 * k, 2 * k + 1], 6))


# ------------------------------------------------------------------------------------- how many at a time


def size_of(proto: onnx.ModelProto, name: str = "x") -> int | None:
    return batch_size(prepare(load(proto).model).graph, name)


def test_a_fixed_batch_and_a_free_one() -> None:
    assert size_of(builders.plain()) is None
    assert size_of(builders.plain(1)) == 1
    assert size_of(builders.plain(4)) == 4
    assert size_of(builders.literal_minus_one()) is None
    assert size_of(builders.two_inputs(), "image") is None


def test_an_input_without_axes_takes_one_image() -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT)
    assert batch_size(ir.Graph([x], [], nodes=[]), "x") == 1


def mixing(op_type: str, *more: Any, dims: Sequence[int | str] = (BATCH, 3, 4), **attributes: Any) -> int | None:
    net = Net()
    inputs = [net.array(np.asarray(array)) for array in more]
    net.op(op_type, net.input("x", list(dims)), *inputs, out="y", **attributes)
    return size_of(net.model({"y": None}))


@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceSum"])
@pytest.mark.parametrize(
    ("axes", "size"), [([0], 1), ([1, 0], 1), ([-3], 1), ([1], None), ([2, -2], None), ([-1], None)]
)
def test_reductions_over_the_batch_mix_images(op_type: str, axes: list[int], size: int | None) -> None:
    assert mixing(op_type, np.array(axes, np.int64)) == size


def test_reductions_over_everything_mix_images() -> None:
    assert mixing("ReduceMean") == 1
    assert mixing("ReduceMean", noop_with_empty_axes=1) is None
    assert mixing("ReduceMean", np.array([0]), dims=[BATCH, 3]) == 1
    assert mixing("ReduceProd", np.array([0]), dims=[3]) == 3


def test_statistics_of_the_batch_mix_images() -> None:
    ones = np.ones(3, np.float32)
    assert mixing("BatchNormalization", ones, ones, ones, ones) is None
    assert mixing("MeanVarianceNormalization", dims=[BATCH, 3, 4, 4]) == 1
    assert mixing("MeanVarianceNormalization", dims=[BATCH, 3, 4, 4], axes=[2, 3]) is None
    net = Net()
    x, one = net.input("x", [BATCH, 3, 4]), net.array(ones)
    net.ops("BatchNormalization", x, one, one, one, one, out=["y", "m", "v"], training_mode=1)
    assert size_of(net.model({"y": None, "m": None, "v": None})) == 1


def test_dynamic_quantization_mixes_images() -> None:
    net = Net()
    net.ops("DynamicQuantizeLinear", net.input("x", [BATCH, 3]), out=["q", "scale", "zero"])
    assert size_of(net.model({"q": None}, {"q": onnx.TensorProto.UINT8})) == 1


def test_a_dynamically_quantized_model_gives_each_image_its_own_result() -> None:
    net = Net()
    net.ops("DynamicQuantizeLinear", net.input("x", [BATCH, 3]), out=["q", "scale", "zero"])
    net.op("DequantizeLinear", "q", "scale", "zero", out="y")
    proto = net.model({"y": None})
    x = np.array([[0.1, 0.2, 0.3], [100, 200, 300]], np.float32)

    def once(names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        found: dict[str, Any] = run(proto, feeds, names)
        return found

    together = once(["y"], {"x": x})["y"]
    apart = run_in_pieces(once, ["y"], {"x": x}, size_of(proto))["y"]
    np.testing.assert_allclose(apart, x, rtol=0.01)
    assert np.abs(together[0] - x[0]).max() > 0.05, "else the test shows nothing"
