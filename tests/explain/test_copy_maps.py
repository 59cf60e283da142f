"""Maps of methods that change the input: of models of every layout, against copies that the runtime itself scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import nets
import numpy as np
import onnx
import perturbation_oracles as naive
import pytest
from lights import BLUE, CELL, HEIGHT, RED, SCENE, WIDTH, lights
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.copies.baselines import mean_colour
from onnx_gradcam.engine.session import Session
from onnx_gradcam.methods.perturbation.rise import random_masks
from onnx_gradcam.methods.perturbation.table import INPUT_METHODS, MASK_METHODS
from onnx_gradcam.results.portrait import brightest_of
from onnx_gradcam.results.titles import unit_of_map

CLOSE = {"rtol": 1e-3, "atol": 1e-5}
SPACE = (8, 6)
FEW: dict[str, dict[str, int]] = {
    "occlusion": {"window": 4, "stride": 2},
    "rise": {"samples": 20, "grid": 3},
    "lime": {"samples": 20, "segments": 4},
    "kernel-shap": {"samples": 20, "segments": 4},
    "scorecam": {},
    "ss-cam": {"samples": 2, "top": 3},
    "is-cam": {"samples": 3, "top": 0},
}


def classifier(layout: str = "NCHW", batch: int | str = nets.BATCH, dtype: Any = np.float32) -> onnx.ModelProto:
    net = Net(seed=3)
    first = layout == "NCHW"
    image = net.input("image", [batch, 3, *SPACE] if first else [batch, *SPACE, 3], dtype)
    x = image if dtype == np.float32 else net.op("Cast", image, to=1)
    x = x if first else net.op("Transpose", x, perm=[0, 3, 1, 2])
    if dtype != np.float32:
        x = net.op("Div", x, net.array(np.float32(64)))
    x = net.op("Relu", net.conv(x, (3, 5), stride=2))
    net.head(net.op("Relu", net.conv(x, (5, 6)), out="a"), 6)
    return net.model({"logits": [batch, 5]})


def images(dtype: Any = np.float32) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((2, 3, *SPACE))
    return x.astype(np.float32) if dtype == np.float32 else (x * 60 + 128).clip(0, 255).astype(dtype)


def scored(model: onnx.ModelProto, fed: Callable[[np.ndarray], Any], classes: Any) -> Callable[[np.ndarray], Any]:
    """A scoring function of copies (B, C, *space) of one image: by the runtime, one copy at a time."""

    def score(copies: np.ndarray) -> np.ndarray:
        rows = [nets.run(model, fed(copy[None]))["logits"][0, classes] for copy in copies]
        return np.array(rows, np.float64)

    return score


def explained(model: Any, x: Any, method: str, target: Any = None, **more: Any) -> ogc.Explanation:
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        return explainer.explain(x, target, method, **more)


def as_nhwc_bytes(copies: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(copies), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


FORMS: dict[str, tuple[onnx.ModelProto, Any, Callable[[np.ndarray], np.ndarray]]] = {
    "NCHW": (classifier(), images(), lambda copies: copies),
    "one at a time": (classifier(batch=1), images(), lambda copies: copies),
    "two at a time": (classifier(batch=2), images(), lambda copies: copies.repeat(2, axis=0)),
    "NHWC of bytes": (classifier("NHWC", dtype=np.uint8), images(np.uint8).transpose(0, 2, 3, 1), as_nhwc_bytes),
}


@pytest.mark.parametrize("method", [name for name in FEW if name in INPUT_METHODS])
@pytest.mark.parametrize("form", FORMS)
def test_the_map_is_that_of_the_copies_as_the_runtime_scores_them(form: str, method: str) -> None:
    """Two images, their five classes each; the copies are floats, channels first."""
    model, x, feed = FORMS[form]
    result = explained(model, x, method, ogc.TopK(5), signed=True, **FEW[method])
    first = x.transpose(0, 3, 1, 2).astype(np.float32) if form.startswith("NHWC") else x
    for n, image in enumerate(first):
        rows = np.flatnonzero(result.image_index == n)
        score = scored(model, lambda copy: {"image": feed(copy).astype(x.dtype)}, result.class_index[rows])
        expected = INPUT_METHODS[method].function(image, score(image[None])[0], score, **FEW[method]).maps
        assert result.attribution is not None
        where = (slice(None), 0) if first is x else (..., 0)
        np.testing.assert_allclose(result.attribution[rows][where], expected, **CLOSE)
        peak = np.abs(expected).max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(result.heatmap[rows], expected / peak, rtol=1e-3, atol=1e-4)
    assert result.attribution.shape == (10, *x.shape[1:])
    assert len(np.unique(result.attribution[0][..., 0, 0] if first is x else result.attribution[0][0, 0])) == 1


@pytest.mark.parametrize("method", MASK_METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_the_weights_of_channels_are_those_of_masked_copies(form: str, method: str) -> None:
    model, x, feed = FORMS[form]
    result = explained(model, x, method, ogc.TopK(2), **FEW[method])
    first = x.transpose(0, 3, 1, 2).astype(np.float32) if form.startswith("NHWC") else x
    for row in range(len(result)):
        image = first[result.image_index[row]]
        score = scored(model, lambda copy: {"image": feed(copy).astype(x.dtype)}, result.class_index[[row]])
        activation = result.activation[row]
        expected = MASK_METHODS[method].function(image, activation, score(image[None])[0], score, **FEW[method])
        assert result.weights is not None
        np.testing.assert_allclose(result.weights[row], expected.weights[0], **CLOSE)
        np.testing.assert_allclose(result.cam[row], np.maximum(expected.maps[0], 0), **CLOSE)


def along(space: tuple[int, ...]) -> onnx.ModelProto:
    """A network of one, or of three, spatial axes."""
    net = Net(seed=1)
    x = net.op("Conv", net.input("x", ["N", 2, *space]), net.random(4, 2, *[3] * len(space)),
               pads=[1] * 2 * len(space))  # fmt: skip
    net.head(net.op("Relu", x, out="a"), 4, classes=3)
    return net.model({"logits": ["N", 3]})


@pytest.mark.parametrize("space", [(20,), (4, 5, 6)])
@pytest.mark.parametrize("method", FEW)
def test_signals_and_volumes(space: tuple[int, ...], method: str) -> None:
    model, x = along(space), np.random.default_rng(2).standard_normal((1, 2, *space)).astype(np.float32)
    result = explained(model, x, method, 1, signed=True, **FEW[method])
    score = scored(model, lambda copy: {"x": copy.astype(np.float32)}, [1])
    more = (result.activation[0],) if method in MASK_METHODS else ()
    function = {**INPUT_METHODS, **MASK_METHODS}[method].function
    expected = function(x[0], *more, score(x)[0], score, **FEW[method]).maps[0]
    found = result.cam[0] if more else result.attribution[0, 0]
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert result.heatmap.shape == (1, *space)


def test_other_inputs_stay_as_they_are() -> None:
    net = Net(seed=4)
    image, gain = net.input("image", ["N", 1, 8, 8]), net.input("gain", ["N", 1])
    x = net.op("Relu", net.conv(image, (1, 3)), out="a")
    pooled = net.op("Mul", net.op("Flatten", net.op("GlobalAveragePool", x)), gain)
    model = net.model({net.op("Gemm", pooled, net.random(2, 3), transB=1, out="logits"): ["N", 2]})
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    gains = np.array([[1], [-3]], np.float32)
    result = explained(model, {"image": x, "gain": gains}, "occlusion", [1, 1], signed=True, window=4)
    for n in range(2):
        score = scored(model, lambda copy, n=n: {"image": copy, "gain": gains[[n]]}, [1])
        expected = naive.occlusion(x[n], score, mean_colour(x[n]), [[0, 2, 4]] * 2, [4, 4])
        np.testing.assert_allclose(result.attribution[n, 0], expected[0], **CLOSE)


def test_the_cell_that_the_image_chose_stays() -> None:
    """A map of two classes: the brightest cell is covered in turn, and the score stays that of this cell."""
    net = Net()
    x = net.input("x", ["N", 3, 8, 8])
    pick = np.zeros((2, 3, 2, 2), np.float32)
    pick[0, 0], pick[1, 2] = 1 / 4, 1 / 4
    cells = net.op("Relu", net.op("Conv", x, net.array(pick), strides=[2, 2]), out="cells")
    net.op("Softmax", net.op("Mul", cells, net.array(np.float32(5))), axis=1, out="map")
    model = net.model({"map": ["N", 2, 4, 4]})
    x = np.zeros((1, 3, 8, 8), np.float32)
    x[0, 0, 2:4, 4:6], x[0, 0, 6:8, 0:2] = 1.0, 0.9
    result = explained(model, x, "occlusion", 0, window=2, stride=2, baseline=0, signed=True)
    expected = np.zeros((8, 8))
    expected[2:4, 4:6] = 5
    np.testing.assert_allclose(result.attribution[0, 0], expected, atol=1e-5)
    likely = explained(model, x, "occlusion", ogc.Probability(0), window=2, stride=2, baseline=0, signed=True)
    expected[2:4, 4:6] = 1 / (1 + np.exp(-5)) - 0.5
    np.testing.assert_allclose(likely.attribution[0, 0], expected, atol=1e-5)
    mask = np.zeros((8, 8))
    mask[6:8, 0:2] = 1
    part = explained(model, x, "occlusion", ogc.Region(0, mask=mask), window=2, stride=2, baseline=0)
    assert np.argwhere(part.heatmap[0] == 1).tolist() == [[6, 0], [6, 1], [7, 0], [7, 1]]


class TestBoxes:
    OPTIONS: ClassVar[Mapping[str, Any]] = {"samples": 30, "grid": 4, "keep": 0.6, "baseline": 0.0, "seed": 2}

    def expected(self, cell: tuple[int, int]) -> np.ndarray:
        """By hand: boxes of 12 × 12 about the cells; objectness and classes from the brightness of each cell."""
        masks = list(random_masks((HEIGHT, WIDTH), 30, 4, 0.6, 2))

        def rows(x: np.ndarray) -> dict[tuple[int, int], tuple[float, np.ndarray]]:
            found = {}
            for row in range(HEIGHT // CELL):
                for column in range(WIDTH // CELL):
                    part = x[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL].mean(axis=(1, 2))
                    gate = 1 / (1 + np.exp(4 - 8 * (part[RED] + part[BLUE])))
                    found[row, column] = gate, 1 / (1 + np.exp(3 - 6 * part[[RED, BLUE]]))
            return found

        reference = rows(SCENE[0])[cell][1]

        def score(copies: np.ndarray) -> np.ndarray:
            best = 0.0
            for (row, column), (gate, classes) in rows(copies[0]).items():
                wide, high = 12 - CELL * abs(column - cell[1]), 12 - CELL * abs(row - cell[0])
                both = max(wide, 0) * max(high, 0)
                cosine = classes @ reference / np.linalg.norm(classes) / np.linalg.norm(reference)
                best = max(best, both / (2 * 144 - both) * cosine * gate)
            return np.array([[best]])

        return naive.rise(SCENE[0], score, np.zeros_like(SCENE[0]), masks, 0.6)[0]

    def test_the_map_of_a_box_is_where_it_is_still_found(self) -> None:
        result = explained(lights(), SCENE, "d-rise", ogc.Boxes(2), signed=True, **self.OPTIONS)
        assert result.box is not None
        np.testing.assert_allclose(result.box[:2], [[6, 6, 18, 18], [14, 30, 26, 42]], atol=1e-4)
        for row, cell in enumerate([(1, 1), (4, 2)]):
            np.testing.assert_allclose(result.attribution[row, 0], self.expected(cell), rtol=1e-3, atol=1e-5)

    def test_a_class_is_its_box(self) -> None:
        by_class = explained(lights(), SCENE, "drise", 0, **self.OPTIONS)
        by_box = explained(lights(), SCENE, "D-RISE", ogc.Boxes(1), **self.OPTIONS)
        np.testing.assert_array_equal(by_class.heatmap, by_box.heatmap)

    def test_without_a_box_there_is_an_error(self) -> None:
        with pytest.raises(ogc.MethodError, match="this model has none beside its scores") as caught:
            explained(classifier(), images(), "d-rise")
        assert "rise" in caught.value.hint
        with pytest.raises(ogc.MethodError, match="has no counterfactual"):
            explained(lights(), SCENE, "d-rise", counterfactual=True)


def test_all_targets_share_the_runs_and_progress_is_told() -> None:
    for method, total in [("occlusion", 2 * 6), ("rise", 2 * 20), ("lime", 2 * 20), ("scorecam", 2 * 6)]:
        told: list[tuple[int, int]] = []
        explained(
            classifier(), images(), method, ogc.TopK(5), progress=lambda *at, told=told: told.append(at), **FEW[method]
        )
        assert told[0] == (0, total)
        assert total - 2 * (method in ("lime", "scorecam")) <= told[-1][0] <= total


def test_targets_that_are_no_classes_share_the_runs_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = Session.run

    def counted(session: Session, names: Any, feeds: Any) -> Any:
        seen.append(len(feeds["image"]) if "image" in feeds else 0)
        return plain(session, names, feeds)

    monkeypatch.setattr(Session, "run", counted)
    targets = [ogc.Probability(2), ogc.Probability(4), ogc.Probability(0)]
    together = explained(classifier(), images()[:1], "occlusion", ogc.Each(targets), signed=True, window=4)
    assert seen.count(6) == 1  # the six windows
    for row, target in enumerate(targets):
        alone = explained(classifier(), images()[:1], "occlusion", target, signed=True, window=4)
        np.testing.assert_array_equal(together.attribution[row], alone.attribution[0])
    x, logits = images()[:1], nets.run(classifier(), {"image": images()[:1]})["logits"][0]
    covered = x.copy()
    covered[:, :, :4, :4] = mean_colour(x[0])[None, :, :4, :4]
    after = nets.run(classifier(), {"image": covered})["logits"][0]
    softmax = [np.exp(z) / np.exp(z).sum() for z in (logits, after)]
    assert together.attribution[0, 0, 0, 0] == pytest.approx(softmax[0][2] - softmax[1][2], rel=1e-3)


def test_counterfactual_maps_are_of_the_negative_score() -> None:
    for method in ("occlusion", "rise", "lime", "kernel-shap"):
        plain, other = (explained(classifier(), images(), method, 2, signed=True, counterfactual=c, **FEW[method])
                        for c in (False, True))  # fmt: skip
        np.testing.assert_allclose(plain.attribution, -other.attribution, rtol=1e-5, atol=1e-6)


def test_words_have_no_mean() -> None:
    net = Net(seed=2)
    ids = net.input("ids", ["N", 12], np.int64)
    x = net.op("Transpose", net.op("Gather", net.random(30, 8), ids, axis=0), perm=[0, 2, 1])
    x = net.op("Relu", net.op("Conv", x, net.random(6, 8, 3), pads=[1, 1]), out="a")
    net.head(x, 6, classes=2)
    model = net.model({"logits": ["N", 2]})
    x = np.arange(1, 13)[None]
    with pytest.raises(ogc.MethodError, match="no mean colour"):
        explained(model, x, "occlusion")
    result = explained(model, x, "occlusion", 1, window=1, stride=1, baseline=0, signed=True)
    logits = nets.run(model, {"ids": x})["logits"]
    covered = [np.where(np.arange(12) == k, 0, x) for k in range(12)]
    expected = [logits[0, 1] - nets.run(model, {"ids": each})["logits"][0, 1] for each in covered]
    np.testing.assert_allclose(result.attribution[0], expected, rtol=1e-4, atol=1e-6)


def test_what_is_not_finite_is_no_map() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 1, 6, 6]), (1, 2)), out="a")
    total = net.op("ReduceSum", "x", net.ints(1, 2, 3), keepdims=0)
    logits = net.op("Div", net.op("Flatten", net.op("GlobalAveragePool", x)), net.op("Reshape", total, net.ints(-1, 1)),
                    out="logits")  # fmt: skip
    model = net.model({logits: ["N", 2]})
    image = np.zeros((1, 1, 6, 6), np.float32)
    image[..., :3, :3] = 1  # the first window leaves a sum of 0
    with pytest.raises(ogc.NotFinite, match="changed copy"):
        explained(model, image, "occlusion", 0, window=4, stride=2, baseline=0)


@pytest.mark.parametrize("method", ["occlusion", "lime"])
def test_all_views_of_an_image_are_covered_at_one_place(method: str) -> None:
    net = Net(seed=6)
    views = net.op("Reshape", net.input("x", ["N", 3, 3, 6, 6]), net.ints(-1, 3, 6, 6))
    relu = net.op("Relu", net.conv(views, (3, 4)), out="a")
    features = net.op("Reshape", net.op("GlobalAveragePool", relu), net.ints(-1, 3, 4))
    net.linear(net.op("ReduceMax", features, net.ints(1), keepdims=0), 4, 5, out="logits")
    model = net.model({"logits": ["N", 5]})
    x = np.random.default_rng(8).standard_normal((2, 3, 3, 6, 6)).astype(np.float32)
    result = explained(model, x, method, 1, signed=True, **FEW[method])
    assert result.view_index.tolist() == [0, 1, 2, 0, 1, 2]
    for n in range(2):
        flat = x[n].reshape(9, 6, 6)
        score = scored(model, lambda copy: {"x": copy.reshape(1, 3, 3, 6, 6).astype(np.float32)}, [1])
        expected = INPUT_METHODS[method].function(flat, score(flat[None])[0], score, **FEW[method]).maps[0]
        for row in range(3 * n, 3 * n + 3):
            np.testing.assert_allclose(result.attribution[row, 2, 1], expected, **CLOSE)
            np.testing.assert_allclose(result.heatmap[row], expected / np.abs(expected).max(), rtol=1e-3, atol=1e-4)


def test_the_picture_shows_what_the_map_is_measured_in_and_clips_nothing() -> None:
    assert [unit_of_map(m, "logit") for m in ("occlusion signed", "rise", "lime", "d-rise", "scorecam")] == [
        "logit", "logit", "logit", "similarity", "activation",
    ]  # fmt: skip
    x = np.random.default_rng(1).standard_normal((1, 3, *SPACE)).astype(np.float32)
    with ogc.Explainer(classifier(), providers=["cpu"]) as explainer:
        assert brightest_of(explainer.explain(x, method="rise", samples=20), 0) == 1.0
        assert brightest_of(explainer.explain(x, method="saliency"), 0) < 1.0
