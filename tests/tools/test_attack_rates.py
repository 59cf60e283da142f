"""How often a demo model changes its mind, on few scenes: as docs/attacks.md has it."""

from __future__ import annotations

from pathlib import Path

import attack_rates
import numpy as np
import pytest
from shapes import single_object

import onnx_gradcam as ogc


@pytest.mark.slow
def test_the_rates_of_the_page(models: Path) -> None:
    rng = np.random.default_rng(attack_rates.SEED)
    scenes = [single_object(rng) for _ in range(16)]
    x = ((np.stack([s.image for s in scenes]).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).astype(np.float32)
    true = [scene.labels[0] for scene in scenes]
    with ogc.Explainer(models / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        rates = {
            (method, epsilon): ogc.attack(explainer, x, true=true, method=method, epsilon=epsilon).success_rate or 0.0
            for method, epsilon in (("fgsm", 0.25), ("fgsm", 8), ("pgd", 8))
        }
        assert (ogc.attack(explainer, x, true=true, epsilon=8).before == true).mean() >= 0.9
    assert rates["fgsm", 0.25] <= 0.05
    assert 0.2 <= rates["fgsm", 8] <= 0.65  # 0.42 on 100 scenes
    assert rates["pgd", 8] >= 0.8  # 0.95 on 100 scenes


def test_the_page_names_what_it_measured() -> None:
    text = attack_rates.PAGE.read_text("utf-8")
    assert all(f"| {path.stem}, {method} |" in text for path in attack_rates.MODELS for method in ("fgsm", "pgd"))
    assert pytest.approx(0.95, abs=0.1) == float(text.split("| shapes-resnet, pgd |")[1].split("|")[3].split()[0])
