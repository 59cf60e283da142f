"""docs/kinds.md: every small network in every form, what is read of it and what verify says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import kinds
import pytest
from expected import Expectation

import onnx_gradcam as ogc

WRITTEN = {case.name: case for case in kinds.written()}


def tables() -> dict[str, kinds.Table]:
    pytest.importorskip("torch", reason="torch: not installed")
    return {table.title: table for table in kinds.tables()}


def cells() -> dict[str, dict[str, dict[str, str]]]:
    return kinds.read_page(kinds.PAGE.read_text("utf-8"))


def test_the_page_has_every_network_in_every_form() -> None:
    page = cells()
    for title, table in tables().items():
        assert list(page[title]) == [case.name for case in table.cases], "make kinds"
        assert all(list(row) == list(table.columns) for row in page[title].values())


def test_no_score_no_layer_and_no_gradient_of_the_page_is_wrong() -> None:
    every = [(name, form, text) for t in cells().values() for name, r in t.items() for form, text in r.items()]
    kept = ("right, passed", "right, undecided", "–")
    assert [cell for cell in every if not cell[2].startswith(kept)] == []


def test_at_most_one_in_twenty_is_undecided() -> None:
    texts = [text for table in cells().values() for row in table.values() for text in row.values()]
    assert 20 * texts.count("right, undecided") <= sum(text.startswith("right") for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_read_of_the_networks_as_they_are(name: str, tmp_path: Path) -> None:
    case = WRITTEN[name]
    page = cells()[kinds.WRITTEN][name]
    for form in ("float32", "channels last"):
        try:
            text = kinds.cell(case, kinds.in_form(case, form, tmp_path), verified=False)
        except kinds.NotApplicable as reason:
            text = f"– {reason}"
        assert page[form].startswith(text), "make kinds"


@pytest.mark.heavy
@pytest.mark.parametrize("title", [kinds.WRITTEN, kinds.BY_TORCH])
def test_the_whole_page(title: str) -> None:
    table = tables()[title]
    rows = {case.name: dict(zip(table.columns, kinds.row(table, case), strict=True)) for case in table.cases}
    assert rows == cells()[title], "make kinds"


def test_a_wrong_expectation_stands_in_the_cell() -> None:
    case = WRITTEN["yunet"]
    assert kinds.cell(case, case.proto(), verified=False) == "right"
    wrong = replace(case, expected=Expectation("", 5, ("2x2",), 2))
    text = kinds.cell(wrong, case.proto(), verified=False)
    assert text == "**classes: expected 5, read 1; layers on: expected 2x2, read 8x8 4x4**"
    assert kinds._verdict(text) == "wrong"


def test_a_refusal_and_a_failed_check_stand_in_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    case = WRITTEN["mask"]
    refused = kinds.cell(replace(case, score="auto"), case.proto(), verified=False)
    assert refused.startswith("**")
    assert kinds._verdict(refused) == "wrong"

    class Failed:
        status = "fail"

    monkeypatch.setattr(ogc, "verify", lambda *_args, **_named: Failed())
    found = WRITTEN["yunet"]
    assert kinds.cell(found, found.proto()) == "right, **failed**"
    assert kinds._verdict("right, **failed**") == "wrong"


def test_a_form_that_does_not_apply_says_why() -> None:
    from nets import Net

    def unquantized() -> object:
        net = Net()
        net.op("Sigmoid", net.op("Sqrt", net.input("x", [1, 3, 32, 32])), out="y")
        return net.model({"y": [1, 3, 32, 32]})

    case = replace(WRITTEN["yunet"], proto=unquantized)
    table = kinds.Table("one", ["dynamic"], [case], kinds.in_form)
    (text,) = kinds.row(table, case, verified=False)
    assert text == "– nothing in it is quantized"


def test_the_page_is_read_as_it_is_written() -> None:
    page = kinds.page(
        {"One": {"a": ["right, passed", "– because"], "b": ["**classes**", "right, undecided"]}}, {"One": ["x", "y"]}
    )
    assert kinds.read_page(page) == {
        "One": {"a": {"x": "right, passed", "y": "– because"}, "b": {"x": "**classes**", "y": "right, undecided"}}
    }
    assert "1 right, passed, 1 do not apply, 1 wrong, 1 right, undecided." in page


@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kinds.py", "yunet"])
    monkeypatch.setattr(kinds, "by_torch", list[kinds.Case])
    assert kinds.main() == 0
    assert capsys.readouterr().out.startswith("yunet: right, passed")
