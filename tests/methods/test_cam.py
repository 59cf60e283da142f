from __future__ import annotations

import inspect
import re

import numpy as np
import oracles
import pytest

from onnx_gradcam.errors import LayerError, MethodError
from onnx_gradcam.methods import cam as methods
from onnx_gradcam.methods.cam import CAMS, NEEDS, NEEDS_GRADIENT, PROJECTIONS, WEIGHTS, check_method

WEIGHTED, PROJECTED, ALL = sorted(WEIGHTS), sorted(PROJECTIONS), sorted(CAMS)
SPACES = [(9,), (4, 5), (2, 3, 4)]

# The two channels that most hand cases share.
A = [[[1, 2], [3, -2]], [[1, 1], [-1, 1]]]
G = [[[1, 0], [-1, 2]], [[-2, 1], [-3, 0]]]
# method: activation, gradient, weights, Σ_k weights · activation
HAND = {
    "gradcam": (A, G, [[[1 / 2]], [[-1]]], [[-0.5, 0], [2.5, -2]]),
    # ΣA = 4: a = 1/(2 + 4·1), 1/(2 + 4·2), weight 1/6 + 2/10; ΣA = 2: a = 1/(2 + 2·1), weight 1/4
    "gradcam++": (A, G, [[[11 / 30]], [[1 / 4]]], [[37 / 60, 59 / 60], [51 / 60, -29 / 60]]),
    # ΣGA / ΣA = (1 + 0 − 3 − 4) / 4 and (−2 + 1 + 3 + 0) / 2
    # one copy: as Grad-CAM++
    "smooth-gradcam++": (A, G, [[[11 / 30]], [[1 / 4]]], [[37 / 60, 59 / 60], [51 / 60, -29 / 60]]),
    # H·A = G: half of Grad-CAM
    "shapleycam": (A, G, [[[1 / 4]], [[-1 / 2]]], [[-0.25, 0], [1.25, -1]]),
    "xgradcam": (A, G, [[[-3 / 2]], [[1]]], [[-0.5, -2], [-5.5, 4]]),
    "hirescam": (A, G, G, [[-1, 1], [0, -4]]),
    "elementwise": (A, G, [[[1, 0], [0, 0]], [[0, 1], [-3, 0]]], [[1, 1], [3, 0]]),
    "layercam": (A, G, [[[1, 0], [0, 2]], [[0, 1], [0, 0]]], [[1, 1], [0, -4]]),
    "cam": (A, [[[0.25] * 2] * 2, [[-0.5] * 2] * 2], [[[1]], [[-2]]], [[-1, 0], [5, -4]]),
    # with c = [[1, −1], [−1, 1]]: A = 5 + 3c and 6 − 4c, v = (−3, 4)/5 since its sum is positive, p = −5c
    "eigencam": ([[[8, 2], [2, 8]], [[2, 10], [10, 2]]], None, None, [[-5, 5], [5, -5]]),
    # G·A = 5 + 3c and −6 + 4c, v = (3, 4)/5, p = 5c
    "eigengradcam": (
        [[[4, 1], [1, 4]], [[2, 10], [10, 2]]],
        [[[2, 2], [2, 2]], [[-1, -1], [-1, -1]]],
        None,
        [[5, -5], [-5, 5]],
    ),
}


def needed(method: str, gradient: np.ndarray | None) -> dict[str, np.ndarray]:
    """What a method needs beside the gradient: its powers as of one copy, or itself as the Hessian's product."""
    if gradient is None:
        return {}
    wide = gradient.astype(float) if isinstance(gradient, np.ndarray) else gradient
    given = {"square": wide**2, "cube": wide**3, "curvature": gradient}
    return {name: given[name] for name in NEEDS.get(method, ()) if name in given}


def compute_cam(method: str, activation, gradient, **options):
    return methods.compute_cam(method, activation, gradient, more=needed(method, gradient), **options)


def sample(method: str, space: tuple[int, ...], *, seed: int = 0, n: int = 3, channels: int = 6):
    """Activations and gradients as the method's oracle takes them: A ≥ 0 where it divides by ΣA."""
    rng = np.random.default_rng(seed)
    activation, gradient = rng.normal(size=(2, n, channels, *space))
    if method in ("gradcam++", "smooth-gradcam++", "xgradcam"):
        activation = np.maximum(activation, 0) + 0.01
    if method == "cam":
        gradient = np.broadcast_to(gradient.mean(axis=tuple(range(2, gradient.ndim)), keepdims=True), gradient.shape)
    return activation, gradient


def oracle(method: str, activation: np.ndarray, gradient: np.ndarray, *, signed: bool = False) -> np.ndarray:
    maps = np.stack([oracles.CAMS[method](a, g) for a, g in zip(activation, gradient, strict=True)])
    return maps if signed else np.maximum(maps, 0)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Largest difference, relative to the largest expected value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


