"""Of an animation or of several pages only the first image is explained: the user is told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import PREPROCESS, brightness_model
from PIL import Image, features

import onnx_gradcam as ogc
from onnx_gradcam.photos.frames import has_several, several_note


def saved(kind: str, count: int, **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    first, *others = (Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(count))
    buffer = io.BytesIO()
    several = {"save_all": True, "append_images": others} if others else {}
    first.save(buffer, kind, **several, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_several_images_in_a_file(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("AVIF: Pillow was built without it")
    one, three = saved(kind, 1), saved(kind, 3)
    assert (has_several(one), has_several(three)) == (False, True)
    (tmp_path / "three").write_bytes(three)
    assert several_note(one) == ()
    for source in (three, tmp_path / "three", str(tmp_path / "three"), Image.open(io.BytesIO(three))):
        [note] = several_note(source)
        assert note.endswith("holds several images: only the first is explained")
    for cut in range(0, 200, 7):
        assert has_several(three[:cut]) in (False, True)


def test_one_image_in_other_files() -> None:
    for kind, options in (
        ("JPEG", {}),
        ("BMP", {}),
        ("GIF", {"comment": b"x" * 600}),
        ("PNG", {"icc_profile": bytes(400)}),
    ):
        assert not has_several(saved(kind, 1, **options))
    assert several_note(np.zeros((3, 3, 3), np.uint8)) == ()


def test_a_thumbnail_of_a_tiff_is_no_second_image() -> None:
    page, thumbnail = Image.new("RGB", (30, 20)), Image.new("RGB", (15, 10))
    buffer = io.BytesIO()
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(buffer, "TIFF", save_all=True, append_images=[thumbnail])
    assert not has_several(buffer.getvalue())


def test_the_warning() -> None:
    form = {**PREPROCESS, "resize": "stretch"}
    with ogc.Explainer(brightness_model()) as explainer:
        warnings = explainer.explain_image(saved("GIF", 2), preprocess=form).warnings
        assert "the file holds several images: only the first is explained" in warnings
        assert not [w for w in explainer.explain_image(saved("GIF", 1), preprocess=form).warnings if "several" in w]
