"""The requirements of a comparison: clauses such as ``pearson:p05>=0.9``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from onnx_gradcam.errors import RequirementError

GRAMMAR = (
    "METRIC:STATISTIC>=NUMBER (or <=) with METRIC pearson, iou or distance and STATISTIC median, worst or a percentile "
    "p00 to p99; or agreement>=NUMBER"
)
CLAUSE = re.compile(r"(?:(agreement)|(pearson|iou|distance):(median|worst|p\d\d))\s*(>=|<=)\s*(\S+)")


@dataclass(frozen=True)
class Requirement:
    """A condition on a statistic of a metric.

    Attributes:
        text: the clause as it was written.
        metric: "agreement", "pearson", "iou" or "distance".
        statistic: "median", "worst", or a percentile as "p05"; "" for the agreement.
        relation: ">=" or "<=".
        limit: the number on the right.
    """

    text: str
    metric: str
    statistic: str
    relation: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read a clause.

        Raises:
            RequirementError: it has another form.
        """
        parts = CLAUSE.fullmatch(text.strip())
        limit = _number(parts[5]) if parts else None
        if parts is None or limit is None:
            raise RequirementError(f"{text!r} is no requirement", hint=GRAMMAR, clause=text)
        return cls(text, parts[1] or parts[2], parts[3] or "", parts[4], limit)

    def judge(self, measure: Callable[[str, str], float | None]) -> Finding:
        """Return whether ``measure(metric, statistic)`` meets the requirement; None, nothing measured, does not."""
        value = measure(self.metric, self.statistic)
        ok = value is not None and (value >= self.limit if self.relation == ">=" else value <= self.limit)
        return Finding(self.text, value, ok)


@dataclass(frozen=True)
class Finding:
    """A requirement that was judged.

    Attributes:
        clause: the requirement as it was written.
        value: what was measured; None where there was nothing to measure.
        ok: whether the requirement is met.
    """

    clause: str
    value: float | None
    ok: bool


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
