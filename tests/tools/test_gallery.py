"""The pictures of the documentation: which there are, how large they are, and where they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from gallery import IMAGES, PICTURES, WIDEST, encode
from repository import DOCS, ROOT
from tutorials import PICTURE

from onnx_gradcam.photos.decode import decode

LIMIT = 60_000
OF_RECIPES = [
    picture["image"].rpartition("/")[2]
    for page in sorted((DOCS / "recipes").glob("*.md"))
    for picture in PICTURE.finditer(page.read_text("utf-8"))
]
"""The pictures that `tools/tutorials.py PAGE --pictures` draws."""


def test_the_programs_draw_what_is_there() -> None:
    assert {path.name for path in IMAGES.iterdir()} == {f"{name}.jpg" for name in PICTURES} | set(OF_RECIPES)


@pytest.mark.parametrize("name", [*(f"{name}.jpg" for name in PICTURES), *OF_RECIPES])
def test_a_picture_is_small(name: str) -> None:
    data = (IMAGES / name).read_bytes()
    assert len(data) < LIMIT
    assert decode(data).shape[1] <= WIDEST


def test_every_picture_is_shown() -> None:
    assert set(_shown()) == {f"{name}.jpg" for name in PICTURES} | set(OF_RECIPES)


def test_wide_pictures_are_made_narrower() -> None:
    grey = np.full((100, 2 * WIDEST, 3), 128, np.uint8)
    shape = decode(encode(grey)).shape
    assert shape == (50, WIDEST, 3)


def test_a_picture_shows_the_class_that_it_names() -> None:
    """Drawn again; JPEG and another processor may move a pixel by a few levels."""
    drawn, stored = PICTURES["star"](), decode((IMAGES / "star.jpg").read_bytes())
    assert drawn.shape == stored.shape
    assert np.abs(drawn.astype(int) - stored).mean() < 4


def _shown() -> Iterator[str]:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        yield from re.findall(r"!\[[^\]]*\]\(\S*?images/([^)\s]+)\)", page.read_text("utf-8"))
