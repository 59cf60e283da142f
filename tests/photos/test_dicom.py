"""DICOM files: slope and intercept, windows, inverted grey, colours, and what is refused."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extras import extra
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.photos import listing
from onnx_gradcam.photos.decode import decode, decode_window

pytestmark = extra("dicom", "pydicom")
STORED = np.array([[0, 864, 1064], [1264, 2000, 4095]], np.uint16)

GREY = {
    "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11,
    "PhotometricInterpretation": "MONOCHROME2",
}  # fmt: skip
COLOUR = {
    "SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
}  # fmt: skip


def dicom(pixels: np.ndarray = STORED, **fields: Any) -> bytes:
    """Return the bytes of a file; ``fields`` are its further elements."""
    pydicom = importlib.import_module("pydicom")
    data = pydicom.dataset.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    rows, columns = pixels.shape[-2:] if pixels.dtype != np.uint8 else pixels.shape[:2]
    is_colour = pixels.dtype == np.uint8
    kind = COLOUR if is_colour else GREY
    standard = {"Rows": rows, "Columns": columns, "PixelRepresentation": 0, **kind}
    for name, value in {**standard, **fields}.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


HU = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}


def test_a_window_is_in_the_units_of_the_file() -> None:
    grey = decode_window(dicom(**HU), (40, 400))[:, :, 0]
    expected = np.clip((STORED - 1024.0 - 40) / 400 + 0.5, 0, 1) * 255  # -160 HU is black, 240 HU white
    np.testing.assert_allclose(grey, expected, atol=1e-4)
    assert grey[0, 2] == 127.5


def test_small_values_are_white_in_monochrome1() -> None:
    plain, inverted = (
        decode_window(dicom(**HU, PhotometricInterpretation=kind), (40, 400)) for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_allclose(inverted, 255 - plain, atol=1e-4)
    fields = {"WindowCenter": 1064, "WindowWidth": 400}
    shown = [decode(dicom(**fields, PhotometricInterpretation=kind)) for kind in ("MONOCHROME2", "MONOCHROME1")]
    np.testing.assert_array_equal(shown[1], 255 - shown[0])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_of_the_file_as_pydicom_applies_it(function: str) -> None:
    pydicom = importlib.import_module("pydicom")
    data = dicom(WindowCenter=["1064", "3"], WindowWidth=["400", "9"], VOILUTFunction=function)
    expected = pydicom.pixels.apply_voi_lut(STORED, pydicom.dcmread(io.BytesIO(data))) / 4095 * 255  # 12 bits
    np.testing.assert_allclose(decode(data)[:, :, 0], expected, atol=0.51)


def test_colours_stay() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decode(dicom(pixels)), pixels)


def model() -> Any:
    net = Net()
    x = net.input("x", ["N", 1, 2, 3])
    y = net.op("Relu", net.op("Conv", x, net.array(np.ones((2, 1, 1, 1), np.float32))), out="relu")
    head = net.array(np.ones((2, 2), np.float32))
    return net.model({net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", y)), head, out="y"): ["N", 2]})


def test_a_file_without_a_window_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "ct.dcm").write_bytes(dicom(**HU))
    with ogc.Explainer(model()) as explainer:
        whole = explainer.explain_image(tmp_path / "ct.dcm", 0, preprocess="zero-one")
        chosen = explainer.explain_image(tmp_path / "ct.dcm", 0, preprocess="zero-one,window=40:400")
        declared = explainer.explain_image(dicom(WindowCenter=1064, WindowWidth=400), 0, preprocess="zero-one")
    assert any("declares no window" in warning for warning in whole.warnings)
    np.testing.assert_allclose(whole.activation[0, 0], np.rint(STORED / 4095 * 255) / 255, atol=1e-6)
    np.testing.assert_allclose(chosen.activation[0, 0], np.clip((STORED - 864.0) / 400, 0, 1), atol=1e-6)
    for other in (chosen, declared):
        assert not any("window" in warning for warning in other.warnings)


def test_tiles_of_an_inverted_image(tmp_path: Path) -> None:
    data = dicom(PhotometricInterpretation="MONOCHROME1")
    how = {"preset": "zero-one", "resize": "stretch", "window": [1064, 400]}
    with ogc.Explainer(model()) as explainer:
        joined = ogc.explain_tiles(explainer, data, 0, tile=3, preprocess=how)
    expected = 1 - np.clip((STORED - 864.0) / 400, 0, 1)
    np.testing.assert_allclose(joined.heatmap[0], expected / expected.max(), atol=1e-6)
    assert joined.provenance.as_dict() is not None
    assert joined.provenance.preprocess is not None
    assert joined.provenance.preprocess.record()["window"]["value"] == (1064.0, 400.0)


def test_what_is_refused(tmp_path: Path) -> None:
    several = dicom(np.stack([STORED, STORED]), NumberOfFrames="2")
    with pytest.raises(ogc.InputError, match="holds 2 frames") as error:
        decode(several)
    assert "one file for each frame" in error.value.hint
    with pytest.raises(ogc.InputError, match="as DICOM"):
        decode(dicom()[:-4])
    with pytest.raises(ogc.InputError, match="as DICOM"):
        decode(dicom()[:200])
    with pytest.raises(ogc.InputError, match="more than the limit of 5"):
        decode(dicom(), 5)


def test_files_of_a_folder_are_taken(tmp_path: Path) -> None:
    (tmp_path / "ct.dcm").write_bytes(dicom())
    assert listing.list_images([tmp_path]) == [tmp_path / "ct.dcm"]
