"""The generated documentation."""

from __future__ import annotations

import pytest
from repository import ROOT

from docs import METHODS_END, METHODS_START, PRODUCT, with_table
from onnx_gradcam.methods import attribution, cam


def test_the_table_stands_between_its_markers() -> None:
    text = f"before\n{METHODS_START}\n{METHODS_END}\nafter\n"
    filled = with_table(text, "| a |")
    assert filled == f"before\n{METHODS_START}\n| a |\n{METHODS_END}\nafter\n"
    assert with_table(filled, "| b |") == filled.replace("| a |", "| b |")


@pytest.mark.parametrize("text", ["", METHODS_START, METHODS_END, f"{METHODS_END}\n{METHODS_START}"])
def test_a_readme_without_markers_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_table(text, "| a |")


def test_the_readme_lists_every_method() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = readme.partition(METHODS_START)[2].partition(METHODS_END)[0]
    assert [name for name in (*cam.CAMS, *attribution.ATTRIBUTIONS, PRODUCT) if f"| `{name}` |" not in rows] == []
