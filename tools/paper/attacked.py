"""Scenes that were attacked until the classifier takes another class, as files that ``evaluate`` takes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import onnx_gradcam as ogc

EPSILONS = (1, 2, 4, 8, 12, 16, 24, 32)  # grey levels of 255
FLIPPED = 0.9


@dataclass(frozen=True)
class Attacked:
    """What an attack came to.

    Attributes:
        table: the attacked scenes, as ``write_scenes`` writes them.
        epsilon: the largest change of a pixel, in grey levels: the smallest of ``EPSILONS`` that flips enough, or the
            last.
        flipped: the share of the predictions that were right before and are wrong now.
    """

    table: Path
    epsilon: int
    flipped: float


def attack_scenes(table: Path, model: Path) -> Attacked:
    """Attack the scenes of a table by the fast gradient sign method, and write them as arrays beside it.

    Args:
        table: what ``write_scenes`` wrote, with one object for each scene.
        model: the classifier.
    """
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    photos, labels = [table.parent / row["path"] for row in rows], [row["label"] for row in rows]
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        for epsilon in EPSILONS:
            result = ogc.attack(explainer, photos, true=labels, method="fgsm", epsilon=epsilon)
            flipped = result.success_rate or 0.0
            if flipped >= FLIPPED:
                break
    out = table.with_name("attacked.csv")
    with out.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0].keys())
        writer.writeheader()
        for k, (row, x) in enumerate(zip(rows, result.adversarial, strict=True)):
            np.save(table.parent / f"{k}.npy", x)
            writer.writerow({**row, "path": f"{k}.npy"})
    return Attacked(out, epsilon, flipped)
