"""Read weights that a model keeps in other files, so that it becomes the same as a model that holds them itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx
import onnx_ir as ir

from onnx_gradcam.errors import ModelError


def read_external_data(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """Put the weights that lie in other files into the model itself, and return these files, each once.

    From then on nothing reads the files: they may be written anew or deleted while the model is in use.

    Args:
        proto: the model; it is changed.
        path: the file that it comes from. The others are looked for in its folder.

    Raises:
        ModelError: a file is missing, too short, outside of the folder or cannot be read, or what the model says of a
            tensor's place in it is no place.
    """
    files: dict[Path, None] = {}
    for tensor, owner in external_tensors(proto):
        file = _file_of(tensor, owner, path)
        tensor.raw_data = _read(tensor, owner, file, path)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
        files[file] = None
    return list(files)


def external_tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """Yield the tensors that lie in other files, each with what it is in the model, for messages."""
    in_functions = (_in_nodes(function.node) for function in proto.functions)
    for tensors in (_in_graph(proto.graph), *in_functions):
        yield from ((t, owner) for t, owner in tensors if t.data_location == onnx.TensorProto.EXTERNAL)


def location(tensor: onnx.TensorProto) -> str:
    """Return the name of the file that a tensor lies in, as the model has it."""
    return _entries(tensor).get("location", "")


def _in_graph(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    yield from ((tensor, f"weights of {tensor.name!r}") for tensor in graph.initializer)
    for sparse in graph.sparse_initializer:
        yield from ((tensor, f"weights of {sparse.values.name!r}") for tensor in (sparse.values, sparse.indices))
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[onnx.TensorProto, str]]:
    for node in nodes:
        owner = f"weights in node {node.name!r} ({node.op_type})"
        for attribute in node.attribute:
            tensors = [attribute.t] if attribute.HasField("t") else attribute.tensors
            yield from ((tensor, owner) for tensor in tensors)
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _in_graph(graph)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _file_of(tensor: onnx.TensorProto, owner: str, path: Path) -> Path:
    name = PurePosixPath(location(tensor))
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise ModelError(
            f"{str(path)!r} keeps weights where no model may: in {str(name)!r}",
            where=owner,
            hint="external data in the folder of the model; onnx.save(model, path, save_as_external_data=True) does so",
            path=path,
            location=str(name),
        )
    file = path.parent / name
    if not file.is_file():
        raise ModelError(
            f"the external data of {str(path)!r} is missing: {str(name)!r}",
            where=f"{owner}; looked in {path.parent}",
            hint="copy that file next to the model; export writes the two together",
            path=path,
            location=str(name),
        )
    return file


def _read(tensor: onnx.TensorProto, owner: str, file: Path, path: Path) -> bytes:
    begin, needed = _extent(tensor, owner, path)
    try:
        with file.open("rb") as opened:
            opened.seek(begin)
            data = opened.read(needed)
    except OSError as error:
        raise ModelError(
            f"cannot read the external data of {str(path)!r}: {error}",
            where=owner,
            hint="check the permissions of that file",
            path=path,
            location=location(tensor),
        ) from None
    if len(data) < needed:
        raise ModelError(
            f"the external data of {str(path)!r} is truncated: {location(tensor)!r}",
            where=f"{file.stat().st_size} bytes, {begin + needed} are needed for {owner}",
            hint="copy that file again",
            path=path,
            location=location(tensor),
        )
    return data


def _extent(tensor: onnx.TensorProto, owner: str, path: Path) -> tuple[int, int]:
    """Return where the bytes of a tensor begin in their file, and how many there are."""
    entries = _entries(tensor)
    begin, length = entries.get("offset", "0"), entries.get("length")
    needed = _bytes_of(tensor)
    if needed is not None and begin.isdecimal() and (length is None or length == str(needed)):
        return int(begin), needed
    raise ModelError(
        f"{str(path)!r} does not say where its weights lie in {location(tensor)!r}",
        where=f"{owner}: offset {begin!r}, length {length!r}, {needed} bytes are needed",
        hint="export it again, or save it with onnx.save",
        path=path,
        location=location(tensor),
    )


def _bytes_of(tensor: onnx.TensorProto) -> int | None:
    """Return how many bytes a tensor has; None for strings and unknown dtypes, which cannot lie in another file."""
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError):
        return None
    size: int = math.prod(tensor.dims)
    return math.ceil(size * bits / 8)
