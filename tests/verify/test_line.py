"""The score along a line: kinks without number do not hide a right gradient, nor a wrong one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from onnx_gradcam.verify import network
from onnx_gradcam.verify.float64 import NoReference
from onnx_gradcam.verify.line import along_line
from onnx_gradcam.verify.network import GRADIENT_LIMIT, check_gradient
from onnx_gradcam.verify.probe import Probe

KINKS, SIZE = 400, 40


@dataclass(frozen=True)
class Kinks(Probe):
    """s(x) = Σₖ |⟨aₖ, x⟩ − cₖ| + ⟨b, x⟩, and ``factor`` times its gradient; ``noise``: of the score."""

    factor: float = 1.0
    noise: float = 0.0

    @classmethod
    def made(cls, factor: float = 1.0, noise: float = 0.0) -> Kinks:
        rng = np.random.default_rng(0)
        x = rng.standard_normal(SIZE).astype(np.float32)
        a = rng.standard_normal((KINKS, SIZE))
        feeds = {"a": a, "c": rng.standard_normal(KINKS) * 5, "b": rng.standard_normal(SIZE) * 300}
        return cls("x", x, None, None, ("", ""), feeds, "", None, None, None, factor, noise)  # type: ignore[arg-type]

    def gradient_at(self, delta: np.ndarray) -> np.ndarray:
        sides = np.sign(self.feeds["a"] @ self.place(delta) - self.feeds["c"])
        return np.asarray(self.factor * (sides @ self.feeds["a"] + self.feeds["b"]))

    def score_at(self, delta: np.ndarray) -> float:
        x = self.place(delta)
        score = float(np.abs(self.feeds["a"] @ x - self.feeds["c"]).sum() + self.feeds["b"] @ x)
        return score + self.noise * float(np.random.default_rng(x.view(np.uint64)[0]).standard_normal())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("factor", [1.0, 1.01, 0.9, -1.0])
def test_the_error_of_a_gradient_is_measured_over_kinks(factor: float, seed: int) -> None:
    found = along_line(Kinks.made(factor), 0.3, np.random.default_rng(seed))
    assert found.error == pytest.approx(abs(1 - factor) / max(1, abs(factor)), abs=1e-3)
    assert found.plateau is None


@pytest.mark.parametrize(("factor", "status"), [(1.0, "pass"), (1.01, "fail")])
def test_the_line_decides_where_no_step_is_free_of_kinks(
    factor: float, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding hides the steps that would be short enough, and nothing is known of the network in float64."""

    def unknown(*_: object, **__: object) -> float:
        raise NoReference("its operators are known to the runtime alone")

    monkeypatch.setattr(network, "slope_along", unknown)
    found = check_gradient(Kinks.made(factor, noise=0.3), np.random.default_rng(0))
    assert found.status == status
    assert any(scan.road == "line" for scan in found.scans)
    assert (found.error is not None and found.error <= GRADIENT_LIMIT) == (status == "pass")


def test_a_change_that_rounding_hides_settles_nothing() -> None:
    found = along_line(Kinks.made(noise=1e4), 0.3, np.random.default_rng(0))
    assert found.error is None


def test_slopes_that_alternate_at_random_settle_nothing() -> None:
    """Folded out of | |x| − 2⁻ᵏ |: a triangle wave of period 2⁻¹⁶, whose slope at midpoints is a coin's."""

    @dataclass(frozen=True)
    class Wave(Kinks):
        def gradient_at(self, delta: np.ndarray) -> np.ndarray:
            return np.asarray(np.where(np.mod(self.place(delta) * 2**16, 1) < 0.5, 1.0, -1.0))

        def score_at(self, delta: np.ndarray) -> float:
            return float(np.abs(np.mod(self.place(delta) * 2**16, 1) - 0.5).sum() * -(2.0**-16))

    assert along_line(Wave.made(), 0.3, np.random.default_rng(0)).error is None
