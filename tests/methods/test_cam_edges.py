"""Zeros, infinities, single positions and several copies: where a formula divides or has nothing to work on."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from cam_cases import ALL, PROJECTED, SCORED, SPACES, assert_close, compute_cam, oracle, sample

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods import cam as methods
from onnx_gradcam.methods.cam import NEEDS_GRADIENT, WEIGHTS


class TestEdges:
    @pytest.mark.parametrize("method", ALL)
    def test_zero_activation_is_blank(self, method):
        gradient = sample(method, (4, 5))[1]
        cam = compute_cam(method, np.zeros_like(gradient), gradient)[1]
        np.testing.assert_array_equal(cam, np.zeros((3, 4, 5)))

    @pytest.mark.parametrize("method", sorted(NEEDS_GRADIENT))
    def test_zero_gradient_is_blank(self, method):
        activation = sample(method, (4, 5))[0]
        cam = compute_cam(method, activation, np.zeros_like(activation))[1]
        np.testing.assert_array_equal(cam, np.zeros((3, 4, 5)))

    @pytest.mark.parametrize("method", SCORED)
    def test_negative_evidence_only_is_blank(self, method):
        activation = np.abs(sample(method, (4, 5))[0])
        gradient = np.full_like(activation, -0.5)
        assert compute_cam(method, activation, gradient)[1].max() <= 0
        assert compute_cam(method, activation, gradient, counterfactual=True)[1].min() > 0

    @pytest.mark.parametrize(
        ("method", "where"),
        [(name, "activation") for name in ALL] + [(name, "gradient") for name in sorted(NEEDS_GRADIENT)],
    )
    def test_nan_does_not_become_zero(self, method, where):
        arrays = dict(zip(("activation", "gradient"), (x.copy() for x in sample(method, (4, 5))), strict=True))
        arrays[where][1, 2, 0, 3] = np.nan
        for counterfactual in (False, True) if method in SCORED else (False,):
            cam = compute_cam(method, **arrays, counterfactual=counterfactual)[1]
            assert np.isnan(cam[1, 0, 3])
            assert not np.isnan(cam[[0, 2]]).any()

    def test_nan_over_a_blank_channel_does_not_become_zero(self):
        activation, gradient = np.zeros((1, 1, 2, 2)), np.full((1, 1, 2, 2), np.nan)
        for method in sorted(NEEDS_GRADIENT):
            assert np.isnan(compute_cam(method, activation, gradient)[1]).all()

    @pytest.mark.parametrize("method", ALL)
    def test_float16_becomes_float32_without_overflow(self, method):
        """Σ over 400 positions of products near 200 · 200 passes float16's 65504 many times."""
        activation, gradient = (200 * np.abs(x) for x in sample(method, (20, 20), n=1, channels=3))
        activation, gradient = activation.astype(np.float16), gradient.astype(np.float16)
        weights, cam = compute_cam(method, activation, gradient)
        assert cam.dtype == np.float32
        assert weights is None or weights.dtype == np.float32
        assert_close(cam, oracle(method, activation.astype(float), gradient.astype(float)), 2e-5)

    @pytest.mark.parametrize("method", ALL)
    def test_inputs_are_not_changed(self, method):
        for dtype in (np.float16, np.float32, np.float64):
            activation, gradient = (x.astype(dtype) for x in sample(method, (4, 5)))
            before = activation.copy(), gradient.copy()
            activation.flags.writeable = gradient.flags.writeable = False
            compute_cam(method, activation, gradient)
            np.testing.assert_array_equal((activation, gradient), before)

    @pytest.mark.parametrize("method", ALL)
    def test_an_image_alone_is_what_it_is_in_a_batch(self, method):
        activation, gradient = sample(method, (4, 5), seed=14)
        activation[1] *= 1e4
        batch = compute_cam(method, activation, gradient)[1]
        for i in range(3):
            alone = compute_cam(method, activation[i : i + 1], gradient[i : i + 1])[1]
            assert_close(alone[0], batch[i], 1e-6)

    @pytest.mark.parametrize("method", SCORED)
    def test_a_single_position(self, method):
        """One position: every mean is the value itself, and most methods give relu(Σ_k G·A)."""
        activation, gradient = np.array([[2.0, 1.0, 4.0]]), np.array([[1.0, -3.0, 0.5]])
        expected = {
            "elementwise": 2 + 2,
            "layercam": 2 + 2,
            "gradcam++": 2 * 1 / (2 + 2 * 1) + 4 * 0.5 / (2 + 4 * 0.5),
            "smooth-gradcam++": 2 * 1 / (2 + 2 * 1) + 4 * 0.5 / (2 + 4 * 0.5),
            "shapleycam": (2 - 3 + 2) / 2,
        }.get(method, 2 - 3 + 2)
        cam = compute_cam(method, activation[..., None, None], gradient[..., None, None])[1]
        np.testing.assert_allclose(cam, [[[expected]]], rtol=1e-6)

    @pytest.mark.parametrize("method", PROJECTED)
    def test_a_single_position_has_no_component(self, method):
        cam = compute_cam(method, np.full((1, 3, 1, 1), 2.0), np.ones((1, 3, 1, 1)))[1]
        np.testing.assert_array_equal(cam, [[[0]]])


