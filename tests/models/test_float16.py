"""Models in float16: explained like their float32 twins, the gradient scaled on its way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import shapes
from deployed import in_float16
from measures import pearson
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.engine.scaling import FIRST, LARGEST, REPEATS, run_scaled
from onnx_gradcam.graph.names import SCALE_INPUT
from onnx_gradcam.roads.engines import gradient_model

DEMO = [MODELS / f"shapes-{name}.onnx" for name in ("biased", "debiased", "inception", "resnet", "vgg")]
INCEPTION = MODELS / "shapes-inception.onnx"
PEARSON = 0.995


@pytest.mark.slow
@pytest.mark.parametrize("keep_io_types", [False, True], ids=["float16 ends", "float32 ends"])
@pytest.mark.parametrize("path", DEMO, ids=lambda p: p.stem)
def test_maps_are_those_of_the_float32_twin(path: Path, keep_io_types: bool) -> None:
    rng = np.random.default_rng(0)
    photos = [shapes.single_object(rng).image for _ in range(12)]
    with ogc.Explainer(in_float16(path, keep_io_types)) as half, ogc.Explainer(path) as single:
        found = []
        for photo in photos:
            mine = half.explain_image(photo)
            twin = single.explain_image(photo, target=int(mine.class_index[0]))
            assert mine.provenance.gradient_scale == FIRST
            assert twin.provenance.gradient_scale is None
            assert mine.gradient is not None
            assert mine.gradient.dtype == np.float32
            found.append(pearson(mine.heatmap, twin.heatmap))
    assert np.median(found) >= PEARSON


def test_only_16_bit_models_have_the_extra_input() -> None:
    (layer,) = ogc.Explainer(INCEPTION).target_layers
    half, single = in_float16(INCEPTION, False), onnx.load(INCEPTION)
    assert SCALE_INPUT in [v.name for v in gradient_model(half, [layer]).graph.input]
    assert SCALE_INPUT not in [v.name for v in gradient_model(single, [layer]).graph.input]


def test_several_classes_go_through_the_scaled_backward_half() -> None:
    photo = shapes.single_object(np.random.default_rng(1)).image
    with ogc.Explainer(in_float16(INCEPTION, False)) as half, ogc.Explainer(INCEPTION) as single:
        mine, twin = (e.explain_image(photo, target=ogc.Classes([0, 3, 5])) for e in (half, single))
    assert mine.gradient is not None
    assert twin.gradient is not None
    for a, b in zip(mine.gradient, twin.gradient, strict=True):
        assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)


@pytest.mark.slow
def test_verify_passes_with_casts_to_float16_at_the_ends() -> None:
    report = ogc.verify(in_float16(INCEPTION, True))
    assert report.ok, str(report)
    assert any("16 bits against float32" in check.name for check in report.checks)


class Device:
    """A 16-bit gradient: ``value`` times the scale, rounded; the scales that it was run with."""

    def __init__(self, value: float | np.ndarray) -> None:
        self.value = value
        self.scales: list[float] = []

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.scales.append(float(feeds[SCALE_INPUT]))
        with np.errstate(over="ignore"):
            return {"g": np.atleast_1d(self.value * np.float64(self.scales[-1])).astype(np.float16)}


@pytest.mark.parametrize(
    ("value", "scales"),
    [
        (1e-3, [FIRST]),
        (1e-11, [FIRST, LARGEST]),  # below half of the smallest float16, 2^-24, at the first
        (1e4, [FIRST, 4]),
        (1e6, [FIRST, 4, 2.0**-6]),
        (0.0, [FIRST, LARGEST]),
    ],
)
def test_the_scale_is_changed_until_the_gradient_is_a_number(value: float, scales: Sequence[float]) -> None:
    device = Device(value)
    results, scale = run_scaled(device, SCALE_INPUT, ["g"], {})
    assert device.scales == scales
    assert scale == scales[-1]
    assert results["g"].dtype == np.float32
    if value:
        step = 2.0**-24 / scale  # the least that float16 holds, unscaled
        assert abs(results["g"][0] - value) <= 1e-3 * value + step


def test_a_row_that_stays_infinite_leaves_the_others_their_scale() -> None:
    device = Device(np.array([np.inf, 1e-3]))
    results, scale = run_scaled(device, SCALE_INPUT, ["g"], {})
    assert device.scales == [FIRST / 256**k for k in range(1 + REPEATS)]
    assert scale == FIRST
    np.testing.assert_allclose(results["g"], [np.inf, 1e-3], rtol=1e-3)
