"""Methods that project on a principal component."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from cam_cases import PROJECTED, SPACES, WEIGHTED, assert_close, compute_cam, oracle, sample

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.cam import check_method


class TestPrincipalComponent:
    @pytest.mark.parametrize(("channels", "space"), [(40, (3, 3)), (3, (9, 9)), (12, (12,))], ids=str)
    @pytest.mark.parametrize("seed", range(5))
    def test_against_svd_with_its_sign(self, channels, space, seed):
        activation, gradient = sample("eigencam", space, seed=seed, channels=channels)
        for method in PROJECTED:
            cam = compute_cam(method, activation, gradient)[1]
            assert_close(cam, oracle(method, activation, gradient), 5e-5)

    @pytest.mark.parametrize("shape", [(8, 30), (30, 8)], ids=str)
    def test_two_components_of_nearly_the_same_energy(self, shape):
        """Singular values 1 and 0.9995: energies 0.1 % apart, the hardest that SQUARINGS promises."""
        channels, points = shape
        rng = np.random.default_rng(9)
        centred = rng.normal(size=(points, 8))
        u = np.linalg.qr(centred - centred.mean(axis=0))[0][:, :7]
        v = np.linalg.qr(rng.normal(size=(channels, 8)))[0][:, :7]
        activation = ((u * [1, 0.9995, 0.5, 0.4, 0.3, 0.2, 0.1]) @ v.T).T[None]
        expected = u[:, 0] * np.sign(v[:, 0].sum())
        cam = compute_cam("eigencam", activation, None)[1][0]
        # float32 activations turn the axis by about 1e-7 / 1e-3
        np.testing.assert_allclose(cam, np.maximum(expected, 0), atol=2e-4)

    def test_channel_sums_that_cancel_do_not_hide_the_component(self):
        """A_2 = −A_1: Σ_k A is 0 everywhere, so that either direction will do, but not a blank map."""
        ramp = np.arange(6.0)
        cam = compute_cam("eigencam", np.stack([ramp, -ramp])[None], None)[1][0]
        half = np.sqrt(2) * np.array([0, 0, 0, 0.5, 1.5, 2.5])
        assert np.allclose(cam, half, rtol=1e-6) or np.allclose(cam, half[::-1], rtol=1e-6)

    @pytest.mark.parametrize("channels", [2, 8], ids="{} channels".format)
    def test_a_first_channel_and_position_without_energy(self, channels):
        """A_k = k · c with c_0 = mean c = 0: p = |(0, 1, …)| · c."""
        c = np.array([0.0, 1, -1, 3, -3])
        k = np.arange(channels)
        cam = compute_cam("eigencam", (k[:, None] * c)[None], None)[1][0]
        np.testing.assert_allclose(cam, np.sqrt(np.sum(k**2)) * np.array([0, 1, 0, 3, 0]), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_any_scale(self, scale):
        activation, _ = sample("eigencam", (4, 5), seed=10)
        expected = compute_cam("eigencam", activation, None)[1]
        assert_close(compute_cam("eigencam", activation * scale, None)[1] / np.float32(scale), expected, 5e-6)

    @pytest.mark.parametrize("value", [0.0, 0.1, -1e6 / 3])
    def test_constant_activation_is_blank_and_not_rounding_noise(self, value):
        activation = value * np.random.default_rng(11).normal(size=(2, 5, 1, 1)) * np.ones((7, 7))
        np.testing.assert_array_equal(compute_cam("eigencam", activation, None)[1], np.zeros((2, 7, 7)))

    def test_an_offset_does_not_matter(self):
        activation, _ = sample("eigencam", (4, 5), seed=12)
        offset = np.random.default_rng(13).integers(-8, 8, size=(1, 6, 1, 1))
        expected = compute_cam("eigencam", activation, None)[1]
        assert_close(compute_cam("eigencam", activation + offset, None)[1], expected, 1e-5)


class TestEigen:
    """The first principal component of weights · A in the place of its sum."""

    def test_by_hand(self):
        """A = 5 + 3c and 6 − 4c, weights 1 and −1: 5 + 3c and −6 + 4c, p = 5c as the first of eigengradcam's."""
        activation, gradient = np.array([[[[8, 2], [2, 8]], [[2, 10], [10, 2]]]], float), np.ones((1, 2, 2, 2))
        gradient[:, 1] = -1
        weights, cam = compute_cam("gradcam", activation, gradient, combination="eigen")
        np.testing.assert_allclose(weights, [[[[1]], [[-1]]]])
        np.testing.assert_allclose(cam, [[[5, 0], [0, 5]]], rtol=1e-6)

    @pytest.mark.parametrize("space", SPACES, ids=len)
    @pytest.mark.parametrize("method", WEIGHTED)
    def test_is_the_component_of_the_weighted_activation(self, method, space):
        activation, gradient = sample(method, space, seed=17)
        weights, cam = compute_cam(method, activation, gradient, combination="eigen")
        expected = [np.maximum(oracles.principal_component(x), 0) for x in weights * activation]
        assert_close(cam, np.stack(expected), 5e-5)

    def test_hirescam_becomes_eigengradcam(self):
        activation, gradient = sample("hirescam", (4, 5), seed=18)
        cam = compute_cam("hirescam", activation, gradient, combination="eigen")[1]
        np.testing.assert_array_equal(cam, compute_cam("eigengradcam", activation, gradient)[1])

    @pytest.mark.parametrize("variant", ["counterfactual", "signed"])
    def test_has_no_variants(self, variant):
        with pytest.raises(MethodError, match=f"no {variant} variant"):
            compute_cam("gradcam", *sample("gradcam", (4, 5)), combination="eigen", **{variant: True})

    @pytest.mark.parametrize("method", PROJECTED)
    def test_is_not_for_what_is_one_already(self, method):
        with pytest.raises(MethodError, match=f"'{method}' has no eigen variant: it is a principal component already"):
            compute_cam(method, *sample(method, (4, 5)), combination="eigen")

    def test_unknown_combination(self):
        with pytest.raises(MethodError, match="'eign'") as caught:
            check_method("gradcam", combination="eign")
        assert "'eigen'" in caught.value.hint
