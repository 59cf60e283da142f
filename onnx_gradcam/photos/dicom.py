"""DICOM files: their values in the units that the file means, and the window that it declares."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.extras import need
from onnx_gradcam.photos.window import WHITE, Window

DICOM = ".dcm"
PREAMBLE, MAGIC = 128, b"DICM"
HEAD = PREAMBLE + len(MAGIC)
NO_WINDOW = (
    "the DICOM file declares no window: its smallest value is black and its largest white, for the model, too; set one "
    "with --preprocess window=CENTRE:WIDTH"
)
Share = NDArray[np.float64]
FUNCTIONS: Mapping[str, Callable[[Share, float, float], Share]] = {
    "LINEAR": lambda v, c, w: (v - (c - 0.5)) / max(w - 1, 1e-9) + 0.5,
    "LINEAR_EXACT": lambda v, c, w: (v - c) / w + 0.5,
    "SIGMOID": lambda v, c, w: 1 / (1 + np.exp(-4 * (v - c) / w)),
}
"""VOI LUT Function (PS3.3, C.11.2.1) → the share of white of a value, before it is cut to 0 to 1."""


@dataclass(frozen=True, eq=False)
class DicomImage:
    """The image in a DICOM file.

    Attributes:
        values: (H, W) float32 after slope and intercept, such as Hounsfield units; or (H, W, 3) uint8 RGB.
        shown: the same as grey or colour from 0 to 255, uint8, through the window that the file declares.
        is_inverted: whether small values are white (MONOCHROME1).
        has_window: whether the file declares a window.
    """

    values: NDArray[Any]
    shown: NDArray[np.uint8]
    is_inverted: bool
    has_window: bool


def is_dicom(data: bytes) -> bool:
    """Tell by its first bytes whether a file is DICOM."""
    return data[PREAMBLE:HEAD] == MAGIC


def read_dicom(data: bytes, name: str, check_size: Callable[[tuple[int, int]], None]) -> DicomImage:
    """Return the image in a DICOM file.

    Args:
        data: the bytes of the file.
        name: what messages call it.
        check_size: raises for a (width, height) that is too large; it is called before pixels are decoded.

    Raises:
        InputError: pydicom is not installed, the file is damaged, has several frames, or its pixels cannot be decoded.
    """
    pydicom = need("pydicom", "dicom", f"{name}, a DICOM file,")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        frames = int(dataset.get("NumberOfFrames") or 1)
        check_size((int(dataset.Columns), int(dataset.Rows)))
        stored = dataset.pixel_array if frames == 1 else None
    except (pydicom.errors.InvalidDicomError, AttributeError, KeyError, ValueError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())
        hint = "copy the file again; compressed pixels need a decoder: pip install pylibjpeg pylibjpeg-libjpeg"
        raise InputError(f"cannot read {name} as DICOM: {reason}", hint=hint, source=name) from None
    if stored is None:
        hint = "one file for each frame, or a volume as .nii or .npy for a model with three axes"
        raise InputError(f"{name} holds {frames} frames", hint=hint, source=name, frames=frames)
    if stored.ndim == 3:
        return _colours(pydicom, dataset, stored, name)
    values = np.asarray(pydicom.pixels.apply_modality_lut(stored, dataset), np.float32)
    inverted = str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1"
    declared = _window(dataset)
    centre, width = declared or _whole_range(values)
    share = FUNCTIONS[_function(dataset) if declared else "LINEAR_EXACT"](values.astype(np.float64), centre, width)
    grey = np.rint(np.clip(share, 0, 1) * WHITE).astype(np.uint8)
    shown = np.asarray(int(WHITE) - grey if inverted else grey, np.uint8)
    return DicomImage(values, shown, inverted, declared is not None)


def _colours(pydicom: Any, dataset: Any, stored: NDArray[Any], name: str) -> DicomImage:
    kind = str(dataset.get("PhotometricInterpretation"))
    if kind.startswith("YBR"):
        stored = pydicom.pixels.convert_color_space(stored, kind, "RGB")
    if stored.dtype != np.uint8 or stored.shape[2] != 3:
        raise InputError(f"{name} holds colours of {stored.dtype}", hint="8-bit RGB, or grey", source=name)
    return DicomImage(stored, np.asarray(stored, np.uint8), False, True)


def _window(dataset: Any) -> Window | None:
    """Return the first window that a file declares, None where it declares none."""
    both = [np.atleast_1d(dataset.get(key)) for key in ("WindowCenter", "WindowWidth")]
    if any(value[0] is None for value in both):
        return None
    centre, width = (float(value[0]) for value in both)
    return (centre, width) if width > 0 else None


def _function(dataset: Any) -> str:
    name = str(dataset.get("VOILUTFunction") or "LINEAR")
    return name if name in FUNCTIONS else "LINEAR"


def _whole_range(values: NDArray[Any]) -> Window:
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, max(high - low, 1e-9)
