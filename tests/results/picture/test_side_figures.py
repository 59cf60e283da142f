"""Figures of two sides and of a contrast, against numbers computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from repository import DOCS

import onnx_gradcam as ogc
from onnx_gradcam.methods.cam import NEEDS, WEIGHTS
from onnx_gradcam.results.picture import figure
from onnx_gradcam.results.picture.overlay import overlay
from onnx_gradcam.results.picture.style import Style

SCHEMA = DOCS / "manifest.schema.json"
X = np.array([[[[1, 0], [3, 0]], [[0, 2], [1, 0]]]], np.float32)  # A = relu(X) = X
A1, A2 = X[0]
TWO_SIDED = sorted(name for name in WEIGHTS if NEEDS[name] == ("activation", "gradient"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the figures are made of: (panels, title, notes)."""
    seen: list[Any] = []
    panels = figure.panels

    def noted(row: Any, lines: figure.Lines) -> Any:
        seen.append((row, list(lines.title), list(lines.notes)))
        return panels(row, lines)

    monkeypatch.setattr(figure, "panels", noted)
    return seen


def corners(panel: figure.Panel) -> np.ndarray:
    """The middles of the four pixels that X has, (2, 2, RGB)."""
    side = len(panel.picture)
    return panel.picture[side // 4 :: side // 2, side // 4 :: side // 2].astype(int)


def test_the_figure_of_both_sides(explainer: ogc.Explainer, drawn: list[Any]) -> None:
    found = ogc.both(explainer.explain(X, target=0))
    picture = found.figure()
    [(row, title, notes)] = drawn
    assert picture.shape[1] > sum(panel.picture.shape[1] for panel in row)
    assert title[0].startswith("star (0)   p ")
    assert title[1:] == ["gradcam, score 1", "score logits", "layer cells"]
    assert [panel.caption for panel in row] == [["speaks for it"], ["speaks against it"], ["for minus against"]]
    assert [panel.bar.ticks for panel in row] == [("0", "1", "2"), ("0", "1", "2"), ("-2", "0", "2")], "one scale"
    assert {panel.bar.unit for panel in row} == {"score"}
    assert "one scale" in notes[0]
    net = corners(row[2])  # evidence [[1, -2], [2, 0]]
    assert net[0, 1, 2] > net[0, 1, 0] + 100, "blue where it speaks against"
    assert net[1, 0, 0] > net[1, 0, 2] + 100, "red where it speaks for"
    assert np.ptp(net[1, 1]) == 0, "grey where it does neither"
    for panel, part in zip(row, found.parts.values(), strict=True):
        grey = Style(photo="grey")
        expected = overlay(found.first.picture(0), part.heatmap[0], signed=part.signed, style=grey).astype(int)
        np.testing.assert_allclose(corners(panel), expected, atol=2)


def test_the_figure_of_a_contrast(explainer: ogc.Explainer, drawn: list[Any]) -> None:
    rows = explainer.explain(X, target=ogc.Classes([0, 1]))
    ogc.contrast(rows[0], rows[1]).figure()
    [(row, title, notes)] = drawn
    p = np.exp([1, -2, 7]) / np.exp([1, -2, 7]).sum()
    assert title == ["predicted star (0), true heart (1)", "gradcam", "score logits", "layer cells"]
    assert [panel.caption for panel in row] == [
        ["predicted: star (0)", f"score 1   p {p[0]:.3f}"],
        ["true: heart (1)", f"score -2   p {0.0001:.1g}"],
        ["difference", "score 3"],
    ]
    assert {panel.bar.ticks[-1] for panel in row} == {"6"}
    assert "orange speaks for the first, blue for the second" in notes[0]
    difference = corners(row[2])  # [[3, -6], [6, 0]]
    assert difference[0, 1, 2] > difference[0, 1, 0] + 100
    assert difference[1, 0, 0] > difference[1, 0, 2] + 100


def test_a_faint_difference_is_shown_stretched_too(explainer: ogc.Explainer, drawn: list[Any]) -> None:
    """Star A1 − A2 at 1 · A, moon A1 + A2: their difference is −2 A2; with little A2 it is faint beside A1."""
    x = np.array([[[[4, 0], [0, 0]], [[0, 1], [0, 0]]]], np.float32)
    rows = explainer.explain(x, target=ogc.Classes(["star", "moon"]))
    found = ogc.contrast(rows[0], rows[1])
    np.testing.assert_array_equal(found.parts["difference"].cam, [[[0, -2], [0, 0]]])
    found.figure()
    row = drawn[0][0]
    assert [panel.bar.ticks[-1] for panel in row] == ["4", "4", "4"], "half of the scale is not faint"
    faint = ogc.contrast(*explainer.explain(x * np.float32([[[1]], [[0.25]]]), target=ogc.Classes([0, 2])))
    faint.figure()
    row = drawn[1][0]
    assert [panel.bar.ticks[-1] for panel in row] == ["4", "4", "4", "0.5"]
    assert row[3].caption == ["the same, with its own scale:", "colours 8.0 times as strong"]

    strength = [np.ptp(corners(panel)[0, 1]) for panel in row]
    assert strength[3] > 6 * strength[2] > 0


def test_a_blank_side_is_called_blank(explainer: ogc.Explainer, drawn: list[Any]) -> None:
    found = ogc.both(explainer.explain(X, target="moon"))  # A1 + A2: nothing speaks against it
    assert found.parts["against"].is_blank.tolist() == [True]
    assert found.warnings == ()
    found.figure()
    assert drawn[0][0][1].caption == ["speaks against it (blank)"]


def test_what_is_saved(explainer: ogc.Explainer, tmp_path: Path) -> None:
    rows = explainer.explain(X, target=ogc.Classes([0, 1]))
    names: list[str] = []
    for made in (ogc.both(rows), ogc.contrast(rows[0], rows[1])):
        manifest = json.loads(made.save(tmp_path, overwrite=True).read_text("utf-8"))
        jsonschema.validate(manifest, json.loads(SCHEMA.read_text("utf-8")))
        [result] = manifest["results"]
        names += result["files"]
        assert sorted([*result["files"], "manifest.json"]) == sorted(path.name for path in tmp_path.iterdir())
        assert [row["part"] for row in result["rows"]] == list(made.parts) * len(made)
        for k, row in enumerate(result["rows"]):
            part = made.parts[row["part"]]
            array = np.load(tmp_path / row["npy"])
            np.testing.assert_array_equal(array, part.heatmap[k // 3])
            np.testing.assert_array_equal(array * row["scale"], part.cam[k // 3])
            assert cv2.imread(str(tmp_path / row["png"])) is not None
    both = [
        f"explanation.gradcam-both.{k}.{end}" for k in (0, 1) for end in ("against.npy", "for.npy", "net.npy", "png")
    ]
    contrast = [f"explanation.gradcam.0-vs-1.{end}" for end in ("difference.npy", "png", "predicted.npy", "true.npy")]
    assert sorted(names) == sorted([*both, *contrast])
