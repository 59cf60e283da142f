"""Packages that only some files need: they come with extras of this package."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from onnx_gradcam.errors import InputError


def need(module: str, extra: str, what: str) -> Any:
    """Return a module of an extra.

    Args:
        module: its name, "nibabel".
        extra: the extra that brings it, "nifti".
        what: what needs it, "a NIfTI volume".

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"{what} needs the package {module!r}, which is not installed",
            hint=f'pip install "onnx-gradcam[{extra}]"',
            package=module,
        ) from None


def is_installed(module: str) -> bool:
    """Tell whether a module can be imported."""
    return importlib.util.find_spec(module) is not None
