"""Volumes in NIfTI files: their values, where each voxel lies in the body, and maps in the same voxels."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import InputError, one_line
from onnx_gradcam.photos.decode import MAX_PIXELS, VOLUMES, check_file
from onnx_gradcam.photos.extras import need

NIFTI_1 = 348  # bytes of a header of the first version
SPACE = 3  # axes of a volume; a fourth holds channels


@dataclass(frozen=True, eq=False, repr=False)
class VolumeSpace:
    """Where the voxels of a volume lie.

    Attributes:
        affine: (4, 4) float64, from the index of a voxel to millimetres: right, anterior, superior.
        codes: for each axis of the volume where its index grows to: "R" or "L", "A" or "P", "S" or "I"; empty where
            the affine does not tell.
        spacing: the size of a voxel along each axis, in millimetres.
        header: the header of the file, as it is stored.
    """

    affine: NDArray[np.float64]
    codes: tuple[str, ...]
    spacing: tuple[float, ...]
    header: bytes

    def __repr__(self) -> str:
        return one_line(self)


def is_volume(path: Path) -> bool:
    """Tell by its name whether a file is a NIfTI volume."""
    return path.name.lower().endswith(VOLUMES)


def read_volume(path: Path, max_voxels: int = MAX_PIXELS) -> tuple[NDArray[np.float32], VolumeSpace]:
    """Return the values of a NIfTI volume, and where they lie.

    Args:
        path: of a .nii or .nii.gz file.
        max_voxels: the largest number of values that is read: the header says how many there are.

    Returns:
        The values as the file means them, slope and intercept applied: (X, Y, Z), or (X, Y, Z, channels), float32, the
        axes in the order of the file; and their space.

    Raises:
        InputError: the file does not exist, is no such volume, cut off or too large, or nibabel is not installed.
    """
    nibabel = need("nibabel", "nifti", f"'{path}'")
    check_file(path)
    try:
        image = nibabel.load(path)
        _check_form(path, image, max_voxels)
        values = np.asarray(image.dataobj, np.float32)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        hint = "copy or download the file again"
        raise InputError(f"cannot read '{path}' as a NIfTI volume: {error}", hint=hint, path=path) from None
    codes = tuple(nibabel.aff2axcodes(image.affine))
    space = VolumeSpace(
        affine=np.asarray(image.affine, np.float64),
        codes=codes if None not in codes else (),
        spacing=tuple(float(size) for size in image.header.get_zooms()[:SPACE]),
        header=bytes(image.header.binaryblock),
    )
    return values, space


def _check_form(path: Path, image: Any, max_voxels: int) -> None:
    """Raise ``InputError`` for an image of another format, of other axes, of no numbers, or of too many."""
    shape, dtype = tuple(image.shape), image.get_data_dtype()
    if len(shape) not in (SPACE, SPACE + 1) or dtype.kind not in "fiu" or 0 in shape:
        hint = "numbers (X, Y, Z), or (X, Y, Z, channels)"
        raise InputError(f"'{path}' holds {shape} values of {dtype}, and no volume", hint=hint, shape=shape)
    if math.prod(shape) > max_voxels:
        hint = f"a smaller copy, or --max-pixels {math.prod(shape)}"
        raise InputError(f"'{path}' has {math.prod(shape):,} voxels, more than the limit of {max_voxels:,}", hint=hint)


def encode_volume(heatmap: NDArray[Any], space: VolumeSpace) -> bytes:
    """Return a map (X, Y, Z) as a .nii.gz file of float32, with the affine, the units and the codes of a volume."""
    nibabel = need("nibabel", "nifti", "a NIfTI volume")
    first = len(space.header) == NIFTI_1
    image_kind, header_kind = (
        (nibabel.Nifti1Image, nibabel.Nifti1Header) if first else (nibabel.Nifti2Image, nibabel.Nifti2Header)
    )
    header = header_kind(space.header)
    header.set_data_dtype(np.float32)
    header["cal_min"], header["cal_max"] = 0, 0  # those of the volume would be wrong for its map
    image = image_kind(np.asarray(heatmap, np.float32), space.affine, header)
    return gzip.compress(image.to_bytes(), mtime=0)
