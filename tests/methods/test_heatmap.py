from __future__ import annotations

import cv2
import numpy as np
import oracles
import pytest

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.heatmap import FUSIONS, fuse, is_blank, normalise, upsample


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


class TestUpsample:
    def test_by_hand(self):
        """2 → 4: samples at −¼ (edge), ¼, ¾, 1¼ (edge)."""
        np.testing.assert_array_equal(upsample(np.array([[0.0, 4.0]]), (4,)), [[0, 1, 3, 4]])
        np.testing.assert_array_equal(
            upsample(np.array([[[0.0, 4.0], [8.0, 12.0]]]), (2, 4)), [[[0, 1, 3, 4], [8, 9, 11, 12]]]
        )

    @pytest.mark.parametrize(
        ("space", "size"),
        [
            ((5,), (12,)),
            ((3, 4), (7, 5)),
            ((7, 7), (16, 20)),
            ((2, 3, 4), (5, 3, 9)),
            ((6, 5), (4, 3)),
            ((1, 1), (3, 2)),
        ],
        ids=str,
    )
    def test_against_the_corners(self, space, size):
        cam = random(2, *space)
        heatmap = upsample(cam, size)
        assert heatmap.dtype == np.float32
        np.testing.assert_allclose(heatmap, [oracles.upsample(c, size) for c in cam], atol=1e-6)

    @pytest.mark.parametrize("size", [(224, 224), (97, 213), (7, 7), (5, 300)], ids=str)
    def test_against_cv2(self, size):
        cam = random(2, 7, 7)
        expected = [cv2.resize(c, size[::-1], interpolation=cv2.INTER_LINEAR) for c in cam]
        np.testing.assert_allclose(upsample(cam, size), expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("mode", "space", "size"),
        [("linear", (9,), (50,)), ("bilinear", (7, 5), (224, 64)), ("trilinear", (3, 4, 5), (10, 9, 17))],
        ids=str,
    )
    def test_against_torch(self, mode, space, size):
        torch = pytest.importorskip("torch", reason="torch: not installed")
        cam = random(2, *space)
        expected = torch.nn.functional.interpolate(torch.tensor(cam)[None], size, mode=mode, align_corners=False)
        np.testing.assert_allclose(upsample(cam, size), expected[0].numpy(), atol=1e-6)

    def test_the_same_size_is_the_same_map(self):
        cam = random(2, 6, 5)
        np.testing.assert_array_equal(upsample(cam, (6, 5)), cam)

    def test_a_peak_lands_on_its_cell(self):
        """Cell (r, c) of 7 × 7 covers pixels 32r … 32r + 31 of 224: the peak lies at its middle."""
        for r, c in [(0, 0), (3, 5), (6, 2)]:
            cam = np.zeros((1, 7, 7))
            cam[0, r, c] = 1
            rows, columns = np.nonzero(upsample(cam, (224, 224))[0] > 0.95)
            assert {*rows} <= {*range(32 * r, 32 * r + 32)}
            assert {*columns} <= {*range(32 * c, 32 * c + 32)}

    def test_float16_and_float64_become_float32(self):
        cam = random(1, 3, 3)
        for dtype in (np.float16, np.float64):
            heatmap = upsample(cam.astype(dtype), (6, 6))
            assert heatmap.dtype == np.float32
            np.testing.assert_array_equal(heatmap, upsample(cam.astype(dtype).astype(np.float32), (6, 6)))

    def test_nan_does_not_become_zero(self):
        cam = random(2, 3, 3)
        cam[1, 1, 1] = np.nan
        heatmap = upsample(cam, (9, 9))
        assert np.isnan(heatmap[1, 4, 4])
        assert not np.isnan(heatmap[0]).any()

    def test_input_is_not_changed(self):
        cam = random(2, 3, 3)
        cam.flags.writeable = False
        before = cam.copy()
        upsample(cam, (9, 9))
        np.testing.assert_array_equal(cam, before)


