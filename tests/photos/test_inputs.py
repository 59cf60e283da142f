from __future__ import annotations

from typing import Any

import builders
import numpy as np
import onnx_ir as ir
import pytest
from nets import Net

from onnx_gradcam import Explainer
from onnx_gradcam.errors import InputError
from onnx_gradcam.explain.inputs import input_specs, spec_of
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.photos import inputs
from onnx_gradcam.photos.preprocess.choice import InputSpec

IMAGE = InputSpec("image", (None, 3, 4, None), "float32")
ONE = {"image": IMAGE}
TWO = {"age": InputSpec("age", (None, 2), "float32"), "image": IMAGE}
X = np.random.default_rng(0).standard_normal((2, 3, 4, 5))


def refusal(x: Any, known: dict[str, InputSpec] = ONE) -> InputError:
    with pytest.raises(InputError) as error:
        inputs.check_feeds(x, known)
    return error.value


# ------------------------------------------------------------------------------------- what a model declares


def test_specs_are_what_the_model_declares() -> None:
    graph = load(builders.two_inputs()).model.graph
    assert input_specs(graph) == {
        "image": InputSpec("image", (None, 3, 8, 8), "float32"),
        "age": InputSpec("age", (None, 2), "float32"),
    }
    assert spec_of(load(builders.uint8_input()).model.graph.inputs[0]).dtype == "uint8"


def test_a_value_that_is_no_tensor() -> None:
    assert spec_of(ir.val("maps")) == InputSpec("maps", (), "unknown")


def test_the_image_is_the_largest_input_of_those_with_the_most_axes() -> None:
    assert inputs.image_input(TWO) is IMAGE
    other = InputSpec("mask", (None, 1, 4, 4), "float32")
    assert inputs.image_input({"mask": other, "image": IMAGE}) is IMAGE
    twin = InputSpec("twin", IMAGE.shape, "float32")
    assert inputs.image_input({"image": IMAGE, "twin": twin}) is IMAGE


@pytest.mark.parametrize(
    ("shape", "count", "axes"),
    [
        ((None, 3, 8, 9), 2, (2, 3)),
        ((1, 8, 9, 3), 2, (1, 2)),
        ((None, None, None, 1), 2, (1, 2)),
        ((None, None, None, None), 2, (2, 3)),
        ((1, 3, 9, 3), 2, (2, 3)),
        ((1, 4, 8), 1, (2,)),
        ((1, 8, 4), 1, (1,)),
        ((1, 1, 8, 9, 7), 3, (2, 3, 4)),
        ((1, 3, 8, 9), 1, (3,)),
    ],
)
def test_spatial_axes(shape: tuple[int | None, ...], count: int, axes: tuple[int, ...]) -> None:
    assert inputs.spatial_axes(InputSpec("x", shape, "float32"), count) == axes


# ---------------------------------------------------------------------------------------- what is taken as is


def test_an_array_for_the_only_input() -> None:
    x = X.astype(np.float32)
    found = inputs.check_feeds(x, ONE)
    assert list(found) == ["image"]
    assert found["image"] is x, "not copied"
    assert inputs.check_feeds({"image": x}, ONE)["image"] is x


def test_arrays_by_name() -> None:
    ages = np.ones((2, 2), np.float32)
    found = inputs.check_feeds({"image": X, "age": ages}, TWO)
    np.testing.assert_array_equal(found["image"], X.astype(np.float32))
    assert found["age"] is ages


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4"])
def test_floats_become_the_float_of_the_model(dtype: str) -> None:
    found = inputs.check_feeds(X.astype(dtype), ONE)["image"]
    assert found.dtype == np.dtype("float32")
    np.testing.assert_array_equal(found, X.astype(dtype).astype(np.float32))
    half = {"image": InputSpec("image", IMAGE.shape, "float16")}
    assert inputs.check_feeds(X, half)["image"].dtype == np.float16


def test_integers_of_the_dtype_of_the_model() -> None:
    bytes_ = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    spec = InputSpec("image", (1, 2, 4, 3), "uint8")
    np.testing.assert_array_equal(inputs.check_feeds(bytes_, {"image": spec})["image"], bytes_)


def test_a_list_is_an_array() -> None:
    found = inputs.check_feeds([[1.0, 2], [3, 4]], {"age": TWO["age"]})
    np.testing.assert_array_equal(found["age"], np.array([[1, 2], [3, 4]], np.float32))