class TestTables:
    def test_every_method_has_an_oracle_and_a_hand_case(self):
        assert set(CAMS) == set(oracles.CAMS) == set(HAND)

    def test_only_eigencam_needs_no_gradient(self):
        assert set(CAMS) - NEEDS_GRADIENT == {"eigencam"}

    @pytest.mark.parametrize("method", ALL)
    def test_first_docstring_line_is_formula_and_source(self, method):
        formula, source = inspect.getdoc(CAMS[method]).splitlines()[0].split("   ")
        assert re.fullmatch(r"(α_kij|α_k|cam) = .+\.", formula)
        assert re.search(r" (19|20)\d\d, (eq\. \d+|arXiv:\d{4}\.\d{5}|doi:\S+)\.$|^pytorch-grad-cam, \w+\.$", source)


class TestHand:
    @pytest.mark.parametrize("method", ALL)
    def test_by_hand(self, method):
        activation, gradient, weights, evidence = HAND[method]
        activation = np.array([activation], np.float32)
        gradient = None if gradient is None else np.array([gradient], np.float32)
        got_weights, got_cam = compute_cam(method, activation, gradient)
        np.testing.assert_allclose(got_cam, np.maximum([evidence], 0), rtol=1e-6, atol=1e-6)
        if method in PROJECTIONS:
            assert got_weights is None
        else:
            np.testing.assert_allclose(got_weights, np.array([weights]), rtol=1e-6, atol=1e-7)
            signed = compute_cam(method, activation, gradient, signed=True)[1]
            np.testing.assert_allclose(signed, [evidence], rtol=1e-6, atol=1e-6)

    def test_counterfactual_by_hand(self):
        """Grad-CAM's weights change sign, −1/2 and 1; Grad-CAM++'s come from where −G is positive."""
        activation, gradient = np.array([A], np.float32), np.array([G], np.float32)
        cam = compute_cam("gradcam", activation, gradient, counterfactual=True)[1]
        np.testing.assert_allclose(cam, [[[0.5, 0], [0, 2]]], rtol=1e-6)
        # ΣA = 4: −G = 1 gives 1/6; ΣA = 2: −G = 2, 3 give 2/6 + 3/8
        weights = compute_cam("gradcam++", activation, gradient, counterfactual=True)[0]
        np.testing.assert_allclose(weights.ravel(), [1 / 6, 17 / 24], rtol=1e-6)


class TestOracles:
    @pytest.mark.parametrize("space", SPACES, ids=len)
    @pytest.mark.parametrize("method", WEIGHTED)
    def test_weights_in_float64(self, method, space):
        activation, gradient = sample(method, space)
        weights = WEIGHTS[method](activation, gradient, *needed(method, gradient).values())
        evidence = (weights * activation).sum(axis=1)
        assert evidence.dtype == np.float64
        assert_close(evidence, oracle(method, activation, gradient, signed=True), 1e-13)

    @pytest.mark.parametrize("space", SPACES, ids=len)
    @pytest.mark.parametrize("method", ALL)
    def test_cam_in_float32(self, method, space):
        activation, gradient = sample(method, space, seed=1)
        cam = compute_cam(method, activation, gradient)[1]
        assert cam.dtype == np.float32
        assert_close(cam, oracle(method, activation, gradient), 5e-6)

    @pytest.mark.parametrize("method", WEIGHTED)
    def test_counterfactual(self, method):
        activation, gradient = sample(method, (4, 5), seed=2)
        cam = compute_cam(method, activation, gradient, counterfactual=True)[1]
        expected = oracle(method, activation, -gradient)
        assert expected.max() > 0
        assert_close(cam, expected, 1e-6)

    @pytest.mark.parametrize("method", WEIGHTED)
    def test_counterfactual_of_counterfactual(self, method):
        activation, gradient = sample(method, (4, 5), seed=3)
        cam = compute_cam(method, activation, -gradient, counterfactual=True)[1]
        np.testing.assert_array_equal(cam, compute_cam(method, activation, gradient)[1])

    @pytest.mark.parametrize("method", WEIGHTED)
    def test_signed(self, method):
        activation, gradient = sample(method, (4, 5), seed=4)
        cam = compute_cam(method, activation, gradient, signed=True)[1]
        assert_close(cam, oracle(method, activation, gradient, signed=True), 1e-6)
        np.testing.assert_array_equal(np.maximum(cam, 0), compute_cam(method, activation, gradient)[1])

    @pytest.mark.parametrize("method", ALL)
    def test_on_torch_tensors(self, method):
        torch = pytest.importorskip("torch", reason="torch: not installed")
        activation, gradient = (x.astype(np.float32) for x in sample(method, (4, 5), seed=5))
        weights, cam = compute_cam(method, torch.tensor(activation), torch.tensor(gradient))
        expected_weights, expected_cam = compute_cam(method, activation, gradient)
        assert cam.dtype == torch.float32
        assert_close(cam.numpy(), expected_cam, 5e-6)
        if expected_weights is not None:
            assert_close(weights.numpy(), expected_weights, 1e-6)


