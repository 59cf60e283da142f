"""Which cases of a test `make test` runs, where all of them are for `make check`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick_first(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """Return the cases of a test; all after the first ``quick`` are marked slow."""
    listed = list(cases)
    return [*listed[:quick], *(pytest.param(*_arguments(case), marks=pytest.mark.slow) for case in listed[quick:])]


def _arguments(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