def test_a_torch_tensor_that_requires_grad() -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    found = inputs.check_feeds(torch.tensor(X, dtype=torch.float32, requires_grad=True), ONE)["image"]
    np.testing.assert_array_equal(found, X.astype(np.float32))


class Capsule:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray, problem: Exception | None = None) -> None:
        self._array, self._problem = array, problem

    def __dlpack__(self, **options: Any) -> Any:
        if self._problem:
            raise self._problem
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def test_an_array_that_speaks_only_dlpack() -> None:
    found = inputs.check_feeds(Capsule(X.astype(np.float32)), ONE)["image"]
    np.testing.assert_array_equal(found, X.astype(np.float32))


@pytest.mark.parametrize("problem", [BufferError("on the GPU"), RuntimeError("on the GPU")])
def test_an_array_on_another_device(problem: Exception) -> None:
    message = str(refusal(Capsule(X, problem)))
    assert "'image'" in message
    assert "on the GPU" in message


# ------------------------------------------------------------------------------------------ what is refused


def test_one_array_for_several_inputs() -> None:
    error = refusal(X, TWO)
    assert "the model has 2 inputs" in error.what
    assert "'age' (?, 2) float32" in error.what
    assert "{input name: array}" in error.hint
    assert error.inputs == ("age", "image")


def test_an_unknown_input_names_the_nearest() -> None:
    error = refusal({"imge": X})
    assert "no input 'imge'" in error.what
    assert error.hint == "one of 'image'"


def test_an_input_that_is_missing() -> None:
    error = refusal({"image": X}, TWO)
    assert "no value for the model's input 'age' (?, 2) float32" in error.what
    assert error.name == "age"


@pytest.mark.parametrize("value", ["a string", [[1.0], [2.0, 3.0]], None, object()])
def test_what_is_no_array(value: Any) -> None:
    assert "'image'" in refusal(value).what


def test_bytes_for_a_float_model_point_to_explain_image() -> None:
    error = refusal((X * 10).astype(np.uint8))
    assert "uint8" in error.what
    assert "explain_image()" in error.hint


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_another_dtype(dtype: str) -> None:
    error = refusal(X.astype(dtype) if dtype != "complex64" else X + 0j)
    assert "'image' (?, 3, 4, ?) float32" in error.what
    assert error.hint == "array.astype('float32')"


def test_a_float_for_a_model_of_bytes() -> None:
    error = refusal(X, {"image": InputSpec("image", IMAGE.shape, "uint8")})
    assert "float64" in error.what
    assert error.hint == "array.astype('uint8')"


@pytest.mark.parametrize(
    "shape", [(4, 5, 5), (2, 1, 4, 5), (2, 3, 5, 5), (2, 3, 4, 5, 1), (0, 3, 4, 5), (), (2, 3, 4, 0)]
)
def test_another_shape(shape: tuple[int, ...]) -> None:
    error = refusal(np.zeros(shape, np.float32))
    assert f"array of shape {shape}" in error.what
    assert "'image' (?, 3, 4, ?)" in error.what
    assert "batch axis first" in error.hint
    assert error.shape == shape


NCHW, NHWC = (None, 3, 4, 5), (None, 4, 5, 3)


@pytest.mark.parametrize(
    ("declared", "shape", "way"),
    [
        (NCHW, (3, 4, 5), "x[None]"),
        (NCHW, (2, 4, 5, 3), "numpy.moveaxis(x, -1, 1)"),
        (NCHW, (4, 5, 3), "numpy.moveaxis(x, -1, 0)[None]"),
        (NHWC, (2, 3, 4, 5), "numpy.moveaxis(x, 1, -1)"),
        (NHWC, (4, 5, 3), "x[None]"),
        (NHWC, (3, 4, 5), "numpy.moveaxis(x, 0, -1)[None]"),
        ((None, 1, 4, 5), (4, 5), "x[None, None]"),
        ((None, 3, None, None), (2, 4, 5, 3), "numpy.moveaxis(x, -1, 1)"),
        ((1, 3, 2, 4, 5), (1, 2, 4, 5, 3), "numpy.moveaxis(x, -1, 1)"),
        ((None, 7), (7,), "x[None]"),
    ],
)
def test_the_way_to_another_layout(declared: tuple[int | None, ...], shape: tuple[int, ...], way: str) -> None:
    """The remedy, applied, gives an array that the input takes."""
    spec = InputSpec("image", declared, "float32")
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    code, note = refusal(x, {"image": spec}).hint.split(": ")
    assert code == way
    assert "axis" in note or "axes" in note or "channels" in note
    remedied = {
        "x[None]": lambda x: x[None],
        "x[None, None]": lambda x: x[None, None],
        "numpy.moveaxis(x, -1, 1)": lambda x: np.moveaxis(x, -1, 1),
        "numpy.moveaxis(x, 1, -1)": lambda x: np.moveaxis(x, 1, -1),
        "numpy.moveaxis(x, -1, 0)[None]": lambda x: np.moveaxis(x, -1, 0)[None],
        "numpy.moveaxis(x, 0, -1)[None]": lambda x: np.moveaxis(x, 0, -1)[None],
    }[code](x)
    assert inputs.check_feeds(remedied, {"image": spec})["image"].shape == remedied.shape


