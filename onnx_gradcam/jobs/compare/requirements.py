"""What a comparison must show: clauses such as ``pearson:p05>=0.9``."""

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
    """``statistic`` of ``metric`` must be ``relation`` (">=" or "<=") ``limit``; ``text``: as it was written."""

    text: str
    metric: str
    statistic: str
    relation: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read a clause. Raises ``RequirementError``, naming the grammar."""
        found = CLAUSE.fullmatch(text.strip())
        limit = _number(found[5]) if found else None
        if found is None or limit is None:
            raise RequirementError(f"{text!r} is no requirement", hint=GRAMMAR, clause=text)
        return cls(text, found[1] or found[2], found[3] or "", found[4], limit)

    def judge(self, measure: Callable[[str, str], float | None]) -> Finding:
        """Hold it against ``measure(metric, statistic)``; None, nothing could be measured, does not satisfy it."""
        value = measure(self.metric, self.statistic)
        ok = value is not None and (value >= self.limit if self.relation == ">=" else value <= self.limit)
        return Finding(self.text, value, ok)


@dataclass(frozen=True)
class Finding:
    """A requirement that was judged: its ``clause``, the measured ``value`` (None: nothing to measure)."""

    clause: str
    value: float | None
    ok: bool

    def __str__(self) -> str:
        measured = "nothing could be measured" if self.value is None else f"measured {self.value:.4g}"
        return f"{self.clause}: {'met' if self.ok else 'NOT met'}, {measured}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
