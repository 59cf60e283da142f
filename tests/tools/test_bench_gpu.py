"""Where there is no GPU the bench says so and does nothing."""

from __future__ import annotations

import sys

import bench_gpu
import pytest
from bench_gpu import report, unusable


def test_a_card_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_gpu, "unusable", lambda provider: f"no {provider}")
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--device", "1"])
    assert bench_gpu.main() == 2
    assert capsys.readouterr().err == "not run: no cuda:1\n"


def test_what_can_be_had_is_found_by_starting_it() -> None:
    assert unusable("cpu") == ""
    assert "'cpu' has no devices" in unusable("cpu:1")


def test_rates_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    report("net", {"8": {"plain inference": 0.004, "Grad-CAM": 0.005}})
    plain, gradcam = capsys.readouterr().out.splitlines()[-2:]
    assert plain.split() == ["plain", "inference", "4.00", "ms", "2000.0", "images/s", "1.000", "x"]
    assert gradcam.split() == ["Grad-CAM", "5.00", "ms", "1600.0", "images/s", "1.250", "x"]