class TestNormalise:
    def test_each_map_by_its_own_maximum(self):
        cam = np.array([[[1.0, 2.0], [0.0, 4.0]], [[0.1, 0.0], [0.0, 0.05]]])
        heatmap = normalise(cam)
        assert heatmap.dtype == np.float32
        np.testing.assert_allclose(heatmap, [[[0.25, 0.5], [0, 1]], [[1, 0], [0, 0.5]]], rtol=1e-6)

    def test_blank_stays_zero(self):
        np.testing.assert_array_equal(normalise(np.zeros((2, 3, 3))), np.zeros((2, 3, 3)))

    def test_signed_by_the_largest_magnitude(self):
        cam = np.array([[-8.0, 2.0], [3.0, -1.5], [-2.0, -1.0]])
        np.testing.assert_array_equal(normalise(cam), np.float32([[-1, 0.25], [1, -0.5], [-1, -0.5]]))

    def test_a_number_is_shared_by_all_and_clips(self):
        cam = np.array([[1.0, 3.0], [6.0, -6.0]])
        np.testing.assert_array_equal(normalise(cam, scale=4), np.float32([[0.25, 0.75], [1, -1]]))

    @pytest.mark.parametrize("scale", ["image", 2.0])
    def test_nan_does_not_become_zero(self, scale):
        heatmap = normalise(np.array([[np.nan, 1.0], [1.0, 2.0]]), scale)
        assert np.isnan(heatmap[0, 0])
        assert heatmap[1, 0] == 0.5

    def test_a_nan_spoils_the_whole_map_rather_than_its_scale(self):
        assert np.isnan(normalise(np.array([[np.nan, 7.0]]))).all()

    @pytest.mark.parametrize("scale", ["shard", 0, -1.0, float("nan"), float("inf")])
    def test_no_such_scale(self, scale):
        with pytest.raises(MethodError, match="unknown scale") as caught:
            normalise(np.ones((1, 2)), scale)
        assert repr(scale) in str(caught.value)

    @pytest.mark.parametrize("scale", ["image", 2.0])
    def test_input_is_not_changed(self, scale):
        cam = np.float32([[1, 4], [0, 0]])
        normalise(cam, scale)
        np.testing.assert_array_equal(cam, [[1, 4], [0, 0]])


class TestIsBlank:
    def test_rows(self):
        cam = np.array([[0, 0], [0, 1e-30], [-1, 0], [-1, 2], [np.nan, 0], [0, np.inf]])
        blank = is_blank(cam)
        assert blank.dtype == bool
        np.testing.assert_array_equal(blank, [True, False, False, False, False, False])

    def test_any_number_of_axes(self):
        cam = np.zeros((2, 2, 3, 4))
        cam[1, 1, 2, 3] = 0.1
        np.testing.assert_array_equal(is_blank(cam), [True, False])


class TestFuse:
    def test_by_hand(self):
        """Divided by their maxima: [0, ½, 1, ¼], and one cell that is 1 everywhere."""
        cams = [np.array([[0.0, 2.0, 4.0, 1.0]]), np.array([[9.0]])]
        np.testing.assert_array_equal(fuse(cams, (4,), "mean"), [[0.5, 0.75, 1, 0.625]])
        np.testing.assert_array_equal(fuse(cams, (4,), "max"), [[1, 1, 1, 1]])
        np.testing.assert_array_equal(fuse(cams, (4,), "product"), [[0, 0.5, 1, 0.25]])
        np.testing.assert_array_equal(fuse(cams, (4,)), fuse(cams, (4,), "mean"))

    @pytest.mark.parametrize("how", sorted(FUSIONS))
    def test_against_the_oracle(self, how):
        cams = [random(2, 3, 4, seed=1), 100 * random(2, 7, 5, seed=2), 1e-3 * random(2, 2, 2, seed=3)]
        fused = fuse(cams, (9, 8), how)
        assert fused.dtype == np.float32
        expected = [oracles.fuse([cam[i] for cam in cams], (9, 8), how) for i in range(2)]
        np.testing.assert_allclose(fused, expected, atol=1e-6)

    @pytest.mark.parametrize("how", sorted(FUSIONS))
    def test_one_layer_is_its_heatmap(self, how):
        cam = random(2, 3, 4)
        np.testing.assert_array_equal(fuse([cam], (9, 8), how), normalise(upsample(cam, (9, 8))))

    def test_a_blank_layer(self):
        cams = [random(1, 3, 3), np.zeros((1, 3, 3))]
        heatmap = normalise(upsample(cams[0], (6, 6)))
        np.testing.assert_allclose(fuse(cams, (6, 6), "mean"), heatmap / 2, rtol=1e-6)
        np.testing.assert_array_equal(fuse(cams, (6, 6), "max"), heatmap)
        assert is_blank(fuse(cams, (6, 6), "product")).all()

    @pytest.mark.parametrize("how", sorted(FUSIONS))
    def test_nan_does_not_become_zero(self, how):
        assert np.isnan(fuse([np.array([[np.nan]]), np.array([[1.0]])], (2,), how)).all()

    def test_signed(self):
        cams = [np.array([[-2.0, 1.0]]), np.array([[-1.0, -4.0]])]
        np.testing.assert_array_equal(fuse(cams, (2,), "mean"), [[-0.625, -0.25]])
        np.testing.assert_array_equal(fuse(cams, (2,), "max"), [[-0.25, 0.5]])
        with pytest.raises(MethodError, match="signed maps cannot be fused by product"):
            fuse(cams, (2,), "product")

    def test_unknown(self):
        with pytest.raises(MethodError, match="unknown fusion 'means'") as caught:
            fuse([random(1, 2, 2)], (4, 4), "means")
        assert "'mean'" in caught.value.hint
        assert caught.value.how == "means"
