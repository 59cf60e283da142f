"""Read an ONNX model from a path, bytes or a ModelProto."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnx_gradcam.errors import ModelError

ModelLike = str | os.PathLike[str] | bytes | onnx.ModelProto


@dataclass(frozen=True)
class Source:
    """A model as it was given: the deployed artefact, untouched.

    ``path`` is None for models from memory, then ``data`` holds the serialized model.
    """

    model: ir.Model
    path: Path | None
    data: bytes | None

    @property
    def name(self) -> str:
        """Return what the model is called in messages."""
        return str(self.path) if self.path else "the model given in memory"

    def sha256(self) -> str:
        """Return the SHA-256 of the file (without its external data) or of the serialized bytes."""
        content = self.path.read_bytes() if self.path else self.data or b""
        return hashlib.sha256(content).hexdigest()


def load(model: ModelLike | Source) -> Source:
    """Read ``model``; external data is mapped, not read. A ``Source`` is returned as it is.

    Raises ``ModelError`` for a file that is missing, not ONNX, truncated, or lacks its external data.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, onnx.ModelProto):  # onnx_ir would rename tensors in the user's own
        return _from_bytes(bytes(model.SerializeToString()), "the ModelProto")
    if isinstance(model, bytes):
        return _from_bytes(model, "the bytes given")
    path = Path(model)
    parsed = _parse(_decode(_read(path), repr(str(path))), repr(str(path)))
    _attach_external_data(parsed, path)
    return Source(parsed, path, None)


def _from_bytes(data: bytes, name: str) -> Source:
    return Source(_self_contained(_decode(data, name), name), None, data)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError(f"{str(path)!r} is a folder, not an .onnx file", hint=_siblings(path / "x"), path=path)
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"no such model file: {str(path)!r}", hint=_siblings(path), path=path) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {str(path)!r}: {error}", hint="the path of an .onnx file", path=path) from None


def _siblings(path: Path) -> str:
    found = sorted(p.name for p in path.parent.glob("*.onnx"))[:5] if path.parent.is_dir() else []
    return f"one of the models there: {', '.join(found)}" if found else "the path of an .onnx file"


def _decode(data: bytes, name: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{name} is empty", hint="export or copy the model again")
    if data[4:8] == b"ORTM":
        raise ModelError(
            f"{name} is in onnxruntime's own .ort format",
            hint="the .onnx file that it was converted from; .ort files keep no portable graph",
        )
    try:
        return onnx.load_model_from_string(data)
    except DecodeError:
        raise ModelError(
            f"{name} is not an ONNX model, or is truncated",
            where=f"{len(data)} bytes, which do not parse as a ModelProto",
            hint="check that the whole file was copied (git-lfs pointers and web pages are common mistakes)",
        ) from None


def _parse(proto: onnx.ModelProto, name: str) -> ir.Model:
    lacks = "graph with nodes and outputs" if not proto.graph.node or not proto.graph.output else ""
    if not lacks and not proto.opset_import and proto.ir_version >= 3:  # it stands behind the graph
        lacks = "opset version"
    if lacks:
        raise ModelError(
            f"{name} is not an ONNX model, or is truncated: it holds no {lacks}",
            hint="check that the whole file was copied (git-lfs pointers and web pages are common mistakes)",
        )
    try:
        return ir.from_proto(_without_maps(proto))
    except ir.serde.SerdeError as error:
        cause = error.__cause__ or error
        raise ModelError(
            f"{name} is not a valid model: {' '.join(str(cause).split())[:300]}",
            hint="a model that onnx.checker accepts; export or convert it again",
        ) from None


def _without_maps(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without the types of maps (ZipMap's), which onnx_ir does not have; the runtime infers them."""
    infos = [*proto.graph.output, *proto.graph.value_info]
    if not any(_holds_map(info.type) for info in infos):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for info in [*copy.graph.output, *copy.graph.value_info]:
        if _holds_map(info.type):
            info.ClearField("type")
    return copy


def _holds_map(kind: onnx.TypeProto) -> bool:
    inner = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind
    return bool(inner.HasField("map_type"))


def _self_contained(proto: onnx.ModelProto, name: str) -> ir.Model:
    model = _parse(proto, name)
    for value, tensor in _external(model):
        raise ModelError(
            f"{name} keeps weights in another file: {str(tensor.location)!r}",
            where=f"weights of {value.name!r}",
            hint="the path of the .onnx file, or onnx.load(path), which reads that file, too",
            location=str(tensor.location),
        )
    return model


def _external(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value, value.const_value


def _attach_external_data(model: ir.Model, path: Path) -> None:
    folder = path.parent.resolve()
    ir.external_data.set_base_dir(model.graph, folder)
    for value, tensor in _external(model):
        file = folder / tensor.location
        if not file.is_file():
            raise ModelError(
                f"the external data of {str(path)!r} is missing: {str(tensor.location)!r}",
                where=f"weights of {value.name!r}; looked in {folder}",
                hint="copy that file next to the model; export writes the two together",
                path=path,
                location=str(tensor.location),
            )
        needed = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if file.stat().st_size < needed:
            raise ModelError(
                f"the external data of {str(path)!r} is truncated: {str(tensor.location)!r}",
                where=f"{file.stat().st_size} bytes, {needed} are needed for {value.name!r}",
                hint="copy that file again",
                path=path,
                location=str(tensor.location),
            )
