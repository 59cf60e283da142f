"""What changed between ai.onnx opsets 1 and 18: for each operator, how an older node becomes one of opset 18.

Most operators changed by addition only (more dtypes, attributes whose default is the old behaviour) and need
nothing; a test compares the schemas of all operators, so that none is missed. Where the specification leaves
open what a runtime does, onnxruntime's kernel for the old opset decides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.prepare.site import Site

Adapter = Callable[[Site], None]

FLOAT_MAX = float(np.finfo(np.float32).max)


# ------------------------------------------------------------------------------ attributes that became inputs


def _axes(site: Site) -> None:
    """An empty list meant that none was given."""
    axes = site.attr("axes", ())
    if axes:
        site.become(site.node.op_type, site.input(), site.ints(axes))


def _clip(site: Site) -> None:
    x, low, high = site.input(), site.attr("min", -FLOAT_MAX), site.attr("max", FLOAT_MAX)
    bounds = [site.floats(low, x) if low > -FLOAT_MAX else None]
    if high < FLOAT_MAX:
        bounds.append(site.floats(high, x))
    site.become("Clip", x, *bounds)


def _pad(site: Site) -> None:
    x, pads = site.input(), site.attr("pads" if site.opset > 1 else "paddings")
    fill = site.attr("value", 0.0)
    site.become("Pad", x, site.ints(pads), *([site.floats(fill, x)] if fill else []))


def _reshape(site: Site) -> None:
    site.become("Reshape", site.input(), site.ints(site.attr("shape")))


def _slice(site: Site) -> None:
    ends = [site.ints(site.attr("starts")), site.ints(site.attr("ends"))]
    axes = site.attr("axes", ())
    site.become("Slice", site.input(), *ends, *([site.ints(axes)] if axes else []))


def _split(site: Site) -> None:
    sizes = site.attr("split", ())
    if sizes:
        site.become("Split", site.input(), site.ints(sizes))
    elif site.given(1) is None:
        site.become("Split", site.input(), num_outputs=len(site.node.outputs))
    elif site.opset < 2:
        site.refuse("its part lengths are a floating-point input")


def _top_k(site: Site) -> None:
    site.become("TopK", site.input(), site.ints([site.attr("k")]))


# --------------------------------------------------------------------------------------- a different meaning


def _flattened(site: Site) -> None:
    """Softmax and its kin normalised over all axes from ``axis`` on, taken as one."""
    op_type, x, axis = site.node.op_type, site.input(), site.attr("axis", 1)
    shape = x.shape or site.node.outputs[0].shape  # exporters declare graph outputs where inference fails
    if shape is not None:
        wide = [i for i in range(len(shape))[axis:] if shape[i] != 1]
        if len(wide) <= 1:
            site.become(op_type, x, axis=wide[0] if wide else axis)
            return
    flat = site.put(op_type, site.put("Flatten", x, axis=axis), axis=-1)
    site.become("Reshape", flat, site.put("Shape", x))


def _batch_normalization(site: Site) -> None:
    """Training mode was the presence of further outputs, and before opset 7 the lack of ``is_test``."""
    _refuse_training(site)
    spatial, training = site.attr("spatial", 1), any(v.name for v in site.node.outputs[1:3])
    if training and not spatial:
        site.refuse("it is in training mode and normalises each position by itself (spatial = 0)")
    site.keep_outputs(3 if training else 1)
    if training:
        site.become("BatchNormalization", *site.node.inputs, training_mode=1)
    if not spatial:
        _normalize_each_position(site)


def _normalize_each_position(site: Site) -> None:
    """y = (x − mean) / √(variance + ε) · scale + bias, all of shape (C, *space)."""
    x, scale, bias, mean, variance = (site.input(i) for i in range(5))
    site.attr("momentum", None)
    deviation = site.put("Sqrt", site.put("Add", variance, site.floats(site.attr("epsilon", 1e-5), x)))
    normal = site.put("Div", site.put("Sub", x, mean), deviation)
    site.become("Add", site.put("Mul", normal, scale), bias)


def _dropout(site: Site) -> None:
    """Identity at inference. A mask cannot be kept: onnxruntime's was all zeros, and is now all ones."""
    _refuse_training(site)
    site.attr("ratio", None)
    site.keep_outputs(1)


def _refuse_training(site: Site) -> None:
    if site.opset < 7 and not site.attr("is_test", 0):
        site.refuse("it is in training mode (is_test = 0)")


