"""Attacks on models: against the same attacks written in torch, and what must hold whatever the model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import LABELS, SIDE, network, photo, pixels_of
from nets import Net
from onnx import numpy_helper

import onnx_gradcam as ogc

MODEL = network()
SPEC = ogc.Preprocess(
    (SIDE, SIDE), "stretch", None, 1 / 255, (0.2, 0.3, 0.4), (0.5, 0.25, 1.0), "RGB", "NCHW", "float32"
)
UNIT = np.array([1 / 255 / s for s in SPEC.std])[:, None, None]
LOW, HIGH = (np.array([(v - m) / s for m, s in zip(SPEC.mean, SPEC.std, strict=True)]) for v in (0, 1))
HOW: dict[str, Any] = {"labels": LABELS, "preprocess": SPEC, "providers": ["cpu"]}


def tensor(count: int) -> np.ndarray:
    """Return photos as the model takes them, (N, 3, 16, 16)."""
    photos = np.stack([pixels_of(seed) for seed in range(count)]).transpose(0, 3, 1, 2) / 255
    return ((photos - np.reshape(SPEC.mean, (3, 1, 1))) / np.reshape(SPEC.std, (3, 1, 1))).astype(np.float32)


class Naive:
    """The same network in torch, and the attacks as their papers have them, image by image."""

    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch", reason="torch: not installed")
        arrays = [numpy_helper.to_array(t).astype(np.float64) for t in MODEL.graph.initializer]
        self.weights = [self.torch.tensor(a) for a in arrays]

    def logits(self, x: Any) -> Any:
        f, (w0, b0, w1, b1, w2) = self.torch.nn.functional, self.weights
        x = f.relu(f.conv2d(x, w0, b0, stride=2, padding=1))
        x = f.relu(f.conv2d(x, w1, b1, padding=1))
        return x.mean((2, 3)) @ w2.T

    def gradient(self, x: np.ndarray, index: int, sign: float) -> np.ndarray:
        """Return sign · ∂ −log p / ∂x of one image, by grey levels."""
        leaf = self.torch.tensor(x[None].astype(np.float64), requires_grad=True)
        loss = self.torch.nn.functional.cross_entropy(self.logits(leaf), self.torch.tensor([index]))
        (gradient,) = self.torch.autograd.grad(sign * loss, leaf)
        return np.asarray(gradient[0].numpy() * UNIT)

    def step(self, g: np.ndarray, norm: str) -> np.ndarray:
        return np.sign(g) if norm == "linf" else g / np.sqrt((g**2).sum())

    def clip(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, LOW[:, None, None], HIGH[:, None, None])

    def fgsm(self, x: np.ndarray, index: int, sign: float, epsilon: float, norm: str) -> np.ndarray:
        return self.clip(x + epsilon * UNIT * self.step(self.gradient(x, index, sign), norm))

    def pgd(self, x: np.ndarray, index: int, sign: float, epsilon: float, norm: str, steps: int) -> np.ndarray:
        attacked = x.astype(np.float64)
        for _ in range(steps):
            moved = attacked + 2.5 * epsilon / steps * UNIT * self.step(self.gradient(attacked, index, sign), norm)
            change = (moved - x) / UNIT
            if norm == "linf":
                change = np.minimum(np.maximum(change, -epsilon), epsilon)
            elif (length := np.sqrt((change**2).sum())) > epsilon:
                change = change / length * epsilon
            attacked = self.clip(x + change * UNIT)
        return attacked


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_that_of_torch(norm: str, target: int | None) -> None:
    x, naive, epsilon = tensor(3), Naive(), {"linf": 6.0, "l2": 150.0}[norm]
    attacked = ogc.attack(MODEL, x, target, true=[0, 2, 2], epsilon=epsilon, norm=norm, **HOW)
    for k, true in enumerate([0, 2, 2]):
        index, sign = (true, 1.0) if target is None else (target, -1.0)
        expected = naive.fgsm(x[k], index, sign, epsilon, norm)
        np.testing.assert_allclose(attacked.adversarial[k], expected, rtol=0, atol=1e-6)
    assert (attacked.used <= epsilon * (1 + 1e-12)).all()
    assert (attacked.used > 0.8 * epsilon).all()


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_that_of_torch(norm: str, target: int | None) -> None:
    x, naive, epsilon = tensor(2), Naive(), {"linf": 6.0, "l2": 150.0}[norm]
    how = {**HOW, "method": "pgd", "steps": 4, "random_start": False}
    attacked = ogc.attack(MODEL, x, target, true=[0, 2], epsilon=epsilon, norm=norm, **how)
    for k, true in enumerate([0, 2]):
        index, sign = (true, 1.0) if target is None else (target, -1.0)
        expected = naive.pgd(x[k], index, sign, epsilon, norm, 4)
        np.testing.assert_allclose(attacked.adversarial[k], expected, rtol=0, atol=1e-6)


def test_predictions_before_and_after_are_those_of_the_model_and_success_follows_from_them() -> None:
    x, naive = tensor(4), Naive()
    attacked = ogc.attack(MODEL, x, true=[0, 1, 2, 2], epsilon=40, **HOW)
    for images, classes, probabilities in (
        (attacked.x, attacked.before, attacked.probabilities_before),
        (attacked.adversarial, attacked.after, attacked.probabilities_after),
    ):
        expected = naive.logits(naive.torch.tensor(images.astype(np.float64))).softmax(1).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        np.testing.assert_array_equal(classes, expected.argmax(1))
    np.testing.assert_array_equal(attacked.right, attacked.before == [0, 1, 2, 2])
    np.testing.assert_array_equal(attacked.success, attacked.after != [0, 1, 2, 2])
    aimed = ogc.attack(MODEL, x, "star", epsilon=40, method="pgd", **HOW)
    np.testing.assert_array_equal(aimed.success, aimed.after == 1)
    np.testing.assert_array_equal(aimed.true, aimed.before)
    rows = aimed.as_dict()["rows"]
    assert [row["success"] for row in rows] == aimed.success.tolist()
    assert rows[0]["target"] == {"class_index": 1, "label": "star"}
    of_right = aimed.success[aimed.right]
    assert aimed.success_rate == pytest.approx(of_right.mean())


def test_an_image_is_attacked_in_the_same_way_alone_and_with_others() -> None:
    x = tensor(20)
    together = ogc.attack(MODEL, x, epsilon=5, method="pgd", steps=2, random_start=False, **HOW)
    alone = ogc.attack(MODEL, x[17:18], epsilon=5, method="pgd", steps=2, random_start=False, **HOW)
    np.testing.assert_allclose(together.adversarial[17], alone.adversarial[0], atol=1e-6)


def test_pixels_stay_from_0_to_255_and_the_padding_stays(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    wide = np.repeat(pixels_of(1)[:8], 1, axis=0)  # 8 × 16: a letterbox has padding above and below
    spec = ogc.Preprocess((SIDE, SIDE), "letterbox", None, *(getattr(SPEC, k) for k in (
        "scale", "mean", "std", "channels", "layout", "dtype")))  # fmt: skip
    attacked = ogc.attack(MODEL, wide, epsilon=60, **{**HOW, "preprocess": spec})
    np.testing.assert_array_equal(attacked.change[0][:, [0, 1, 2, 3, 12, 13, 14, 15]], 0)
    assert (np.abs(attacked.change[0][:, 4:12]) > 0).mean() > 0.9
    levels = attacked.adversarial[0] / UNIT + (np.array(SPEC.mean) * 255)[:, None, None]
    assert levels.min() >= -1e-3
    assert levels.max() <= 255 + 1e-3
    assert attacked.pixels is not None
    expected = np.rint(levels).clip(0, 255).transpose(1, 2, 0)
    np.testing.assert_array_equal(attacked.pixels[1][0], expected)


def test_bgr_channels_last_and_a_file() -> None:
    model = network("NHWC")
    spec = ogc.Preprocess((SIDE, SIDE), "stretch", None, 1.0, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0), "BGR", "NHWC",
                          "float32")  # fmt: skip
    attacked = ogc.attack(model, [pixels_of(0), pixels_of(1)], epsilon=2, **{**HOW, "preprocess": spec})
    assert attacked.pixels is not None
    np.testing.assert_array_equal(attacked.pixels[0], np.stack([pixels_of(0), pixels_of(1)]))
    changed = attacked.pixels[1].astype(int) - attacked.pixels[0]
    assert np.abs(changed).max() == 2
    np.testing.assert_allclose(np.abs(attacked.adversarial - attacked.x).max(axis=(0, 1, 2)), [2, 1, 0.5], rtol=1e-4)


def test_an_input_without_pixels_has_numbers_of_its_own() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32) * 50
    how = {**HOW, "preprocess": None}
    attacked = ogc.attack(MODEL, x, epsilon=0.5, **how)
    assert attacked.unit == "input"
    assert attacked.pixels is None
    np.testing.assert_allclose(attacked.used, 0.5, rtol=1e-4)
    bounded = ogc.attack(MODEL, np.clip(x, -1, 1), epsilon=0.5, bounds=(-1, 1), **how)
    assert np.abs(bounded.adversarial).max() <= 1


def test_a_margin_is_attacked_where_a_softmax_is_saturated() -> None:
    model = network()
    head = next(t for t in model.graph.initializer if t.name == model.graph.node[-1].input[1])
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32(3000), head.name))
    attacked = ogc.attack(model, tensor(2), epsilon=2, **HOW)
    assert attacked.flat.all()
    assert not attacked.change.any()
    assert any("saturated softmax" in warning for warning in attacked.warnings)
    margin = ogc.attack(model, tensor(2), epsilon=2, loss="margin", **HOW)
    assert not margin.flat.any()
    assert not margin.warnings
    np.testing.assert_allclose(margin.used, 2, rtol=1e-4)


def test_an_image_is_not_driven_to_the_class_that_it_has() -> None:
    own = int(ogc.attack(MODEL, tensor(1), **HOW).before[0])
    for keywords in ({"true": None}, {"true": LABELS[own]}):
        with pytest.raises(ogc.InputError, match=f"aims at '{LABELS[own]}', which the image is already"):
            ogc.attack(MODEL, tensor(1), own, **HOW, **keywords)
    mistaken = ogc.attack(MODEL, tensor(1), own, true=(own + 1) % 3, **HOW)
    assert (mistaken.right.tolist(), mistaken.success_rate) == ([False], None)


@pytest.mark.parametrize(("keywords", "text"), [
    ({"method": "fgms"}, "unknown attack 'fgms'\n  try    'fgsm'"),
    ({"norm": "l1"}, "unknown norm 'l1'"),
    ({"loss": "margins"}, "unknown loss 'margins'"),
    ({"epsilon": 0}, "epsilon is 0"),
    ({"epsilon": float("nan")}, "epsilon is nan"),
    ({"steps": 0, "method": "pgd"}, "0 steps"),
    ({"steps": 2.5, "method": "pgd"}, "2.5 steps"),
    ({"seed": -1, "method": "pgd"}, "seed is -1"),
])  # fmt: skip
def test_attacks_that_there_are_not(keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(ogc.MethodError) as caught:
        ogc.attack(MODEL, tensor(1), **HOW, **keywords)
    assert str(caught.value).startswith(text)


def test_models_and_inputs_that_cannot_be_attacked() -> None:
    net = Net()
    image = net.input("image", ["N", 3, SIDE, SIDE], np.uint8)
    x = net.op("Relu", net.conv(net.op("Cast", image, to=1), (3, 4)), out="last")
    integers = net.model({net.head(x, 4, 3): ["N", 3]})
    with pytest.raises(ogc.InputError, match="holds integers"):
        ogc.attack(integers, pixels_of(0), providers=["cpu"])
    net = Net()
    x = net.op("Relu", net.conv(net.input("image", ["N", 3, SIDE, SIDE]), (3, 4)), out="last")
    regression = net.model({net.head(x, 4, 1): ["N", 1]})
    with pytest.raises(ogc.ScoreError, match="holds no scores of classes"):
        ogc.attack(regression, tensor(1), score="logits", preprocess=SPEC, providers=["cpu"])
    net = Net()
    image = net.input("image", ["N", 3, SIDE, SIDE])
    x = net.op("Round", net.op("Sign", net.conv(image, (3, 4))), out="last")
    flat = net.model({net.head(x, 4, 3): ["N", 3]})
    with pytest.raises(ogc.NoGradientPath):
        ogc.attack(flat, tensor(1), preprocess=SPEC, providers=["cpu"])
    with pytest.raises(ogc.InputError, match=r"no pixels from 0 to 255"):
        ogc.attack(MODEL, tensor(1) * 50, **HOW)
    with pytest.raises(ogc.TargetError, match="2 targets for 1 images"):
        ogc.attack(MODEL, tensor(1), [0, 1], **HOW)
