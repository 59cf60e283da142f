"""Save models with their weights in other files."""

from __future__ import annotations

from pathlib import Path

import onnx


def save_beside(folder: Path, model: onnx.ModelProto, *, one_file: bool = True, smallest: int = 0) -> Path:
    """Save ``model.onnx`` with its tensors, those in attributes too, in ``model.bin`` or in a file each.

    Tensors of fewer bytes than ``smallest`` stay: onnxruntime itself reads no shape from another file.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # onnx.save changes what it saves
    path = folder / "model.onnx"
    onnx.save(
        copy,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location="model.bin" if one_file else None,
        size_threshold=smallest,
        convert_attribute=True,
    )
    return path
