"""The generated documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import ROOT

from docs import BLOCK, BLOCKS, PAGES, PRODUCT, with_block
from onnx_gradcam.methods import attribution, cam

START, END = "<!-- generated: methods -->", "<!-- /generated -->"
OTHER = "<!-- generated: fusion -->"


def test_a_block_stands_between_its_markers() -> None:
    text = f"before\n{START}\n{END}\nafter\n{OTHER}\nkept\n{END}\n"
    filled = with_block(text, "methods", "| a |")
    assert filled == f"before\n{START}\n| a |\n{END}\nafter\n{OTHER}\nkept\n{END}\n"
    assert with_block(filled, "methods", "| b |") == filled.replace("| a |", "| b |")


@pytest.mark.parametrize("text", ["", START, END, f"{END}\n{START}", f"{START}\n{OTHER}\n{END}", f"{OTHER}\n{END}"])
def test_a_page_without_markers_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_block(text, "methods", "| a |")


def test_every_block_stands_on_one_page() -> None:
    """Each marker of a page is known to the program, and each block that the program knows is shown somewhere."""
    shown = {page: tuple(match[1] for match in BLOCK.finditer((ROOT / page).read_text("utf-8"))) for page in PAGES}
    assert {page: sorted(names) for page, names in PAGES.items()} == {p: sorted(names) for p, names in shown.items()}
    assert sorted(name for names in PAGES.values() for name in names) == sorted(BLOCKS)
    marked = {path.relative_to(ROOT).as_posix() for path in _pages() if "<!-- generated: " in path.read_text("utf-8")}
    assert marked == set(PAGES)


def test_the_page_of_methods_lists_every_method() -> None:
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    rows = next(match[2] for match in BLOCK.finditer(page) if match[1] == "methods")
    assert [name for name in (*cam.CAMS, *attribution.ATTRIBUTIONS, PRODUCT) if f"| `{name}` |" not in rows] == []


def _pages() -> list[Path]:
    return [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
