"""Which operators the tests of the rules and lowerings hold against what, read from their tables of cases."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests/autodiff/rules", "tests/graph/lowering")


@functools.cache
def checked_by(*checks: str) -> frozenset[str]:
    """The operators of all tests that call one of ``checks``: "check_vjp", "check_torch", "check_float16" …

    A test counts where it is parametrized over cases or operators. What others try is not seen: what is listed is
    tested.
    """
    calling = [f for f in _test_functions() if not set(checks).isdisjoint(f.__code__.co_names)]
    return frozenset(op_type for function in calling for op_type in _operators(function))


@functools.cache
def _test_functions() -> tuple[FunctionType, ...]:
    for folder in ("tests/support", "tools"):
        if str(ROOT / folder) not in sys.path:
            sys.path.append(str(ROOT / folder))
    found = []
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"cases_of_{path.parent.name}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        found += [f for n, f in vars(module).items() if n.startswith("test_") and isinstance(f, FunctionType)]
    return tuple(found)


def _operators(function: FunctionType) -> Iterator[str]:
    for mark in getattr(function, "pytestmark", ()):
        if mark.name == "parametrize":
            for given in mark.args[1]:
                case: Any = given.values[0] if hasattr(given, "values") else given
                if mark.args[0] == "op_type":
                    yield case
                elif hasattr(case, "op_type"):
                    yield case.op_type
