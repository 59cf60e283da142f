"""Models as they are deployed: quantized, in float16, saved by an optimiser; made by onnxruntime's own tools."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from shapes import two_objects

import onnx_gradcam as ogc
from onnx_gradcam.photos.tensor import to_tensor

U8, S8, U16, S16 = QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16
QDQ, QOPERATOR = QuantFormat.QDQ, QuantFormat.QOperator
# form → (how the graph is written, the opset it needs, activations, weights, per channel)
STATIC = {
    "qdq": (QDQ, 18, U8, S8, False),
    "qdq per channel": (QDQ, 18, S8, S8, True),
    "qoperator": (QOPERATOR, 18, U8, S8, False),
    "qoperator per channel": (QOPERATOR, 18, S8, S8, True),
    "qdq of 16 bits": (QDQ, 21, S16, S8, False),
    "qdq of 16 bits in com.microsoft": (QDQ, 18, U16, S16, True),
    "qdq with weights of 4 bits": (QDQ, 21, U8, QuantType.QInt4, True),
}
NONE: Mapping[str, np.ndarray] = {}
FORMS = ("qdq", "qdq per channel", "qoperator", "qoperator per channel", "dynamic")


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Images for calibration, one after the other; ``others`` are the same for each."""

    def __init__(self, name: str, x: np.ndarray, others: Mapping[str, np.ndarray] = NONE) -> None:
        self.left = iter([{name: row[None], **others} for row in x])

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self.left, None)


def scenes(explainer: ogc.Explainer, count: int, seed: int) -> np.ndarray:
    """Return drawn scenes as the model of ``explainer`` takes them."""
    rng = np.random.default_rng(seed)
    how = explainer.preprocessing().preprocess
    return np.concatenate([to_tensor(two_objects(rng).image, how)[0] for _ in range(count)])


def quantize(
    source: Path, target: Path, form: str, name: str, x: np.ndarray, others: Mapping[str, np.ndarray] = NONE
) -> None:
    """Write the model in one of ``FORMS`` or ``STATIC``; input ``name`` is calibrated on ``x``, with ``others``."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _quantize(source, target, form, Calibration(name, x, others))
    finally:
        logging.disable(logging.NOTSET)


def _quantize(source: Path, target: Path, form: str, calibration: Calibration) -> None:
    if form == "dynamic":
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
        return
    fmt, opset, activations, weights, per_channel = STATIC[form]
    quantize_static(
        onnx.version_converter.convert_version(onnx.load(source), opset),
        target,
        calibration,
        quant_format=fmt,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=weights,
        extra_options={"UseQDQContribOps": form.endswith("com.microsoft")},
    )


def in_float16(path: Path, keep_io_types: bool) -> onnx.ModelProto:
    """Return the model in float16, with Casts at the ends where the inputs and outputs stay float32."""
    half = convert_float_to_float16(onnx.load(path), keep_io_types=keep_io_types)
    assert isinstance(half, onnx.ModelProto)
    return half


def saved(model: bytes, path: Path, level: str = "EXTENDED") -> onnx.ModelProto:
    """Return ``model`` as onnxruntime writes it to ``path`` after its optimisations of that level."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def of_microsoft(model: onnx.ModelProto) -> set[str]:
    """Return the types of the operators of com.microsoft."""
    return {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
