"""The tables of cases that the tests of the rules are parametrized over."""

from __future__ import annotations

import importlib.util

from repository import ROOT
from rule_cases import Case


def tables() -> list[Case]:
    """Return the rows of all test tables in tests/autodiff/rules."""
    rows: list[Case] = []
    for path in sorted((ROOT / "tests" / "autodiff" / "rules").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"table_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rows += getattr(module, "CASES", [])
    return rows
