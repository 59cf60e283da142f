"""Maps of methods that change the activation of a layer, against the whole model run copy by copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import changed
import nets
import numpy as np
import onnx
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.engine.session import Session

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def classifier(batch: int | str = nets.BATCH, skip: bool = False) -> onnx.ModelProto:
    """A network with a convolution behind its layer "a"; with ``skip`` another path goes around the layer."""
    net = nets.Net(seed=3)
    x = net.input("image", [batch, 3, 6, 8])
    x = net.op("Relu", net.conv(x, (3, 6), stride=2), out="before")
    net.op("Relu", net.conv(x, (6, 6)), out="a")
    y = net.op("Relu", net.conv("a", (6, 6)))
    net.head(net.op("Add", y, x) if skip else y, 6)
    return net.model({"logits": [batch, 5]})


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((2, 3, 6, 8)).astype(np.float32)


def explained(model: onnx.ModelProto, x: np.ndarray, method: str, target: Any = 1, **options: Any) -> ogc.Explanation:
    with ogc.Explainer(model, "a", providers=["cpu"]) as explainer:
        return explainer.explain(x, target, method, **options)


def scorer(model: onnx.ModelProto, image: np.ndarray, c: int) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
    """Return A of one image, and a function from A to the score."""
    feeds = {"image": image[None]}
    run = changed.runner(model, "a", feeds, "logits")
    return changed.value_of(model, "a", feeds)[0], lambda a: float(run(a[None].astype(np.float32))[0, c])


class TestAblation:
    @pytest.mark.parametrize("skip", [False, True])
    @pytest.mark.parametrize("batch", [nets.BATCH, 1])
    def test_is_each_channel_left_out_in_the_whole_model(self, x: np.ndarray, batch: int | str, skip: bool) -> None:
        model = classifier(batch, skip)
        result = explained(model, x, "ablation-cam", signed=True)
        for n, image in enumerate(x):
            weights, cam = changed.ablation_cam(*scorer(model, image, 1))
            assert result.weights is not None
            np.testing.assert_allclose(result.weights[n, :, 0, 0], weights, **CLOSE)
            np.testing.assert_allclose(result.cam[n], cam, **CLOSE)

    def test_of_a_negative_score_is_not_turned_around(self, x: np.ndarray) -> None:
        model = classifier()
        result = explained(model, x, "ablationcam", ogc.TopK(5))
        assert (result.score < 0).any()
        for n, c in enumerate(result.class_index):
            _, cam = changed.ablation_cam(*scorer(model, x[result.image_index[n]], int(c)))
            np.testing.assert_allclose(result.cam[n], np.maximum(cam, 0), **CLOSE)

    @pytest.mark.parametrize("batch", [1, 4, 100])
    def test_does_not_depend_on_how_many_are_run_at_once(self, x: np.ndarray, batch: int) -> None:
        one, other = (explained(classifier(), x, "ablationcam", batch=n) for n in (batch, 6))
        np.testing.assert_allclose(one.cam, other.cam, rtol=1e-5, atol=1e-6)

    def test_counterfactual_is_of_the_negative_score(self, x: np.ndarray) -> None:
        both = [explained(classifier(), x, "ablationcam", signed=True, counterfactual=c).cam for c in (False, True)]
        np.testing.assert_allclose(both[0], -both[1], **CLOSE)

    def test_absolute_drops_are_in_units_of_the_score(self, x: np.ndarray) -> None:
        maps = [explained(classifier(), x, "ablationcam", ogc.TopK(5), drop=d) for d in ("relative", "absolute")]
        size = np.abs(maps[0].score)[:, None, None]
        np.testing.assert_allclose(maps[0].cam * size, maps[1].cam, **CLOSE)
        np.testing.assert_allclose(maps[0].heatmap, maps[1].heatmap, **CLOSE)

    def test_absolute_drops_of_a_pooled_network_are_grad_cam(self, x: np.ndarray) -> None:
        """Behind the layer all is linear: what is lost without a channel is the sum of G·A in it."""
        net = nets.Net(seed=3)
        net.op("Relu", net.conv(net.input("image", [nets.BATCH, 3, 6, 8]), (3, 6)), out="a")
        net.head("a", 6)
        model = net.model({"logits": [nets.BATCH, 5]})
        ablation = explained(model, x, "ablationcam", signed=True, drop="absolute")
        cam = explained(model, x, "gradcam", signed=True)
        assert ablation.weights is not None
        assert cam.weights is not None
        lost = cam.weights * cam.activation.sum(axis=(2, 3), keepdims=True)
        np.testing.assert_allclose(ablation.weights, lost, **CLOSE)


class TestReciprocal:
    @pytest.mark.parametrize("window", ["gaussian", "point"])
    def test_is_each_position_alone_in_the_whole_model(self, x: np.ndarray, window: str) -> None:
        model = classifier(skip=True)
        result = explained(model, x, "recipro-cam", window=window)
        for n, image in enumerate(x):
            cam = changed.recipro_cam(*scorer(model, image, 1), gaussian=window == "gaussian")
            np.testing.assert_allclose(result.cam[n], cam, **CLOSE)

    def test_all_targets_share_the_runs(self, x: np.ndarray) -> None:
        told: list[tuple[int, int]] = []
        explained(classifier(), x, "reciprocam", ogc.TopK(5), progress=lambda done, total: told.append((done, total)))
        assert told[0] == (0, 2 * 12)
        assert told[-1] == (24, 24)


class TestPrice:
    @pytest.mark.parametrize(("method", "copies"), [("reciprocam", 12), ("ablationcam", 6)])
    def test_is_one_forward_pass_and_one_batch_of_what_is_behind(
        self, x: np.ndarray, monkeypatch: pytest.MonkeyPatch, method: str, copies: int
    ) -> None:
        sizes: list[dict[str, int]] = []
        plain = Session.run

        def counted(self: Session, names: Any, feeds: Any) -> Any:
            sizes.append({name: len(array) for name, array in feeds.items()})
            return plain(self, names, feeds)

        with ogc.Explainer(classifier(), "a", providers=["cpu"], check_forward=False) as explainer:
            explainer.explain(x[:1], 1, method)
            monkeypatch.setattr(Session, "run", counted)
            explainer.explain(x[:1], ogc.TopK(3), method)
        assert sizes[0] == {"image": 1}
        assert sizes[1:] == [{"a": copies}]


class TestRefusals:
    def test_names_what_is_wrong(self, x: np.ndarray) -> None:
        for options, words in [
            ({"smooth": "noise"}, "runs the model many times already"),
            ({"batch": 0}, "option 'batch' is 0"),
            ({"window": "round"}, "option 'window' is 'round'"),
            ({"signed": True}, "no signed variant"),
            ({"counterfactual": True}, "no counterfactual variant"),
            ({"steps": 3}, "has no option"),
        ]:
            with pytest.raises(ogc.MethodError, match=words):
                explained(classifier(), x, "reciprocam", **options)