def _upsample(site: Site) -> None:
    x, scales, mode = site.input(), site.given(1), site.attr("mode", "nearest")
    if scales is None:
        factors = (
            site.attr("scales") if site.opset >= 7 else (1, 1, site.attr("height_scale"), site.attr("width_scale"))
        )
        scales = site.array(np.array(factors, np.float32))
    _asymmetric(site, x, scales, "linear" if mode == "bilinear" else mode, "floor")


def _resize(site: Site) -> None:
    if site.opset < 11:
        _resize_10(site)
    else:
        _resize_11(site)


def _resize_10(site: Site) -> None:
    """Nearest took the floor along axes that grow and the ceiling along axes that shrink (onnxruntime)."""
    x, scales, mode = site.input(), site.input(1), site.attr("mode", "nearest")
    tensor = ir.convenience.get_const_tensor(scales)
    factors = None if tensor is None else tensor.numpy()
    if mode != "nearest" or (factors is not None and (factors >= 1).all()):
        _asymmetric(site, x, scales, mode, "floor")
    elif factors is not None and (factors <= 1).all():
        _asymmetric(site, x, scales, mode, "ceil")
    else:  # axes are independent of each other: first all that grow, then all that shrink
        one = site.array(np.ones(1, np.float32))
        grow = site.put("Max", scales, one) if factors is None else site.array(np.maximum(factors, 1))
        shrink = site.put("Min", scales, one) if factors is None else site.array(np.minimum(factors, 1))
        grown = site.put("Resize", x, None, grow, **_asymmetric_attributes(mode, "floor"))
        _asymmetric(site, grown, shrink, mode, "ceil")


def _asymmetric(site: Site, x: ir.Value, scales: ir.Value, mode: str, rounding: str) -> None:
    site.become("Resize", x, None, scales, **_asymmetric_attributes(mode, rounding))


def _asymmetric_attributes(mode: str, rounding: str) -> dict[str, str]:
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    return attributes | ({"nearest_mode": rounding} if mode == "nearest" else {})


# tf_half_pixel_for_nn is half_pixel + ½, and ⌊x + ½⌋, ⌈x − ½⌉ are roundings that opset 18 still has.
HALF_PIXEL_ROUNDING = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}


def _resize_11(site: Site) -> None:
    """Inputs that are not used were empty tensors, and one coordinate mode has gone."""
    x, roi, scales, sizes = (site.given(i) for i in range(4))
    attributes = site.node.attributes
    coordinates = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_half_pixel_for_nn":
        rounding = attributes.get_string("nearest_mode", "round_prefer_floor")
        if attributes.get_string("mode", "nearest") != "nearest" or rounding not in HALF_PIXEL_ROUNDING:
            site.refuse("tf_half_pixel_for_nn with this mode and nearest_mode has no equal")
        replaced = {
            "coordinate_transformation_mode": "half_pixel",
            "nearest_mode": HALF_PIXEL_ROUNDING[rounding],
        }
        site.become("Resize", *site.node.inputs, **replaced)
    roi = roi if coordinates == "tf_crop_and_resize" else None
    site.become("Resize", x, roi, *((scales,) if sizes is None else (None, sizes)))


def _roi_align(site: Site) -> None:
    site.become("RoiAlign", *site.node.inputs, coordinate_transformation_mode="output_half_pixel")


def _scatter(site: Site) -> None:
    site.become("ScatterElements", *site.node.inputs)


def _scan(site: Site) -> None:
    site.refuse("Scan of opset 8 runs over a batch axis")


# ------------------------------------------------------------------------------------------- before opset 7


def _align(site: Site) -> None:
    """C = A ∘ B, where ``axis`` said which axis of A the first one of B stands for."""
    broadcast, axis = site.attr("broadcast", 0), site.attr("axis", None)
    if not broadcast or axis is None:
        return
    rank, own = site.rank(0), site.rank(1)
    missing = rank - axis % rank - own
    if missing > 0:
        b = site.put("Unsqueeze", site.input(1), site.ints(range(own, own + missing)))
        site.become(site.node.op_type, site.input(0), b)


def _prelu(site: Site) -> None:
    """A slope vector held one slope for each channel."""
    trailing = [1] * (site.rank(0) - 2)
    if trailing:
        slope = site.put("Reshape", site.input(1), site.ints([-1, *trailing]))
        site.become("PRelu", site.input(), slope)


def _cast(site: Site) -> None:
    to = site.attr("to")
    if to not in ir.DataType.__members__:
        site.refuse(f"there is no dtype {to!r}")
    site.become("Cast", site.input(), to=int(ir.DataType[to]))


def _concat(site: Site) -> None:
    site.become("Concat", *site.node.inputs, axis=site.attr("axis", 1))


