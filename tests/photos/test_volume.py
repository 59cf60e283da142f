"""NIfTI volumes: values, places, and maps that lie in the same voxels."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extras import extra

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos import extras
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.volume import encode_volume, read_volume

AFFINE = np.array([[-2, 0, 0, 90], [0, 0, 3, -126], [0, 1.5, 0, -72], [0, 0, 0, 1.0]])
VALUES = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)

needs_nifti = extra("nifti", "nibabel")


def write(
    path: Path, values: np.ndarray = VALUES, kind: str = "Nifti1Image", slope: tuple[float, float] = (1, 0)
) -> Path:
    nibabel: Any = importlib.import_module("nibabel")
    image = getattr(nibabel, kind)(values, AFFINE)
    image.header.set_slope_inter(*slope)
    image.header.set_xyzt_units("mm")
    image.set_sform(AFFINE, code="mni")
    nibabel.save(image, path)
    return path


@needs_nifti
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_slope_and_intercept_are_applied(name: str, tmp_path: Path) -> None:
    values, space = read_volume(write(tmp_path / name, slope=(2, -1000)))
    np.testing.assert_array_equal(values, 2.0 * VALUES - 1000)
    assert (space.codes, space.spacing) == (("L", "S", "A"), (2.0, 1.5, 3.0))
    np.testing.assert_array_equal(space.affine, AFFINE)


@needs_nifti
@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
def test_a_map_goes_round_with_affine_units_and_codes(kind: str, tmp_path: Path) -> None:
    nibabel = importlib.import_module("nibabel")
    _, space = read_volume(write(tmp_path / "a.nii.gz", kind=kind, slope=(2, -1000)))
    heatmap = np.random.default_rng(0).random((4, 5, 6), np.float32)
    data = encode_volume(heatmap, space)
    assert data == encode_volume(heatmap, space)
    (tmp_path / "map.nii.gz").write_bytes(data)
    again = nibabel.load(tmp_path / "map.nii.gz")
    assert type(again).__name__ == kind
    np.testing.assert_array_equal(again.affine, AFFINE)
    np.testing.assert_array_equal(np.asarray(again.dataobj), heatmap)
    assert again.header.get_xyzt_units()[0] == "mm"
    assert again.get_sform(coded=True)[1] == 4


@needs_nifti
def test_channels_are_the_last_axis(tmp_path: Path) -> None:
    values, space = read_volume(write(tmp_path / "a.nii", np.stack([VALUES, VALUES + 1], -1)))
    np.testing.assert_array_equal(values, np.stack([VALUES, VALUES + 1], -1))
    assert space.spacing == (2.0, 1.5, 3.0)


@needs_nifti
def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("no volume")
    whole = write(tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-20])
    for name in ("text.nii", "cut.nii.gz"):
        with pytest.raises(InputError, match="as a NIfTI volume"):
            read_volume(tmp_path / name)
    with pytest.raises(InputError, match="and no volume"):
        read_volume(write(tmp_path / "flat.nii", VALUES[0]))
    with pytest.raises(InputError, match="120 voxels, more than the limit of 100"):
        read_volume(tmp_path / "a.nii.gz", 100)
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "missing.nii")


def test_a_volume_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"a volume")
    with pytest.raises(InputError, match="is a volume, and a photo is needed here") as error:
        decode(tmp_path / "a.nii.gz")
    assert "explain_volume" in error.value.hint


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", fail)
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / "a.nii")
    assert error.value.hint == 'pip install "onnx-gradcam[nifti]"'
