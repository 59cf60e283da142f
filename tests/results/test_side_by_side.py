"""Maps beside each other, against numbers computed by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, brightness_model
from nets import Net
from onnx import helper, numpy_helper
from repository import DOCS
from two_channels import HEAD, model

import onnx_gradcam as ogc
from onnx_gradcam.methods.cam import CAMS, NEEDS, WEIGHTS
from onnx_gradcam.methods.heatmap import upsample
from onnx_gradcam.results.contrast import explain_both

SCHEMA = DOCS / "manifest.schema.json"
X = np.array([[[[1, 0], [3, 0]], [[0, 2], [1, 0]]]], np.float32)  # A = relu(X) = X
A1, A2 = X[0]
TWO_SIDED = sorted(name for name in WEIGHTS if NEEDS[name] == ("activation", "gradient"))


def test_for_and_against_at_one_scale(explainer: ogc.Explainer) -> None:
    """Evidence A1 − A2 = [[1, −2], [2, 0]]: for relu of it, against relu of its negative; 1 is 2 of the score."""
    found = ogc.both(explainer.explain(X, target=0))
    assert list(found.parts) == ["for", "against", "net"]
    np.testing.assert_array_equal(found.parts["for"].cam, [[[1, 0], [2, 0]]])
    np.testing.assert_array_equal(found.parts["against"].cam, [[[0, 2], [0, 0]]])
    np.testing.assert_array_equal(found.parts["net"].cam, [[[1, -2], [2, 0]]])
    for part in found.parts.values():
        assert part.scale is not None
        np.testing.assert_array_equal(part.scale, [2])
        np.testing.assert_array_equal(part.heatmap * 2, part.cam)
    assert [part.signed for part in found.parts.values()] == [False, False, True]


def test_one_scale_is_of_the_larger_side(explainer: ogc.Explainer) -> None:
    """Class heart: evidence 2 · (A2 − A1), for it at most 4, against it at most 4; a photo of more red: 6 against."""
    x = X.copy()
    x[0, 0, 0, 0] = 3
    found = ogc.both(explainer.explain(x, target="heart"))
    np.testing.assert_array_equal(found.parts["for"].heatmap, np.float32([[[0, 4], [0, 0]]]) / 6)
    np.testing.assert_array_equal(found.parts["against"].heatmap, np.float32([[[6, 0], [4, 0]]]) / 6)


@pytest.mark.parametrize("method", TWO_SIDED)
def test_both_is_what_the_explainer_gives(explainer: ogc.Explainer, method: str) -> None:
    found = ogc.both(explainer.explain(X, target=0, method=method))
    against = explainer.explain(X, target=0, method=method, counterfactual=True)
    np.testing.assert_array_equal(found.parts["against"].cam, against.cam)
    np.testing.assert_array_equal(found.parts["net"].cam, found.parts["for"].cam - against.cam)
    if method in {"gradcam", "xgradcam", "hirescam", "cam"}:  # weights linear in G
        signed = explainer.explain(X, target=0, method=method, signed=True)
        np.testing.assert_allclose(found.parts["net"].cam, signed.cam, atol=1e-6)
    assert found.parts["net"].cam.min() < 0, "negative evidence shows, also where weights are cut at 0"


def test_the_difference_by_hand(explainer: ogc.Explainer) -> None:
    """Star: A1 − A2; heart: 2 (A2 − A1); difference 3 (A1 − A2), as the gradient of y_star − y_heart has it."""
    rows = explainer.explain(X, target=ogc.Classes(["star", "heart"]))
    found = ogc.contrast(rows[0:1], rows[1:2])
    assert list(found.parts) == ["predicted", "true", "difference"]
    np.testing.assert_array_equal(found.parts["predicted"].cam, [[[1, 0], [2, 0]]])
    np.testing.assert_array_equal(found.parts["true"].cam, [[[0, 4], [0, 0]]])
    difference = found.parts["difference"]
    np.testing.assert_array_equal(difference.cam, [[[3, -6], [6, 0]]])
    np.testing.assert_array_equal(difference.score, rows.score[:1] - rows.score[1:])
    assert float(difference.score[0]) == (4 * 4 - 4 * 3) / 4 - (-8 * 4 + 8 * 3) / 4
    for part in found.parts.values():
        np.testing.assert_allclose(part.heatmap, part.cam / 6, rtol=1e-6)
        assert part.scale is not None
        np.testing.assert_array_equal(part.scale, [6])


@pytest.mark.parametrize("method", ["gradcam", "xgradcam", "hirescam", "cam"])
def test_the_difference_is_the_signed_map_of_the_target_difference(explainer: ogc.Explainer, method: str) -> None:
    """Where weights are linear in G: y_a − y_b as a target is differentiated by itself."""
    x = np.random.default_rng(1).standard_normal((2, 2, 4, 5)).astype(np.float32)
    rows = explainer.explain(x, ogc.Classes([0, 1]), method)
    found = ogc.contrast(rows[0::2], rows[1::2]).parts["difference"]
    expected = explainer.explain(x, ogc.Difference(0, 1), method, signed=True)
    np.testing.assert_allclose(found.cam, expected.cam, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-6)
    assert [found.label(0), found.class_index[0]] == [expected.label(0), expected.class_index[0]]


@pytest.mark.parametrize("method", TWO_SIDED)
def test_the_difference_is_the_map_of_a_model_that_subtracts(method: str) -> None:
    """Against a model whose only class is y_star − y_heart, written as weights of the last layer."""
    subtracting = model()
    head = np.stack([HEAD[0] - HEAD[1], HEAD[1] - HEAD[0]])
    subtracting.graph.initializer[0].CopyFrom(numpy_helper.from_array(head, "head"))
    subtracting.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)
    with ogc.Explainer(model(), target_layer="cells") as explainer:
        rows = explainer.explain(x, ogc.Classes([0, 1]), method)
    with ogc.Explainer(subtracting, target_layer="cells") as explainer:
        expected = explainer.explain(x, 0, method).cam - explainer.explain(x, 0, method, counterfactual=True).cam
    found = ogc.contrast(rows[0], rows[1])
    np.testing.assert_allclose(found.parts["difference"].cam, expected, rtol=1e-5, atol=1e-6)


def test_a_class_and_itself_differ_nowhere(explainer: ogc.Explainer) -> None:
    found = explainer.explain(X, target=0)
    contrast = ogc.contrast(found, found)
    assert "the gradient at cells is 0 everywhere" in contrast.warnings[0]
    difference = contrast.parts["difference"]
    assert difference.is_blank.tolist() == [True]
    assert not difference.heatmap.any()
    assert difference.score.tolist() == [0]


def test_rows_have_their_own_scales(explainer: ogc.Explainer) -> None:
    x = np.concatenate([X, 10 * X])
    found = ogc.both(explainer.explain(x, target=ogc.Classes([0, 1])))
    np.testing.assert_array_equal(found.first.scale, [2, 4, 20, 40])
    for part in found.parts.values():
        np.testing.assert_array_equal(part.heatmap[0], part.heatmap[2])


def test_fused_layers_share_the_scale_of_each_layer() -> None:
    """Each layer divided by the larger of its two sides, then the mean, then the largest of both sides is 1."""
    two = model()
    two.graph.node[0].output[0] = "first"
    two.graph.node.insert(1, helper.make_node("Conv", ["first", "mix"], ["mixed"]))
    two.graph.node.insert(2, helper.make_node("Relu", ["mixed"], ["cells"]))
    two.graph.initializer.append(
        numpy_helper.from_array(np.array([[1, 0], [-0.5, 1]], np.float32)[..., None, None], "mix")
    )
    with ogc.Explainer(two, target_layer=["first", "cells"]) as explainer:
        explanation = explainer.explain(X, target=0)
    found = ogc.both(explanation)
    sides = [found.parts[name].layers for name in ("for", "against")]
    peaks = [max(np.abs(side[k].cam).max() for side in sides) for k in range(2)]
    fused = [np.mean([side[k].cam / peaks[k] for k in range(2)], axis=0) for side in sides]
    assert {peaks[0] == peaks[1], fused[0].max() == fused[1].max()} == {False}
    largest = max(np.abs(f).max() for f in (*fused, fused[0] - fused[1]))
    np.testing.assert_allclose(found.parts["for"].heatmap, fused[0] / largest, atol=1e-6)
    np.testing.assert_allclose(found.parts["against"].heatmap, fused[1] / largest, atol=1e-6)
    assert found.first.scale is not None
    assert np.isnan(found.first.scale).all()


OTHERWISE = [
    {"method": "gradcam", "smooth": "noise", "samples": 3},
    {"method": "layercam", "smooth": "aug"},
    {"method": "smooth-gradcam++", "samples": 3},
    {"method": "shapleycam"},
]


@pytest.mark.parametrize("how", OTHERWISE, ids=lambda how: " ".join(map(str, how.values())))
def test_what_is_not_made_of_one_gradient_is_run_again(explainer: ogc.Explainer, how: dict[str, Any]) -> None:
    """Smoothed maps, and methods that look at more than A and G."""
    x = np.random.default_rng(3).standard_normal((2, 2, 4, 5)).astype(np.float32)
    rows = explainer.explain(x, ogc.Classes([0, 1]), **how)
    against = explainer.explain(x, ogc.Classes([0, 1]), counterfactual=True, **how)
    found = ogc.both(rows, against)
    np.testing.assert_array_equal(found.parts["net"].cam, rows.cam - against.cam)
    np.testing.assert_array_equal(found.parts["against"].cam, against.cam)
    asked = explain_both(lambda target, **more: explainer.explain(x, target, **how, **more), ogc.Classes([0, 1]))
    np.testing.assert_array_equal(asked.parts["net"].cam, found.parts["net"].cam)

    def explain(target: Any, **more: Any) -> ogc.Explanation:
        return explainer.explain(x, target, **how, **more)

    difference = explain_both(explain, ogc.Difference(0, 1)).parts["net"]
    contrast = ogc.contrast(rows[0::2], rows[1::2], difference)
    a, b = (explain(ogc.Difference(0, 1), counterfactual=c).cam for c in (False, True))
    np.testing.assert_array_equal(contrast.parts["difference"].cam, a - b)
    np.testing.assert_array_equal(contrast.parts["difference"].score, rows.score[0::2] - rows.score[1::2])
    with pytest.raises(ogc.MethodError, match="cannot be made from its activations and gradients alone"):
        ogc.contrast(rows[0::2], rows[1::2])


class TestRefused:
    def test_methods_without_two_sides(self, explainer: ogc.Explainer) -> None:
        for method in sorted(set(CAMS) - set(TWO_SIDED)):
            explanation = explainer.explain(X, method=method)
            with pytest.raises(ogc.MethodError, match=f"other side of '{re.escape(method)}' cannot be made from"):
                ogc.both(explanation)
            with pytest.raises(ogc.MethodError, match=f"other side of '{re.escape(method)}' cannot be made from"):
                ogc.contrast(explanation, explanation)

    @pytest.mark.parametrize("variant", ["counterfactual", "signed"])
    def test_one_side(self, explainer: ogc.Explainer, variant: str) -> None:
        explanation = explainer.explain(X, **{variant: True})
        with pytest.raises(ogc.MethodError, match=f"'gradcam {variant}' is already one of the two sides"):
            ogc.both(explanation)

    def test_two_methods(self, explainer: ogc.Explainer) -> None:
        with pytest.raises(ogc.MethodError, match="'gradcam' cannot be contrasted with 'hirescam'"):
            ogc.contrast(explainer.explain(X), explainer.explain(X, method="hirescam"))

    def test_input_space(self, explainer: ogc.Explainer) -> None:
        with pytest.raises(ogc.MethodError, match="'saliency' does not have two sides"):
            ogc.both(explainer.explain(X, method="saliency"))

    def test_sides_of_different_targets(self, explainer: ogc.Explainer) -> None:
        against = explainer.explain(X, target=1, counterfactual=True)
        with pytest.raises(ogc.InputError, match="different targets"):
            ogc.both(explainer.explain(X, target=0), against)

    def test_two_photos(self, explainer: ogc.Explainer) -> None:
        for other in (explainer.explain(2 * X), explainer.explain(np.concatenate([X, X]))):
            with pytest.raises(ogc.InputError, match="only for the same images"):
                ogc.contrast(explainer.explain(X), other)


def two_levels() -> onnx.ModelProto:
    """A detector: at each cell of a fine and of a coarse level the scores are A and A / 2 of two classes, with A what
    its channel of the image has, by half a cell for the coarse level.
    """
    net = Net()
    heads = []
    for name, channel, side in (("fine", 0, 1), ("coarse", 1, 2)):
        pick = np.zeros((1, 2, side, side), np.float32)
        pick[0, channel] = 1 / side**2
        x = net.input("image", ["N", 2, 4, 4]) if not heads else "image"
        x = net.op("Relu", net.op("Conv", x, net.array(pick), strides=[side, side]), out=name)
        head = np.array([[1], [0.5]] if name == "fine" else [[0.5], [1]], np.float32)[..., None, None]
        y = net.op("Reshape", net.op("Conv", x, net.array(head)), net.array(np.array([0, 2, -1], np.int64)))
        heads.append(y)
    joined = net.op("Concat", *heads, axis=2)
    return net.model({net.op("Sigmoid", joined, out="scores"): ["N", 2, 20]})


def test_classes_at_two_levels_of_a_detector() -> None:
    """Class 0 is found at a cell of the fine level, class 1 at one of the coarse level; their difference has both."""
    x = np.zeros((1, 2, 4, 4), np.float32)
    x[0, 0, 0, 3] = 2  # fine cell (0, 3): 2 and 1
    x[0, 1, 2:, :2] = 3  # coarse cell (1, 0): 1.5 and 3
    with ogc.Explainer(two_levels()) as explainer:
        assert explainer.target_layers == ("fine", "coarse")
        rows = explainer.explain(x, ogc.Classes([0, 1]), "hirescam")
    assert rows.cell is not None
    assert rows.cell.tolist() == [[3], [18]]
    found = ogc.contrast(rows[0], rows[1])
    maps = {name: part.heatmap[0] * part.scale[0] for name, part in found.parts.items() if part.scale is not None}
    expected = np.zeros((4, 4), np.float32)
    expected[0, 3] = 2
    np.testing.assert_allclose(maps["predicted"], expected, atol=1e-6)
    coarse = upsample(np.float32([[[0, 0], [3, 0]]]), (4, 4))[0]
    np.testing.assert_allclose(maps["true"], coarse, atol=1e-6)
    np.testing.assert_allclose(maps["difference"], expected - coarse, atol=1e-6)


def test_rows_of_an_explanation(explainer: ogc.Explainer) -> None:
    found = explainer.explain(np.concatenate([X, 3 * X]), target=ogc.Classes([0, 1]))
    one = found[2]
    assert (len(one), one.image_index.tolist(), one.class_index.tolist()) == (1, [1], [0])
    np.testing.assert_array_equal(one.cam, found.cam[2:3])
    np.testing.assert_array_equal(one.weights, found.weights[2:3])
    np.testing.assert_array_equal(one.picture(0), found.picture(2))
    np.testing.assert_array_equal(found[[3, 0]].score, found.score[[3, 0]])
    assert [len(row) for row in found] == [1, 1, 1, 1]
    with pytest.raises(IndexError):
        found[4]


def test_a_photo_is_drawn_in_its_own_pixels() -> None:
    """Letterboxed: the parts lie where the explanation's own map lies, at the photo's size."""
    photo = np.full((60, 160, 3), 30, np.uint8)
    photo[10:30, 110:130] = 255
    with ogc.Explainer(brightness_model()) as explainer:
        rows = explainer.explain_image(photo, ogc.Classes([0, 1]), preprocess={**PREPROCESS, "resize": "letterbox"})
    found = ogc.contrast(rows[0], rows[1])
    assert {part.heatmap.shape for part in found.parts.values()} == {(1, 60, 160)}
    for name in ("predicted", "difference"):
        y, x = np.unravel_index(found.parts[name].heatmap[0].argmax(), (60, 160))
        assert abs(y - 20) <= 23
        assert abs(x - 120) <= 23
    np.testing.assert_allclose(found.parts["predicted"].heatmap, rows.heatmap[:1] / 2, atol=1e-6)


def test_blank_maps_say_what_to_do(explainer: ogc.Explainer) -> None:
    """One sentence for each reason."""
    assert explainer.explain(X, target="moon").warnings == ()
    [against] = explainer.explain(X, target="moon", counterfactual=True).warnings
    assert against.startswith("1 of 1 maps are blank: nothing at cells speaks against that class")
    assert "leave out --counterfactual" in against
    only_red = X * np.array([1, 0], np.float32)[:, None, None]
    [for_it] = explainer.explain(only_red, target="heart").warnings
    assert "nothing at cells speaks for that class; --counterfactual" in for_it
    assert explainer.explain(only_red, target="heart", signed=True).warnings == (), "all negative is not blank"
    dead = explainer.explain(np.concatenate([-X, X]), target="moon")
    assert dead.is_blank.tolist() == [True, False]
    unsure, about_blank = dead.warnings
    assert unsure.startswith("near chance in 1 of 2 rows")
    assert about_blank.startswith("1 of 2 maps are blank: the activation of cells is 0 everywhere")
    assert dead[1].warnings == ()
    assert dead[0].warnings[1].startswith("1 of 1")
    [cancelled] = explainer.explain(np.ones_like(X), target="star", signed=True).warnings
    assert "cancels everywhere" in cancelled
