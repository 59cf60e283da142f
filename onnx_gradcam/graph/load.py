"""Read an ONNX model from a path, bytes or a ModelProto."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph import foreign
from onnx_gradcam.graph.external_data import external_tensors, location, read_external_data
from onnx_gradcam.graph.foreign import Foreign

ModelLike = str | os.PathLike[str] | bytes | onnx.ModelProto
FileState = tuple[int, int] | None


@dataclass(frozen=True)
class Source:
    """A model as it was given: the deployed artefact, untouched.

    Attributes:
        model: the model as it was read. It holds all its weights, and reads no file any more.
        name: what the model is called in messages: its path as it was given.
        sha256: the hash of the file, without its external data, or of the serialized bytes, as hex digits.
        path: the absolute path of the file; None for models from memory.
        data: the serialized model, for models from memory; None for files.
        files: of the file and those of its external data size and time, as they were when they were read.
    """

    model: ir.Model
    name: str
    sha256: str
    path: Path | None = None
    data: bytes | None = None
    files: tuple[tuple[Path, FileState], ...] = ()

    @property
    def deployed(self) -> Path | bytes | ir.Model:
        """Return what a runtime opens to run the untouched model.

        It is the file, as long as it is there as it was read. After that it is the model as it was read.
        """
        if self.path is not None and all(_state(file) == state for file, state in self.files):
            return self.path
        return self.model if self.data is None else self.data


def load(model: ModelLike | Source) -> Source:
    """Read ``model`` with its external data. A ``Source`` is returned as it is.

    Raises ``ModelError`` for a file that is missing, not ONNX, truncated, or lacks its external data.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, onnx.ModelProto):  # onnx_ir would rename tensors in the user's own
        return _from_bytes(bytes(model.SerializeToString()), "the ModelProto")
    if isinstance(model, bytes | bytearray | memoryview):
        return _from_bytes(bytes(model), "the bytes given")
    if isinstance(model, str | os.PathLike):
        return _from_file(Path(model))
    kind = foreign.of_object(model)
    raise ModelError(
        f"{kind.kind if kind else 'an object'} is no ONNX model: {type(model).__name__}",
        hint=kind.way if kind else "the path of an .onnx file, its bytes, or an onnx.ModelProto",
        kind=type(model).__name__,
    )


def _from_file(given: Path) -> Source:
    data = _read(given)
    path = given.absolute()  # the working folder may change before a session is opened
    kind = foreign.of_file(path, data)
    proto = _decode(data, repr(str(given)), kind)
    files = [path, *read_external_data(proto, path)]
    states = tuple((file, _state(file)) for file in files)
    return Source(_parse(proto, repr(str(given)), kind), str(given), _sha256(data), path=path, files=states)


def _from_bytes(data: bytes, name: str) -> Source:
    kind = foreign.of_file(None, data)
    proto = _decode(data, name, kind)
    for tensor, owner in external_tensors(proto):
        raise ModelError(
            f"{name} keeps weights in another file: {location(tensor)!r}",
            where=owner,
            hint="the path of the .onnx file, or onnx.load(path), which reads that file, too",
            location=location(tensor),
        )
    return Source(_parse(proto, name, kind), "the model given in memory", _sha256(data), data=data)


def _state(file: Path) -> FileState:
    """Return size and time of a file, None where it is gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise _folder(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"no such model file: {str(path)!r}", hint=_siblings(path), path=path) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {str(path)!r}: {error}", hint="the path of an .onnx file", path=path) from None


def _folder(path: Path) -> ModelError:
    kind = foreign.of_folder(path)
    what = f"{kind.kind}, not" if kind else "a folder, not"
    return ModelError(
        f"{str(path)!r} is {what} an .onnx file", hint=kind.way if kind else _siblings(path / "x"), path=path
    )


def _siblings(path: Path) -> str:
    found = sorted(p.name for p in path.parent.glob("*.onnx"))[:5] if path.parent.is_dir() else []
    return f"one of the models there: {', '.join(found)}" if found else "the path of an .onnx file"


def _decode(data: bytes, name: str, kind: Foreign | None) -> onnx.ModelProto:
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
        where = f"{len(data)} bytes, which do not parse as a ModelProto"
        raise _no_model(f"{name} is not an ONNX model, or is truncated", name, kind, where) from None


def _no_model(what: str, name: str, kind: Foreign | None, where: str = "") -> ModelError:
    """Return the error for a file that is of another ``kind``, or broken."""
    if kind is not None:
        return ModelError(f"{name} is {kind.kind}, not an ONNX model", hint=kind.way)
    hint = "check that the whole file was copied (git-lfs pointers and web pages are common mistakes)"
    return ModelError(what, where=where, hint=hint)


def _parse(proto: onnx.ModelProto, name: str, kind: Foreign | None) -> ir.Model:
    lacks = "graph with nodes and outputs" if not proto.graph.node or not proto.graph.output else ""
    if not lacks and not proto.opset_import and proto.ir_version >= 3:  # it stands behind the graph
        lacks = "opset version"
    if lacks:
        raise _no_model(f"{name} is not an ONNX model, or is truncated: it holds no {lacks}", name, kind)
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
