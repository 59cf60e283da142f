"""Contact sheets: many maps on one page, where the same colour is the same value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.results.contact import scales_of, thumbnails
from onnx_gradcam.results.picture import contact
from onnx_gradcam.results.picture.contact import ONE_SCALE, OWN_SCALE, THUMBNAIL, Thumbnail
from onnx_gradcam.results.picture.contact import contact_sheet as draw
from onnx_gradcam.results.picture.figure import CAUTION_PAPER, LetterSizes, Lines
from onnx_gradcam.results.picture.overlay import overlay, scale_colours

NAMES = ["cross.png", "drop.png", "star-and-heart.png"]
OPAQUE = ogc.Style(alpha=1)


@pytest.fixture(scope="module")
def results() -> list[ogc.Explanation]:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        return [explainer.explain_image(MODELS / "images" / name, target=ogc.TopK(2)) for name in NAMES]


def thumbnail(level: float, unit: str | None = "logit", cautions: tuple[str, ...] = (), size: int = 60) -> Thumbnail:
    photo = np.zeros((size, size, 3), np.uint8)
    return Thumbnail(photo, np.full((size, size), level, np.float32), unit, False, None, "", "", cautions, top=level)


def test_the_same_colour_is_the_same_value() -> None:
    """2 and 1 logits beside each other: at one scale 1 and ½, each at its own 1 and 1, at 4 both less."""
    two = [thumbnail(2.0), thumbnail(1.0)]
    for scale, levels in (("shared", (1.0, 0.5)), ("image", (1.0, 1.0)), (4.0, (0.5, 0.25))):
        page = draw(two, columns=2, scales=scales_of(two, scale), style=OPAQUE)
        expected = [
            overlay(np.zeros((1, 1, 3), np.uint8), np.full((1, 1), v, np.float32), style=OPAQUE) for v in levels
        ]
        for each in expected:
            assert (np.abs(page.astype(int) - each[0, 0]).sum(axis=2) <= 2).sum() >= 3600, (scale, each)


def test_units_have_scales_of_their_own() -> None:
    mixed = [thumbnail(2.0), thumbnail(0.25, "probability"), thumbnail(1.0), thumbnail(0.9, None)]
    assert scales_of(mixed, "shared") == {"logit": 2.0, "probability": 0.25}
    assert scales_of(mixed, 3.0) == {"logit": 3.0, "probability": 3.0}
    assert scales_of(mixed, "image") is None
    with pytest.raises(ogc.MethodError, match="unknown scale 'own'"):
        scales_of(mixed, "own")


def test_a_caution_of_all_is_said_once() -> None:
    def bands(page: np.ndarray) -> int:
        inked = (page == CAUTION_PAPER).all(axis=2).any(axis=1)
        return int(np.count_nonzero(np.diff(np.r_[False, inked, False].astype(int)) == 1))

    same = [thumbnail(1.0, cautions=("guessed preprocessing",))] * 4
    different = [thumbnail(1.0, cautions=("nothing detected",) if k else ()) for k in range(4)]
    assert bands(draw(same, columns=1)) == 1
    assert (draw(same, columns=1)[-1] == CAUTION_PAPER).all()
    assert bands(draw(different, columns=1)) == 3
    assert bands(draw([thumbnail(1.0)], scales={"logit": 0.5})) == 1, "clipped values"


def test_a_line_for_each_photo(results: list[ogc.Explanation]) -> None:
    """Three photos of two targets: three lines of two; the maps are those of the explanations, at one scale."""
    page = ogc.contact_sheet(results, NAMES)
    one = ogc.contact_sheet(results[:1], NAMES[:1])
    assert page.shape[1] < 3 * THUMBNAIL
    assert len(page) > len(one) + 2 * THUMBNAIL * 3 / 4
    small = [each for result, name in zip(results, NAMES, strict=True) for each in thumbnails(result, name)]
    assert [each.caption for each in small][:2] == ["cross   p 0.976", "arrow   p 0.007"]
    assert [each.unit for each in small] == ["score"] * 6
    largest = max(float(result.scale.max()) for result in results)
    assert scales_of(small, "shared") == {"score": pytest.approx(largest)}
    for each, result in zip(small[::2], results, strict=True):
        assert each.level is not None
        assert each.level.max() == pytest.approx(float(result.scale[0]), rel=0.02)


def test_parts_of_a_row_stand_in_one_line(results: list[ogc.Explanation]) -> None:
    sides = ogc.both(results[0])
    assert [each.caption.split(":")[0] for each in thumbnails(sides)] == ["for", "against", "net"] * 2
    page = ogc.contact_sheet([sides])
    assert page.shape[1] > 6 * THUMBNAIL


def test_pages_say_what_their_scale_is(monkeypatch: pytest.MonkeyPatch, results: list[ogc.Explanation]) -> None:
    notes: list[str] = []
    frame = contact.frame_lines

    def noted(body: np.ndarray, lines: Lines, sizes: LetterSizes) -> np.ndarray:
        notes.extend(lines.notes)
        return frame(body, lines, sizes)

    monkeypatch.setattr(contact, "frame_lines", noted)
    ogc.contact_sheet(results)
    ogc.contact_sheet(results, scale="image")
    assert notes == [ONE_SCALE, OWN_SCALE]


def test_fine_detail_stands_on_a_sheet_as_it_is() -> None:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain_image(MODELS / "images" / NAMES[0], method="guided-backprop")
    [each] = thumbnails(found)
    assert each.level is None
    page = ogc.contact_sheet([found])
    assert (np.abs(page.astype(int) - 128).max(axis=2) <= 4).sum() > 20000
    assert (page[-1] == CAUTION_PAPER).all(), "it fails sanity checks"
    colours = scale_colours(256).astype(int)
    assert not (np.abs(page[:, -60:-20].astype(int)[:, :, None] - colours[255]).sum(axis=-1) == 0).any(), (
        "no colour bar"
    )


def test_maps_that_are_not_drawn_make_no_sheet() -> None:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain(np.full((1, 3, 96, 96), 0.5, np.float32), 0)
    volume = replace(found, heatmap=found.heatmap[:, None])
    assert thumbnails(volume) == []
    with pytest.raises(ogc.OutputError, match="no map can be drawn"):
        ogc.contact_sheet([volume])


def test_a_box_is_drawn_on_a_thumbnail() -> None:
    boxed = replace(thumbnail(1.0), box=(10.0, 20.0, 40.0, 50.0))
    changed = np.argwhere((draw([boxed]) != draw([thumbnail(1.0)])).any(axis=2))
    (y1, x1), (y2, x2) = changed.min(axis=0), changed.max(axis=0)
    assert (x2 - x1, y2 - y1) == pytest.approx((30, 30), abs=2)
