"""The pictures of an explanation: what is drawn agrees with the numbers, and says what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import CELL, PREPROCESS, SIDE, brightness_model
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.methods.heatmap import upsample
from onnx_gradcam.results import cautions as lines
from onnx_gradcam.results.picture.figure import CAUTION_PAPER
from onnx_gradcam.results.picture.overlay import scale_colours
from onnx_gradcam.results.portrait import cautions, level_of, scale_of
from onnx_gradcam.results.titles import unit_of_map, unit_of_score

PHOTO = MODELS / "images" / "cross.png"


@pytest.fixture(scope="module")
def top2() -> ogc.Explanation:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        return explainer.explain_image(PHOTO, target=ogc.TopK(2))


def keys(cam: np.ndarray, size: int) -> np.ndarray:
    """Cubic convolution along both axes, written as the definition of Keys 1981 has it (a = −1/2), for inner points."""

    def kernel(d: float) -> float:
        d = abs(d)
        if d < 1:
            return 1.5 * d**3 - 2.5 * d**2 + 1
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0

    count = len(cam)
    places = (np.arange(size) + 0.5) * count / size - 0.5
    matrix = np.array([[kernel(x - k) for k in range(count)] for x in places])
    return matrix @ cam @ matrix.T


def test_a_map_is_drawn_with_a_cubic_kernel_that_passes_through_its_values() -> None:
    cells = np.zeros((6, 7), np.float32)
    cells[2, 3], cells[3, 3], cells[3, 4] = 1, 0.5, 0.25
    x = np.kron(cells, np.ones((CELL, CELL), np.float32))[None, None].repeat(3, axis=1)
    with ogc.Explainer(brightness_model()) as explainer:
        found = explainer.explain(x, 0)
    for factor in (1, 3):
        level = level_of(found, 0, (SIDE * factor, (SIDE + CELL) * factor))
        middles = level[CELL * factor // 2 :: CELL * factor, CELL * factor // 2 :: CELL * factor]
        np.testing.assert_allclose(middles, np.minimum(found.cam[0] / found.scale[0], 1), atol=0.03)
        inner = slice(2 * CELL * factor, 4 * CELL * factor)
        expected = keys(found.cam[0, :, :6].astype(float), SIDE * factor) / found.scale[0]
        np.testing.assert_allclose(level[inner, inner], np.clip(expected[inner, inner], 0, 1), atol=1e-5)
    assert level.min() == 0
    assert level.max() <= 1


def test_peaks_are_round() -> None:
    """Linear interpolation has a kink at each peak; around a single cell the picture is as bright in all directions."""
    cells = np.zeros((6, 7), np.float32)
    cells[2, 3] = 1
    x = np.kron(cells, np.ones((CELL, CELL), np.float32))[None, None].repeat(3, axis=1)
    with ogc.Explainer(brightness_model()) as explainer:
        found = explainer.explain(x, 0)
    y, x_, radius = 40 * 4, 56 * 4, 32

    def unevenness(values: np.ndarray) -> float:
        side = round(radius / np.sqrt(2))
        return abs(float(values[y, x_ + radius] - values[y + side, x_ + side]))

    smooth = level_of(found, 0, (SIDE * 4, (SIDE + CELL) * 4))
    linear = np.kron(found.heatmap[0], np.ones((4, 4)))
    assert unevenness(smooth) < unevenness(linear) / 2


def test_the_numbers_stay_linear() -> None:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        x = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
        found = explainer.explain(x, 0)
    np.testing.assert_allclose(found.heatmap * found.scale[0], upsample(found.cam, (96, 96)), atol=1e-6)


def test_at_one_scale_a_weak_map_stays_dark(top2: ogc.Explanation) -> None:
    """p 0.976 and p 0.007: at its own scale each has a pixel of 1; at one scale the second keeps its share."""
    assert top2.heatmap.max(axis=(1, 2)).tolist() == [1, 1]
    together = top2.at_scale(top2.peaks())
    share = float(top2.scale[1] / top2.scale[0])
    assert share < 0.2
    np.testing.assert_allclose(together.heatmap[1], top2.heatmap[1] * share, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(together.heatmap[0], top2.heatmap[0])
    np.testing.assert_array_equal(together.scale, top2.scale[[0, 0]])
    style = ogc.Style(alpha=1, photo="grey", caption=False)
    strongest = scale_colours(256)[255].astype(int)
    nearest = [np.abs(each.figure(None, 1, style) - strongest).sum(axis=2).min() for each in (top2, together)]
    assert nearest[0] < 30
    assert nearest[1] > 200


def test_a_number_as_scale_clips_larger_values(top2: ogc.Explanation) -> None:
    half = float(top2.scale[0]) / 2
    scaled = top2.at_scale(half)
    np.testing.assert_allclose(scaled.heatmap[0], np.minimum(2 * top2.heatmap[0], 1), atol=1e-6)
    np.testing.assert_allclose(scaled.scale, half)
    level = level_of(scaled, 0, (60, 80))
    assert level.max() == 1
    assert (level == 1).mean() > (level_of(top2, 0, (60, 80)) == 1).mean()
    with pytest.raises(ogc.MethodError, match="unknown scale -1"):
        top2.at_scale(-1)


def test_what_is_saved_has_the_scale_that_the_manifest_names(top2: ogc.Explanation, tmp_path: Path) -> None:
    """heatmap · scale is the enlarged cam, whatever the scale."""
    for name, scale in (("own", "image"), ("shared", "shared"), ("number", 10.0)):
        manifest = json.loads(top2.save(tmp_path / name, scale=scale).read_text("utf-8"))
        for row, entry in enumerate(manifest["results"][0]["rows"]):
            values = np.load(tmp_path / name / entry["npy"])
            np.testing.assert_allclose(values * entry["scale"], top2.heatmap[row] * top2.scale[row], atol=1e-6)
            expected = {"own": top2.scale[row], "shared": top2.scale.max(), "number": 10}[name]
            assert entry["scale"] == pytest.approx(float(expected))


def test_maps_of_different_units_share_no_scale() -> None:
    """A probability and a logit on one scale would say nothing: each unit has its own."""
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain_image(PHOTO, target=ogc.Each([4, 7, ogc.Probability(4)]))
    peaks = found.peaks()
    assert peaks == {"score": float(found.scale[:2].max()), "probability": float(found.scale[2])}
    together = found.at_scale(peaks)
    np.testing.assert_array_equal(together.scale, [found.scale[0], found.scale[0], found.scale[2]])
    assert [scale_of(together, row).unit for row in range(3)] == ["score", "score", "probability"]


def test_fused_layers_have_no_scale() -> None:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", ["relu_4", "relu_6"], providers=["cpu"]) as explainer:
        found = explainer.explain_image(PHOTO)
    assert scale_of(found, 0).bar(120, False).unit == "share of the maximum"
    assert level_of(found, 0, (90, 120)).max() == 1
    for attempt in (lambda: found.at_scale(1.0), found.peaks):
        with pytest.raises(ogc.MethodError, match="no scale in the score's units"):
            attempt()


@pytest.mark.parametrize(
    ("target", "activation", "unit"),
    [
        ("281", "Softmax", "logit"),
        ("281", "LogSoftmax", "logit"),
        ("281", "Sigmoid", "score"),
        ("281", "", "score"),
        ("diff:1,2", "Softmax", "logit"),
        ("3-vs-5", "Softmax", "logit"),
        ("prob:281", "Softmax", "probability"),
        ("logprob:281", "Softmax", "log-probability"),
        ("similar:emb.npy", "", "cosine"),
        ("-output:0", "", "value"),
        ("iou:1,2,3,4", "Sigmoid", "overlap"),
    ],
)
def test_a_score_is_a_logit_only_before_a_softmax(target: str, activation: str, unit: str) -> None:
    assert unit_of_score(target, activation) == unit


@pytest.mark.parametrize(
    ("method", "unit"),
    [
        ("gradcam", "logit"),
        ("hirescam signed", "logit"),
        ("eigencam", "activation"),
        ("saliency", "gradient"),
        ("integrated-gradients", "logit"),
        ("vargrad", "gradient²"),
        ("guided-gradcam", "gradient"),
    ],
)
def test_the_unit_of_a_map(method: str, unit: str) -> None:
    assert unit_of_map(method, "logit") == unit


def test_captions_say_class_and_probability_first(top2: ogc.Explanation) -> None:
    assert top2.title(0) == ["cross (4)   p 0.976", "gradcam, score 4.65", "score logits", "layer relu_6"]


def test_another_picture_must_have_the_size_of_the_map(top2: ogc.Explanation) -> None:
    for draw in (top2.overlay, top2.figure):
        with pytest.raises(ogc.InputError, match="does not fit an image"):
            draw(np.zeros((7, 9, 3), np.uint8))


@pytest.mark.parametrize("size", [(28, 28), (48, 320), (3, 400)])
def test_photos_of_any_shape(size: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with ogc.Explainer(brightness_model()) as explainer:
        found = explainer.explain_image(photo, preprocess={**PREPROCESS, "resize": "letterbox"})
    assert found.overlay().shape == (*size, 3)
    picture: Any = found.figure()
    assert picture.shape[1] >= 448


def test_what_changes_how_a_map_is_read_stands_in_its_picture(top2: ogc.Explanation, explainer: ogc.Explainer) -> None:
    """A clipped scale, a blank map, a coarse one, and what the row itself says; with and without caption."""
    clipped = top2.at_scale(float(top2.scale[0]) / 2)
    assert clipped.cautions(0) == (f"values above {clipped.scale[0]:.3g} have the same colour",)
    assert clipped.cautions(1) == ()
    assert cautions(top2, 0) == []
    x = np.zeros((1, 3, SIDE, SIDE + CELL), np.float32)
    with ogc.Explainer(brightness_model()) as bright:
        blank = bright.explain(x, 1)
    assert cautions(blank, 0)[0] == "blank map: nothing at this layer speaks for this target"
    coarse = explainer.explain(np.ones((1, 2, 2, 2), np.float32), 0)
    assert cautions(coarse, 0)[-1] == "coarse map: 2 × 2 cells"
    for row, explanation in ((0, clipped), (0, blank), (0, coarse)):
        for caption in (True, False):
            picture = explanation.figure(None, row, ogc.Style(caption=caption))
            assert (picture[-1] == CAUTION_PAPER).all(), "a band at the foot, over the whole width"


def test_two_sides_are_drawn_at_a_scale_of_their_own(top2: ogc.Explanation) -> None:
    clipped = top2.at_scale(float(top2.scale[0]) / 2)
    assert ogc.both(clipped).cautions(0) == ()
    half = ogc.both(top2).at_scale(float(top2.scale[0]) / 2)
    assert half.cautions(0) == clipped.cautions(0)
    assert (half.figure()[-1] == CAUTION_PAPER).all()
    assert clipped[1:].cautions(0) == ()


def test_attributions_that_do_not_add_up_say_so() -> None:
    """6 and 3 of a score of 6 and 4: within a tenth and not."""
    total, expected = np.array([6.0, 3.0, 0.0]), np.array([6.1, 4.0, 0.0])
    assert lines.incomplete(total, expected, 0.1) == ["", "incomplete: the map adds up to 3, not to 4", ""]


def test_tied_classes_are_named_in_the_rows_that_they_concern() -> None:
    scores = np.array([[3, 3, 1], [1, 2, 0]], np.float32)
    images, classes = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, -1])
    assert lines.tied(scores, images, classes) == [lines.TIED, lines.TIED, "", "", ""]


@pytest.mark.parametrize(("steps", "says"), [(1, True), (200, False)])
def test_an_integral_with_too_few_steps_says_so_in_its_picture(steps: int, says: bool) -> None:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain_image(PHOTO, method="integrated-gradients", steps=steps)
    assert found.completeness is not None
    off = abs(float(found.completeness.error[0] / found.completeness.difference[0]))
    assert (off > 0.05) == says
    assert any(line.startswith("incomplete: the map adds up to ") for line in found.cautions(0)) == says
    assert (found.figure()[-1] == CAUTION_PAPER).all() == says


def test_a_second_order_that_is_zero_is_said() -> None:
    """A network of ReLUs is piecewise linear behind its last layer."""
    with ogc.Explainer(brightness_model()) as explainer:
        found = explainer.explain(np.full((1, 3, SIDE, SIDE + CELL), 0.5, np.float32), 0, "shapleycam")
    assert "the second order is zero: this is the map of Grad-CAM" in found.cautions(0)


def test_rows_in_a_notebook_have_one_scale(top2: ogc.Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []
    draw = ogc.Explanation.figure

    def noted(self: ogc.Explanation, image: Any = None, row: int = 0) -> np.ndarray:
        scales.append(float(self.scale[row]))
        return draw(self, image, row)

    monkeypatch.setattr(ogc.Explanation, "figure", noted)
    assert top2._repr_html_().count("<img") == 2
    assert scales == [float(top2.scale[0])] * 2
