"""Measures how often the demo models change their mind under attack, and writes docs/attacks.md.

python tools/attack_rates.py [--scenes 100]
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measured import digest, kept, with_interval, write_section
from shapes import single_object

import onnx_gradcam as ogc
from onnx_gradcam.jobs.attack.attack import ATTACKS
from onnx_gradcam.metrics.interval import Mean, bootstrap

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "attacks.md"
MODELS = [ROOT / "models" / f"shapes-{name}.onnx" for name in ("resnet", "vgg", "inception")]
EPSILONS = (1, 2, 4, 8)
SCENES, SEED = 100, 41


def rates(model: Path, count: int) -> dict[str, Any]:
    """Return the share of the scenes that were right before and are wrong after, by attack and ε."""
    rng = np.random.default_rng(SEED)
    scenes = [single_object(rng) for _ in range(count)]
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        spec = explainer.preprocessing().preprocess
        images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
        mean, std = (np.reshape(values, (3, 1, 1)) for values in (spec.mean, spec.std))
        x, true = ((images * spec.scale - mean) / std).astype(np.float32), [scene.labels[0] for scene in scenes]
        shares = {}
        for method in ATTACKS:
            for epsilon in EPSILONS:
                attacked = ogc.attack(explainer, x, true=true, method=method, epsilon=epsilon)
                changed = attacked.success[attacked.right].astype(float).tolist()
                shares[f"{method} {epsilon}"] = asdict(bootstrap(changed))
    return shares


def table(of_models: dict[str, dict[str, Any]]) -> str:
    rows = [
        f"| attack | {' | '.join(f'ε = {epsilon}' for epsilon in EPSILONS)} |",
        "| --- |" + " --- |" * len(EPSILONS),
    ]
    for name, figures in of_models.items():
        for method in ATTACKS:
            cells = [with_interval(Mean(**figures[f"{method} {epsilon}"])) for epsilon in EPSILONS]
            rows.append(f"| {name}, {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES)
    count = parser.parse_args().scenes
    program = digest(Path(__file__), Path(__file__).with_name("shapes.py"))
    of_models = {
        path.stem: kept(
            {"page": "attacks", "model": digest(path), "program": program, "scenes": count},
            partial(rates, path, count),
        )
        for path in MODELS
    }
    write_section(PAGE, "attack-rates", table(of_models))
    print(table(of_models))


if __name__ == "__main__":
    main()
