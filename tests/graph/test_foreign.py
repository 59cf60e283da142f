"""What is given in the place of an ONNX model is named, with the way to an .onnx file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnxruntime as ort
import pytest

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.load import load


def refusal(model: Any) -> ModelError:
    with pytest.raises(ModelError) as error:
        load(model)
    assert error.value.hint
    return error.value


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(64)
TFLITE = b"\x1c\0\0\0TFL3" + bytes(64)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.mark.parametrize(
    ("name", "data", "kind", "way"),
    [
        ("model.pt", zipped("model/data.pkl", "model/data/0"), "a file of PyTorch", "torch.onnx.export"),
        ("model.bin", zipped("model/data.pkl"), "a file of PyTorch", "torch.onnx.export"),
        ("old.pth", b"\x80\x02\x8a\nl\xfc\x9cF", "a file of PyTorch", "torch.onnx.export"),
        ("model.keras", zipped("config.json", "model.weights.h5"), "a model of Keras", "export('model.onnx'"),
        ("model.h5", HDF5, "a model of Keras", "export('model.onnx'"),
        ("weights", HDF5, "a model of Keras", "export('model.onnx'"),
        ("model.tflite", TFLITE, "a model of TensorFlow Lite", "tf2onnx.convert --tflite"),
        ("model.onnx", TFLITE, "a model of TensorFlow Lite", "tf2onnx.convert --tflite"),
        ("frozen.pb", b"\x0a\x20\x0a\x01x\xff\xff", "a frozen graph of TensorFlow", "--graphdef"),
        ("model.xml", b'<?xml version="1.0"?><net/>', "a model of OpenVINO", "the .onnx file"),
        ("model.engine", b"ftrt\0\0\0\0", "an engine of TensorRT", "the .onnx file"),
        ("model.safetensors", b"\x40\0\0\0\0\0\0\0{}", "a file of weights", "torch.onnx.export"),
        ("model.pkl", b"\x80\x04\x95", "a pickled object", "skl2onnx"),
        ("cat.png", PNG, "an image", "exchanged"),
        ("photo", b"\xff\xd8\xff\xe0" + bytes(64), "an image", "exchanged"),
    ],
)
def test_a_file(name: str, data: bytes, kind: str, way: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    error = refusal(tmp_path / name)
    assert f"'{tmp_path / name}' is {kind}" in error.what
    assert way in error.hint
    assert "git-lfs" not in error.hint


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    error = refusal(tmp_path)
    assert "is a SavedModel of TensorFlow, not an .onnx file" in error.what
    assert "--saved-model" in error.hint
    (tmp_path / "model.mlpackage").mkdir()
    assert "is a model of Core ML" in refusal(tmp_path / "model.mlpackage").what


def test_the_suffix_decides_nothing_where_the_content_is_onnx(tmp_path: Path) -> None:
    """Old models of ONNX are called model.pb."""
    for name in ("model.pb", "model.pt", "model.h5"):
        (tmp_path / name).write_bytes(builders.plain().SerializeToString())
        assert load(tmp_path / name).model.graph.outputs


def test_bytes_of_another_kind() -> None:
    assert "the bytes given is a model of Keras" in refusal(HDF5).what
    assert load(bytearray(builders.plain().SerializeToString())).path is None


def test_modules_and_programs_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")

    class Net(torch.nn.Sequential):  # type: ignore[misc]
        """A module of the user's own."""

    error = refusal(Net())
    assert error.what == "a module of PyTorch is no ONNX model: Net"
    assert "torch.onnx.export" in error.hint
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    assert "ExportedProgram" in refusal(program).what
    assert refusal(torch.zeros(2)).what == "an object is no ONNX model: Tensor"


def test_other_objects() -> None:
    session = ort.InferenceSession(builders.plain().SerializeToString(), providers=["CPUExecutionProvider"])
    assert "a session of onnxruntime" in refusal(session).what
    for model in (np.zeros(3), None, 3, object()):
        assert ".onnx file" in refusal(model).hint
