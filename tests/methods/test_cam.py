"""Every CAM method by hand, against its naive oracle, and on networks where it is known."""

from __future__ import annotations

import inspect
import re

import numpy as np
import oracles
import pytest
from cam_cases import ALL, PROJECTED, SCORED, SPACES, WEIGHTED, assert_close, compute_cam, needed, oracle, sample

from onnx_gradcam.errors import LayerError, MethodError
from onnx_gradcam.methods.cam import CAMS, NEEDS, NEEDS_GRADIENT, PROJECTIONS, WEIGHTS, check_method

# The two channels that most hand cases share.
A = [[[1, 2], [3, -2]], [[1, 1], [-1, 1]]]
G = [[[1, 0], [-1, 2]], [[-2, 1], [-3, 0]]]
DRAWN = (0.27392337, -0.46042657)  # the first numbers of PCG64 with seed 0, from −1 to 1
KPCA = np.sqrt((2 * np.tanh(2) + 4 * np.tanh(1) + 2 * np.tanh(5)) / 3 / 6) * np.array([-1, -1, 2])
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
    # |G|·A = −2 at one position: less its mean (½, ½, ½, −3/2), turned so that the peak is positive
    "segeigencam": ([[[0, 0], [0, -1]]], [[[1, 1], [1, 2]]], None, [[-0.5, -0.5], [-0.5, 1.5]]),
    # A = (−1, −1, 2), γ = 1: K is tanh 2, tanh −1 and tanh 5; its axis is (1, 1, −2)/√6, λ = (2t₂ + 4t₁ + 2t₅)/3
    "kpcacam": ([[0, 0, 3]], None, None, KPCA),
    # mean 1, std 3: only the last position is above 7; a channel that is constant has none
    "fem": ([[*[0] * 9, 10], [5] * 10], None, [[0.1], [0]], [*[0] * 9, 1]),
    "activationmap": (A, None, [[[1 / 2]], [[1 / 2]]], [[1, 3 / 2], [1, -1 / 2]]),
    "randomcam": (A, None, [[[DRAWN[0]]], [[DRAWN[1]]]], DRAWN[0] * np.array(A[0]) + DRAWN[1] * np.array(A[1])),
}


class TestTables:
    def test_every_method_has_an_oracle_and_a_hand_case(self):
        assert set(CAMS) == set(oracles.CAMS) == set(HAND)

    def test_methods_of_the_activation_need_no_gradient(self):
        assert set(CAMS) - NEEDS_GRADIENT == {"eigencam", "kpcacam", "fem", "activationmap", "randomcam"}

    @pytest.mark.parametrize("method", ALL)
    def test_first_docstring_line_is_formula_and_source(self, method):
        formula, source = inspect.getdoc(CAMS[method]).splitlines()[0].split("   ")
        assert re.fullmatch(r"(α_kij|α_k|cam) = .+\.", formula)
        assert re.search(
            r" (19|20)\d\d, (eq\. \d+|arXiv:\d{4}\.\d{5}|doi:\S+)\.$|^(pytorch-grad-cam|openvino_xai), \w+\.$", source
        )


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
        arrays = {"activation": activation, "gradient": gradient, **needed(method, gradient)}
        weights = WEIGHTS[method](*(arrays[name] for name in NEEDS[method]))
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

    @pytest.mark.parametrize("method", SCORED)
    def test_counterfactual(self, method):
        activation, gradient = sample(method, (4, 5), seed=2)
        cam = compute_cam(method, activation, gradient, counterfactual=True)[1]
        expected = oracle(method, activation, -gradient)
        assert expected.max() > 0
        assert_close(cam, expected, 1e-6)

    @pytest.mark.parametrize("method", SCORED)
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
        with_variant = SCORED if variant == "counterfactual" else WEIGHTS
        assert sorted(caught.value.hint.split(", ")) == sorted(f"'{name}'" for name in with_variant)

    @pytest.mark.parametrize("method", SCORED)
    def test_weighted_methods_have_both_variants(self, method):
        check_method(method, counterfactual=True, signed=True)

    @pytest.mark.parametrize("method", sorted({*WEIGHTED} - {*SCORED}))
    def test_methods_that_read_no_score_have_no_counterfactual(self, method):
        check_method(method, signed=True)
        with pytest.raises(MethodError, match=f"'{method}' has no counterfactual variant: the score plays no part"):
            check_method(method, counterfactual=True)

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