@pytest.mark.parametrize(
    ("shape", "way"),
    [((1, 9, 8, 3), "numpy.moveaxis(x, -1, 1): "), ((3, 9, 8), "x[None]: "), ((1, 3, 9, 8), "the shape ")],
)
def test_another_layout_and_another_size(shape: tuple[int, ...], way: str) -> None:
    hint = refusal(np.zeros(shape, np.float32), {"image": InputSpec("image", NCHW, "float32")}).hint
    assert hint.startswith(way)
    assert "explain_image" in hint


def test_a_fixed_batch_takes_any_number_of_images() -> None:
    spec = {"image": InputSpec("image", (1, 3, 4, 5), "float32")}
    assert inputs.check_feeds(X, spec)["image"].shape == (2, 3, 4, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite(value: float) -> None:
    x = X.copy()
    x[1, 2, 0, 3] = value
    error = refusal(x)
    assert "'image' holds NaN or infinity, as float32" in error.what
    assert error.where == "first at index (1, 2, 0, 3)"


def test_values_that_a_half_cannot_hold() -> None:
    error = refusal(X * 1e6, {"image": InputSpec("image", IMAGE.shape, "float16")})
    assert "NaN or infinity, as float16" in error.what


# --------------------------------------------------------------------------- which axes are channels, by the graph


def axes_of(dims: list[int | str], perm: list[int] | None, *before: str) -> tuple[int, ...] | None:
    """Of an input that goes through the operators ``before`` and a Transpose to a convolution."""
    net = Net()
    x = net.input("x", dims)
    for op_type in before:
        x = net.op(op_type, x, *([net.array(np.float32([2]))] if op_type == "Mul" else []))
    x = x if perm is None else net.op("Transpose", x, perm=perm)
    channels = dims[1] if perm is None else dims[perm[1]]
    weight = net.random(4, int(channels), *[1] * (len(dims) - 2))
    net.op("Conv", x, weight, out="y")
    return input_specs(prepare(load(net.model({"y": None})).model).graph)["x"].axes


@pytest.mark.parametrize(
    ("dims", "perm", "axes"),
    [
        (["N", 3, 8, 4], [0, 3, 1, 2], (0, 3, 1, 2)),
        (["N", 3, 8, 4], None, (0, 1, 2, 3)),
        (["N", 8, 3, 4], [0, 2, 1, 3], (0, 2, 1, 3)),
        (["N", 5, 3], [0, 2, 1], (0, 2, 1)),
        ([1, 4, 5, 6, 1], [0, 4, 1, 2, 3], (0, 4, 1, 2, 3)),
    ],
)
def test_channels_are_what_the_convolution_takes_for_them(
    dims: list[int | str], perm: list[int] | None, axes: tuple[int, ...]
) -> None:
    assert axes_of(dims, perm, "Relu", "Mul") == axes


def test_channels_that_the_size_would_not_tell() -> None:
    """Three rows of eight pixels with four channels: the map lies in rows and columns."""
    net = Net()
    x = net.op("Transpose", net.input("x", ["N", 3, 8, 4]), perm=[0, 3, 1, 2])
    x = net.op("Relu", net.op("Conv", x, net.array(np.ones((1, 4, 1, 1), np.float32))), out="relu")
    net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", x)), net.array(np.ones((1, 2), np.float32)), out="y")
    image = np.zeros((1, 3, 8, 4), np.float32)
    image[0, 1, 6] = 1
    with Explainer(net.model({"y": ["N", 2]})) as explainer:
        found = explainer.explain(image, target=0)
        preprocess = explainer.preprocessing().preprocess
    assert found.heatmap.shape == (1, 3, 8)
    assert found.heatmap[0].argmax() == 8 + 6
    assert (preprocess.layout, preprocess.size) == ("NHWC", (3, 8))
    assert found.picture(0).shape == (3, 8, 3)
