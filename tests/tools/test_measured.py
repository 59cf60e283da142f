from __future__ import annotations

from pathlib import Path

import measured
import pytest
from measured import PROGRAMS, SECTION, kept, with_interval, write_section
from repository import ROOT

from onnx_gradcam.metrics.interval import Mean

EMPTY = (
    "before\n<!-- measured: a -->\n<!-- /measured -->\nbetween\n<!-- measured: b -->\nold\n<!-- /measured -->\nafter\n"
)


def test_a_section_is_written_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(EMPTY, "utf-8")
    write_section(page, "a", "| 1 |")
    write_section(page, "b", "| 2 |")
    write_section(page, "a", "| 3 |")
    assert page.read_text("utf-8") == (
        "before\n<!-- measured: a -->\n\n| 3 |\n\n<!-- /measured -->\nbetween\n"
        "<!-- measured: b -->\n\n| 2 |\n\n<!-- /measured -->\nafter\n"
    )
    with pytest.raises(ValueError, match="lacks <!-- measured: c -->"):
        write_section(page, "c", "")


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "KEPT", tmp_path)
    asked: list[str] = []

    def measure(name: str) -> dict[str, str]:
        asked.append(name)
        return {"figure": name}

    for question in ({"n": 1}, {"n": 1}, {"n": 2}):
        assert kept(question, lambda q=question: measure(str(q["n"]))) == {"figure": str(question["n"])}
    assert asked == ["1", "2"]
    monkeypatch.setattr(measured, "digest_of_package", lambda: "another state of the package")
    kept({"n": 1}, lambda: measure("1"))
    assert asked == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("mean", "text"),
    [
        (Mean(0.314, 0.25, 0.371, 9, 9), "0.31 [0.25, 0.37]"),
        (Mean(0.5, None, None, 1, 1), "0.50"),
        (Mean(None, None, None, 0, 0), "-"),
    ],
)
def test_a_mean_stands_with_its_interval(mean: Mean, text: str) -> None:
    assert with_interval(mean) == text


def test_every_page_with_measured_sections_has_a_program_that_make_evaluation_runs() -> None:
    pages = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page, text in pages.items() if "<!-- measured: " in text} == set(PROGRAMS)
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\nevaluation:")[2].partition("\n\n")[0]
    assert [program for program in PROGRAMS.values() if f"bin/python {program}" not in recipe] == []
    for page in PROGRAMS:
        sections = SECTION.findall(pages[page])
        assert len(sections) == pages[page].count("<!-- measured: ") == pages[page].count("<!-- /measured -->")
        assert all(content.strip() for _, content in sections)