class TestPooledLinearHead:
    """score = Σ_k w_k mean(A_k) + b: every gradient method has a closed form."""

    activation = np.maximum(np.random.default_rng(6).normal(size=(2, 8, 3, 4)), 0)
    w, b = np.random.default_rng(7).normal(size=8), 0.75
    gradient = np.broadcast_to(w[:, None, None] / 12, activation.shape)
    score = activation.mean(axis=(2, 3)) @ w + b

    def test_cam_weights_are_the_rows_of_the_linear_layer(self):
        weights = compute_cam("cam", self.activation, self.gradient)[0]
        np.testing.assert_allclose(weights, np.broadcast_to(self.w[:, None, None], (2, 8, 1, 1)), rtol=1e-6)

    @pytest.mark.parametrize(("method", "factor"), [("cam", 12), ("hirescam", 1), ("xgradcam", 1)])
    def test_multiples_of_gradcam(self, method, factor):
        gradcam = compute_cam("gradcam", self.activation, self.gradient)[1]
        assert_close(compute_cam(method, self.activation, self.gradient)[1], factor * gradcam, 1e-6)

    def test_signed_hirescam_sums_to_the_score_less_its_bias(self):
        cam = compute_cam("hirescam", self.activation, self.gradient, signed=True)[1]
        np.testing.assert_allclose(cam.sum(axis=(1, 2)), self.score - self.b, rtol=1e-6)

    def test_xgradcam_conserves_the_score_whatever_the_head(self):
        """Σ_ij of the un-ReLU'd XGradCAM = Σ G·A: the paper's conservation axiom."""
        activation, gradient = sample("xgradcam", (3, 4), seed=8)
        cam = compute_cam("xgradcam", activation, gradient, signed=True)[1]
        np.testing.assert_allclose(cam.sum(axis=(1, 2)), (gradient * activation).sum(axis=(1, 2, 3)), rtol=1e-5)


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

    @pytest.mark.parametrize("method", WEIGHTED)
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
        for counterfactual in (False, True) if method in WEIGHTS else (False,):
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

    @pytest.mark.parametrize("method", WEIGHTED)
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


class TestErrors:
    arrays = sample("gradcam", (4, 5))

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("gradcampp", "'gradcam++'"),
            ("GradCAM", "'gradcam'"),
            ("layer-cam", "'layercam'"),
            ("eigen", "'eigencam'"),
        ],
    )
    def test_unknown_method_names_the_nearest(self, name, near):
        with pytest.raises(MethodError) as caught:
            compute_cam(name, *self.arrays)
        assert caught.value.method == name
        assert repr(name) in str(caught.value)
        assert near in caught.value.hint

    @pytest.mark.parametrize("variant", ["counterfactual", "signed"])
    @pytest.mark.parametrize("method", PROJECTED)
    def test_projections_have_no_variants(self, method, variant):
        with pytest.raises(MethodError, match=f"{method}.* no {variant} variant") as caught:
            check_method(method, **{variant: True})
        assert caught.value.hint == ", ".join(f"'{name}'" for name in WEIGHTS)

    @pytest.mark.parametrize("method", WEIGHTED)
    def test_weighted_methods_have_both_variants(self, method):
        check_method(method, counterfactual=True, signed=True)

    @pytest.mark.parametrize("method", sorted(NEEDS_GRADIENT))
    def test_missing_gradient(self, method):
        with pytest.raises(MethodError, match=re.escape(f"{method!r} needs the gradient")):
            compute_cam(method, self.arrays[0], None)

    def test_no_spatial_axis(self):
        with pytest.raises(LayerError, match=r"shape \(2, 1000\)") as caught:
            compute_cam("gradcam", np.ones((2, 1000)), np.ones((2, 1000)))
        assert caught.value.shape == (2, 1000)

    def test_cam_refuses_a_gradient_that_varies_over_space(self):
        with pytest.raises(MethodError, match="global average pooling") as caught:
            compute_cam("cam", *self.arrays)
        assert "'gradcam'" in caught.value.hint

    def test_cam_judges_each_image_by_its_own_gradient(self):
        """A varying gradient is not hidden by another image's larger one."""
        gradient = np.ones((2, 1, 1, 2)) * [[[[1e6]]], [[[1]]]]
        compute_cam("cam", gradient, gradient)
        gradient[1, 0, 0, 0] = 1.01
        with pytest.raises(MethodError, match="varies over space"):
            compute_cam("cam", gradient, gradient)

    def test_cam_forgives_rounding(self):
        gradient = np.full((1, 2, 1, 2), 0.3) * [1, 1 + 1e-5]
        weights = compute_cam("cam", np.ones_like(gradient), gradient)[0]
        np.testing.assert_allclose(weights, np.full((1, 2, 1, 1), 0.6), rtol=1e-5)