def _integer_p(site: Site) -> None:
    p = site.attr("p", 2.0)
    if p != int(p):
        site.refuse(f"p = {p} is not an integer")
    site.become(site.node.op_type, site.input(), p=int(p))


def _selu(site: Site) -> None:
    """The defaults were rounded."""
    site.become("Selu", site.input(), alpha=site.attr("alpha", 1.6732), gamma=site.attr("gamma", 1.0507))


def _tile(site: Site) -> None:
    site.refuse("it repeats one axis, given as an input")


def _gemm(site: Site) -> None:
    site.attr("broadcast", None)


def _recurrent(site: Site) -> None:
    site.attr("output_sequence", None)


# --------------- former experiments, never in the standard, that onnxruntime still runs up to opset 9


def _affine(site: Site) -> None:
    x = site.input()
    scaled = site.put("Mul", x, site.floats(site.attr("alpha", 1.0), x))
    site.become("Add", scaled, site.floats(site.attr("beta", 0.0), x))


def _crop(site: Site) -> None:
    left, top, right, bottom = site.attr("border")
    size, end = site.attr("scale", ()), int(np.iinfo(np.int64).max)
    ends = [top + size[0], left + size[1]] if size else [-bottom or end, -right or end]
    site.become("Slice", site.input(), site.ints([top, left]), site.ints(ends), site.ints([2, 3]))


def _dynamic_slice(site: Site) -> None:
    site.become("Slice", *site.node.inputs)


def _image_scaler(site: Site) -> None:
    x = site.input()
    scaled = site.put("Mul", x, site.floats(site.attr("scale", 1.0), x))
    site.become("Add", scaled, site.floats(np.reshape(site.attr("bias"), (-1, 1, 1)), x))


def _mean_variance(site: Site) -> None:
    if site.rank() != 4:
        site.refuse("its input is not (N, C, H, W)")
    axes = [0, 1, 2, 3] if site.attr("across_channels", 0) else [0, 2, 3]
    if site.attr("normalize_variance", 1):
        site.become("MeanVarianceNormalization", site.input(), axes=axes)
    else:
        site.become("Sub", site.input(), site.put("ReduceMean", site.input(), site.ints(axes)))


def _scale(site: Site) -> None:
    site.become("Mul", site.input(), site.floats(site.attr("scale", 1.0), site.input()))


def _scaled(inner: str) -> Adapter:
    """y = α · inner(β · x)."""

    def adapter(site: Site) -> None:
        x, alpha, beta = site.input(), site.attr("alpha"), site.attr("beta")
        y = site.put(inner, site.put("Mul", x, site.floats(beta, x)))
        site.become("Mul", y, site.floats(alpha, x))

    return adapter


# op_type → the first opset whose form needs no change, and what is done to a node of an older one.
ADAPTERS: dict[str, tuple[int, Adapter]] = {
    **dict.fromkeys(["Add", "And", "Div", "Equal", "Greater", "Less"], (7, _align)),
    **dict.fromkeys(["Mul", "Or", "Pow", "Sub", "Xor"], (7, _align)),
    **dict.fromkeys(["GRU", "LSTM", "RNN"], (7, _recurrent)),
    **dict.fromkeys(["GlobalLpPool", "LpPool"], (2, _integer_p)),
    **dict.fromkeys(["Hardmax", "LogSoftmax", "Softmax"], (13, _flattened)),
    **dict.fromkeys(["ReduceSum", "Squeeze", "Unsqueeze"], (13, _axes)),
    **dict.fromkeys(["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"], (18, _axes)),
    **dict.fromkeys(["ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"], (18, _axes)),
    "Affine": (10, _affine),
    "BatchNormalization": (14, _batch_normalization),
    "Cast": (6, _cast),
    "Clip": (11, _clip),
    "Concat": (4, _concat),
    "Crop": (10, _crop),
    "Dropout": (12, _dropout),
    "DynamicSlice": (10, _dynamic_slice),
    "Gemm": (7, _gemm),
    "ImageScaler": (10, _image_scaler),
    "MeanVarianceNormalization": (9, _mean_variance),
    "PRelu": (7, _prelu),
    "Pad": (11, _pad),
    "ParametricSoftplus": (10, _scaled("Softplus")),
    "Reshape": (5, _reshape),
    "Resize": (13, _resize),
    "RoiAlign": (16, _roi_align),
    "Scale": (10, _scale),
    "ScaledTanh": (10, _scaled("Tanh")),
    "Scan": (9, _scan),
    "Scatter": (11, _scatter),
    "Selu": (6, _selu),
    "Slice": (10, _slice),
    "Split": (18, _split),
    "Tile": (6, _tile),
    "TopK": (10, _top_k),
    "Upsample": (10, _upsample),
}
