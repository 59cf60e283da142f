"""What is given as a model and is none of ONNX: what it is, and the way from there to an .onnx file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TORCH = "torch.onnx.export(module, (example,), 'model.onnx', dynamo=True) writes the .onnx file"
KERAS = "keras.models.load_model(PATH).export('model.onnx', format='onnx') writes the .onnx file"
OF_ITS_SOURCE = "the .onnx file that it was made from, or another export of the original model"


class Foreign(NamedTuple):
    """What a model is, in words, and how an .onnx file is made of it."""

    kind: str
    way: str


TORCH_FILE = Foreign(
    "a file of PyTorch",
    f"build the module, load the weights into it (torch.load), then {TORCH}",
)
KERAS_FILE = Foreign("a model of Keras", KERAS)
TFLITE = Foreign(
    "a model of TensorFlow Lite", "python -m tf2onnx.convert --tflite model.tflite --output model.onnx --opset 18"
)
SAVED_MODEL = Foreign(
    "a SavedModel of TensorFlow", "python -m tf2onnx.convert --saved-model FOLDER --output model.onnx --opset 18"
)
FROZEN_GRAPH = Foreign(
    "a frozen graph of TensorFlow",
    "python -m tf2onnx.convert --graphdef model.pb --inputs x:0 --outputs y:0 --output model.onnx --opset 18",
)
PADDLE = Foreign(
    "a model of Paddle",
    "paddle2onnx --model_dir FOLDER --model_filename model.pdmodel --params_filename model.pdiparams "
    "--save_file model.onnx",
)
TENSORRT_ENGINE = Foreign("an engine of TensorRT", OF_ITS_SOURCE)
OPENVINO_IR = Foreign("a model of OpenVINO", OF_ITS_SOURCE)
CORE_ML = Foreign("a model of Core ML", OF_ITS_SOURCE)
PICKLE = Foreign(
    "a pickled object of Python", "skl2onnx for scikit-learn, or torch.onnx.export for a module of PyTorch"
)
WEIGHTS = Foreign("a file of weights without a graph", f"build the module, load the weights into it, then {TORCH}")
PHOTO = Foreign("an image", "the model comes first, then the image: the two may be exchanged")
ARRAY = Foreign("an array", "the model comes first, then the array: the two may be exchanged")

BY_SUFFIX: Mapping[str, Foreign] = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".torchscript", ".pt2"), TORCH_FILE),
    **dict.fromkeys((".keras", ".h5", ".hdf5"), KERAS_FILE),
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"), PHOTO),
    **dict.fromkeys((".npy", ".npz"), ARRAY),
    **dict.fromkeys((".mlmodel", ".mlpackage", ".mlmodelc"), CORE_ML),
    **dict.fromkeys((".engine", ".plan", ".trt"), TENSORRT_ENGINE),
    **dict.fromkeys((".pdmodel", ".pdiparams"), PADDLE),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), PICKLE),
    ".safetensors": WEIGHTS,
    ".tflite": TFLITE,
    ".pb": FROZEN_GRAPH,
    ".xml": OPENVINO_IR,
}
BY_FIRST_BYTES: Mapping[bytes, Foreign] = {
    b"\x89HDF\r\n\x1a\n": KERAS_FILE,
    b"\x89PNG": PHOTO,
    b"\xff\xd8\xff": PHOTO,
    b"\x93NUMPY": ARRAY,
    b"<?xml": OPENVINO_IR,
}
ZIP = b"PK\x03\x04"
FILES_OF_A_ZIP: Mapping[bytes, Foreign] = {b"data.pkl": TORCH_FILE, b"model.weights.h5": KERAS_FILE}
FILES_OF_A_FOLDER: Mapping[str, Foreign] = {
    "saved_model.pb": SAVED_MODEL,
    "inference.pdmodel": PADDLE,
    "model.pdmodel": PADDLE,
    "pytorch_model.bin": WEIGHTS,
    "model.safetensors": WEIGHTS,
}
MODULES: Mapping[str, Foreign] = {
    "torch.export": Foreign("an ExportedProgram of PyTorch", "torch.onnx.export(program, f='model.onnx', dynamo=True)"),
    "torch.onnx": Foreign("an ONNXProgram of PyTorch", "its model_proto, or the file that program.save(PATH) writes"),
    **dict.fromkeys(("torch.nn", "torch.jit", "torch.fx"), Foreign("a module of PyTorch", TORCH)),
    "keras": Foreign("a model of Keras", "model.export('model.onnx', format='onnx') writes the .onnx file"),
    "tensorflow": Foreign("an object of TensorFlow", SAVED_MODEL.way),
    "onnxruntime": Foreign("a session of onnxruntime", "the path or the bytes that it was opened from"),
    "onnx_ir": Foreign("a model of onnx_ir", "onnx_ir.to_proto(model)"),
    "sklearn": Foreign("a model of scikit-learn", "skl2onnx.to_onnx(model, X)"),
    "jax": Foreign("an object of JAX", "jax.experimental.jax2tf, then tf2onnx"),
    "flax": Foreign("a module of Flax", "jax.experimental.jax2tf, then tf2onnx"),
}
"""Package of an object's class, or of a class that it derives from → what it is."""


def of_object(model: object) -> Foreign | None:
    """Return what an object is that is given as a model, by the packages of its classes; None where it is not known."""
    packages = [kind.__module__ for kind in type(model).__mro__]
    return next(
        (
            foreign
            for package, foreign in MODULES.items()
            if any(name == package or name.startswith(f"{package}.") for name in packages)
        ),
        None,
    )


def of_file(path: Path | None, data: bytes) -> Foreign | None:
    """Return what a file is by its content, or else by its suffix; None where it is not known."""
    if data[4:8] == b"TFL3":
        return TFLITE
    if data.startswith(ZIP):
        inner = next((foreign for name, foreign in FILES_OF_A_ZIP.items() if name in data), None)
        if inner is not None:
            return inner
    by_content = next((foreign for first, foreign in BY_FIRST_BYTES.items() if data.startswith(first)), None)
    if by_content is not None:
        return by_content
    return None if path is None else BY_SUFFIX.get(path.suffix.lower())


def of_folder(path: Path) -> Foreign | None:
    """Return what a folder is that is given as a model; None where it is not known."""
    by_file = next((foreign for name, foreign in FILES_OF_A_FOLDER.items() if (path / name).is_file()), None)
    return by_file or BY_SUFFIX.get(path.suffix.lower())