class TestSmoothGradCamPlusPlus:
    def test_by_hand(self):
        """ΣA = 6; D₁ = (1, 1), D₂ = (5, 1), D₃ = (13, 1): 5 / (10 + 78) + 1 / (2 + 6)."""
        activation = np.array([[[2.0, 4.0]]])
        gradients = np.array([[[[3.0, 1.0]]], [[[-1.0, 1.0]]]])
        weights = methods.compute_cam("smooth-gradcam++", activation, gradients.mean(axis=0), more=means(gradients))[0]
        np.testing.assert_allclose(weights, [[[5 / 88 + 1 / 8]]], rtol=1e-6)

    @pytest.mark.parametrize("counterfactual", [False, True])
    @pytest.mark.parametrize("space", SPACES, ids=len)
    def test_several_copies(self, space, counterfactual):
        rng = np.random.default_rng(16)
        activation = np.abs(rng.normal(size=(2, 4, *space)))
        gradients = rng.normal(size=(5, 2, 4, *space))
        cam = methods.compute_cam(
            "smooth-gradcam++",
            activation,
            gradients.mean(axis=0),
            more=means(gradients),
            counterfactual=counterfactual,
            signed=True,
        )[1]
        sign = -1 if counterfactual else 1
        expected = [oracles.smooth_gradcam_plus_plus(activation[i], sign * gradients[:, i]) for i in range(2)]
        assert_close(cam, np.stack(expected), 1e-6)

    def test_the_higher_powers_are_averaged_and_not_powers_of_the_average(self):
        """First position: D₁ = 1, D₂ = 5, D₃ = 13; second: the copies cancel, D₁ = 0."""
        gradients = np.array([[[[3.0, -1.0]]], [[[-1.0, 1.0]]]])
        activation = np.ones((1, 1, 2))
        weights = methods.compute_cam("smooth-gradcam++", activation, gradients.mean(axis=0), more=means(gradients))[0]
        np.testing.assert_allclose(weights, [[[5 / (10 + 2 * 13)]]], rtol=1e-6)

    def test_without_the_powers(self):
        with pytest.raises(MethodError, match="'smooth-gradcam\\+\\+' needs the square"):
            methods.compute_cam("smooth-gradcam++", np.ones((1, 1, 2)), np.ones((1, 1, 2)))


def means(gradients: np.ndarray) -> dict[str, np.ndarray]:
    return {"square": (gradients**2).mean(axis=0), "cube": (gradients**3).mean(axis=0)}


class TestShapleyCam:
    def test_by_hand(self):
        """G = (1, 3), H·A = (4, −2): the mean of −1 and 4."""
        arrays = np.array([[[2.0, 4.0]]]), np.array([[[1.0, 3.0]]])
        curvature = np.array([[[4.0, -2.0]]])
        for counterfactual, sign in [(False, 1), (True, -1)]:
            options = {"more": {"curvature": curvature}, "signed": True, "counterfactual": counterfactual}
            weights, cam = methods.compute_cam("shapleycam", *arrays, **options)
            np.testing.assert_allclose(weights, [[[sign * 1.5]]])
            np.testing.assert_allclose(cam, [[sign * 3, sign * 6]])


class TestDivision:
    def test_xgradcam_keeps_the_sign_of_a_small_sum(self):
        """ΣA = ±1e-3 of Σ|A| = 2: divided by as it is. ±1e-9: by 1e-4 · 2, with its sign. 0: weight 0."""
        sums = np.array([2e-3, -2e-3, 2e-9, -2e-9, 0])
        activation = np.stack([1 + sums / 2, -1 + sums / 2], axis=1)[None]
        gradient = np.broadcast_to([1.0, 0.5], activation.shape)
        weights = WEIGHTS["xgradcam"](activation, gradient)[0, :, 0]
        np.testing.assert_allclose(weights, [250.75, -249.25, 2500, -2500, 0], rtol=1e-5)

    def test_xgradcam_of_a_constant_gradient_is_that_gradient(self):
        """A cancels to 1e-3 of Σ|A|: above the guard, nothing is added to the denominator."""
        activation = np.array([[[3.0, -2.0, 1.0], [0.25, -5.0, 4.76]]])
        weights = WEIGHTS["xgradcam"](activation, np.full_like(activation, 0.7))
        np.testing.assert_allclose(weights, [[[0.7], [0.7]]], rtol=1e-12)

    def test_gradcam_plus_plus_is_zero_where_undefined(self):
        """ΣA = −2, G = 1: 2G² + ΣA·G³ = 0."""
        activation, gradient = np.array([[[-3.0, 1.0]]]), np.array([[[1.0, 0.5]]])
        weights = WEIGHTS["gradcam++"](activation, gradient)
        np.testing.assert_allclose(weights, [[[0.5 / (2 - 2 * 0.5)]]], rtol=1e-12)

    @pytest.mark.parametrize("method", ["gradcam++", "smooth-gradcam++"])
    @pytest.mark.parametrize("scale", [1e-25, 1e-15])
    def test_gradcam_plus_plus_of_tiny_gradients(self, method, scale):
        """Where G² and G³ leave float32, a is still 1/2: weight = Σ relu(G) / 2."""
        activation, gradient = sample(method, (4, 5), seed=15)
        weights = compute_cam(method, activation, gradient * scale)[0]
        expected = np.maximum(gradient, 0).sum(axis=(2, 3), keepdims=True) / 2
        np.testing.assert_allclose(weights / np.float32(scale), expected, rtol=1e-5)
