from __future__ import annotations

import hashlib
from pathlib import Path

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import feeds, run

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

MODEL = builders.plain()
DATA = MODEL.SerializeToString()


def external(folder: Path) -> Path:
    """The same model with its weights in ``weights.bin``."""
    path = folder / "big.onnx"
    onnx.save(builders.plain(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def refusal(model: object) -> str:
    with pytest.raises(ModelError) as error:
        load(model)  # type: ignore[arg-type]
    return str(error.value)


def test_a_path_bytes_and_a_proto_give_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)
    fed = feeds(MODEL)
    expected = run(MODEL, fed)["logits"]
    for given in (path, str(path), DATA, MODEL):
        source = load(given)
        np.testing.assert_array_equal(run(ir.to_proto(source.model), fed)["logits"], expected)
        assert source.sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_source_knows_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)
    assert (load(path).path, load(path).data, load(path).name) == (path, None, str(path))
    assert (load(DATA).path, load(DATA).data, load(DATA).name) == (None, DATA, "the model given in memory")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is text" * 9, "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n", "not an ONNX model"),
        (b"<!DOCTYPE html>\n<html lang='en'>", "not an ONNX model"),
        (DATA[:-700], "truncated"),
        (DATA[: len(DATA) // 3], "truncated"),
        (b"\x18\x00\x00\x00ORTM" + bytes(40), ".ort"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
    ],
    ids=["empty", "text", "lfs", "html", "truncated", "mostly_missing", "ort", "no_graph"],
)
def test_bytes_that_are_no_model(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert words in refusal(path)
    assert "'" + str(path) in refusal(path)
    assert words in refusal(content)


def test_every_truncation_is_refused() -> None:
    for end in [*range(1, len(DATA), 97), *range(len(DATA) - 10, len(DATA))]:
        assert "not an ONNX model" in refusal(DATA[:end])


def test_a_missing_file_names_the_models_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(DATA)
    message = refusal(tmp_path / "modle.onnx")
    assert "no such model file" in message
    assert "modle.onnx'" in message
    assert "model.onnx" in message.splitlines()[-1]
    assert "the path of an .onnx file" in refusal(tmp_path / "nowhere" / "modle.onnx")


def test_a_folder_names_the_models_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(DATA)
    message = refusal(tmp_path)
    assert "is a folder" in message
    assert "model.onnx" in message.splitlines()[-1]


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte", "model.onnx/below"])
def test_a_path_that_cannot_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(DATA)
    assert "cannot read" in refusal(tmp_path / name)


def test_external_data_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path)
    fed = feeds(MODEL)
    expected = run(MODEL, fed)["logits"]
    (tmp_path / "elsewhere").mkdir()
    for name in (path, "big.onnx"):
        monkeypatch.chdir(tmp_path)
        source = load(name)
        monkeypatch.chdir(tmp_path / "elsewhere")
        prepared = prepare(source.model)
        np.testing.assert_array_equal(run(ir.to_proto(prepared), fed)["logits"], expected)


def test_missing_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    message = refusal(path)
    assert "'weights.bin'" in message
    assert "is missing" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("declared", [True, False], ids=["length", "no_length"])
def test_truncated_external_data(tmp_path: Path, declared: bool) -> None:
    path = external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    if not declared:  # the specification makes the length optional
        for tensor in proto.graph.initializer:
            kept = [entry for entry in tensor.external_data if entry.key != "length"]
            del tensor.external_data[:]
            tensor.external_data.extend(kept)
    path.write_bytes(proto.SerializeToString())
    load(path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    message = refusal(path)
    assert "'weights.bin'" in message
    assert "is truncated" in message


def test_external_data_cannot_be_found_from_memory(tmp_path: Path) -> None:
    path = external(tmp_path)
    for given in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        message = refusal(given)
        assert "'weights.bin'" in message
        assert "the path" in message
    np.testing.assert_array_equal(
        run(ir.to_proto(load(onnx.load(path)).model), feeds(MODEL))["logits"], run(MODEL, feeds(MODEL))["logits"]
    )


def test_an_output_of_maps_needs_no_type() -> None:
    proto = builders.zipmap()
    before = proto.SerializeToString()
    model = load(proto).model
    assert [v.name for v in model.graph.outputs] == ["label", "maps"]
    assert proto.SerializeToString() == before


def test_a_value_that_two_nodes_make_is_a_model_error() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        twice (float[1] x) => (float[1] y) { y = Relu(x)  y = Neg(x) }"""
    )
    with pytest.raises(ModelError, match="not a valid model"):
        load(model)
