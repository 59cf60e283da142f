"""What an attack came to, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.photos.labels import label_of

Array = npt.NDArray[Any]
GREY_LEVELS, OWN_NUMBERS = "grey levels", "input"


@dataclass(frozen=True, eq=False, repr=False)
class AttackResult:
    """N images before and after an attack.

    Attributes:
        method: "fgsm" or "pgd".
        norm: "linf" or "l2".
        epsilon: the largest norm of a change that was allowed, in ``unit``.
        steps: how many steps were taken.
        step_size: how far each of them went, in ``unit``.
        loss: what was raised: "cross-entropy" or "margin".
        seed: what the random start was drawn from.
        unit: what changes are measured in: "grey levels" of 0 to 255, or "input" for the numbers of the input.
        x: (N, …), the images as the model takes them.
        adversarial: (N, …), the same after the attack.
        change: (N, …) float64, by how much they were changed, in ``unit``.
        used: (N,) float64, the norm of each change, in ``unit``.
        true: (N,) int64, the class that each image is of: as the user has it, or else what the model put first before.
        target: (N,) int64, the class that was aimed at; −1: any other than the true one.
        before, after: (N,) int64, the class that the model puts first.
        probabilities_before, probabilities_after: (N, K) float32.
        flat: (N,) bool, whether the loss has the gradient 0 everywhere at the image: it tells no direction.
        labels: class names by index, where known.
        model: the name of the model.
        sha256: of the model file.
        versions: as in ``Provenance``.
        pixels: (N, H, W, 3) uint8 before and after, as pictures of what the model saw; None where it takes no pictures.
        warnings: what the user should know, one sentence each.
    """

    method: str
    norm: str
    epsilon: float
    steps: int
    step_size: float
    loss: str
    seed: int
    unit: str
    x: Array
    adversarial: Array
    change: Array
    used: Array
    true: Array
    target: Array
    before: Array
    after: Array
    probabilities_before: Array
    probabilities_after: Array
    flat: Array
    labels: tuple[str, ...] | None
    model: str
    sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    pixels: tuple[Array, Array] | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"<AttackResult: {self}>"

    def __str__(self) -> str:
        """Return in one line how many of the images whose class was right before were changed to another."""
        unit = "" if self.unit == OWN_NUMBERS else f" {self.unit}"
        aim = "reached the target" if (self.target >= 0).any() else "lost their class"
        return (
            f"{self.method}, {self.norm} ≤ {self.epsilon:g}{unit}: {int((self.success & self.right).sum())} of "
            f"{int(self.right.sum())} images that were right {aim}"
        )

    @property
    def success(self) -> Array:
        """Return (N,) bool: the model puts the target first, or without a target another class than the true one."""
        reached, lost = self.after == self.target, self.after != self.true
        return np.asarray(np.where(self.target >= 0, reached, lost))

    @property
    def right(self) -> Array:
        """Return (N,) bool: the model put the true class first before the attack."""
        return np.asarray(self.before == self.true)

    @property
    def success_rate(self) -> float | None:
        """Return the share of successes among the images that were right before; None where none was."""
        return float(self.success[self.right].mean()) if self.right.any() else None

    def label(self, index: int) -> str:
        """Return the label of a class, or its index where labels are not known; "" for −1, no class."""
        return "" if index < 0 else label_of(index, self.labels)

    def as_dict(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "versions": dict(self.versions),
            "method": self.method,
            "norm": self.norm,
            "epsilon": self.epsilon,
            "steps": self.steps,
            "step_size": self.step_size,
            "loss": self.loss,
            "seed": self.seed,
            "unit": self.unit,
            "success_rate": self.success_rate,
            "rows": [self._row(k) for k in range(len(self))],
            "warnings": list(self.warnings),
        }

    def _row(self, k: int) -> dict[str, Any]:
        true, target = int(self.true[k]), int(self.target[k])
        return {
            "true": self._class(true),
            "target": None if target < 0 else self._class(target),
            "before": self._class(int(self.before[k])),
            "after": self._class(int(self.after[k])),
            "probability_before": float(self.probabilities_before[k, self.before[k]]),
            "probability_after": float(self.probabilities_after[k, self.after[k]]),
            "probability_of_true_before": float(self.probabilities_before[k, true]),
            "probability_of_true_after": float(self.probabilities_after[k, true]),
            "right_before": bool(self.right[k]),
            "success": bool(self.success[k]),
            "used": float(self.used[k]),
            "flat": bool(self.flat[k]),
        }

    def _class(self, index: int) -> dict[str, Any]:
        return {"class_index": index, "label": self.label(index)}
