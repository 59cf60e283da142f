"""The examples in the docstrings of the public modules run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import types

import pytest

import onnx_gradcam as ogc

OBJECTS = [getattr(ogc, name) for name in ogc.__all__]
MODULES = sorted({o.__module__ for o in OBJECTS if not isinstance(o, types.ModuleType)} | {"onnx_gradcam"})
WITH_EXAMPLES = ("Explainer", "Explanation", "both", "contrast", "layers", "TopK")


def examples(module: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples]


@pytest.mark.parametrize("module", [module for module in MODULES if examples(module)])
def test_examples_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_main_names_have_examples(name: str) -> None:
    public = getattr(ogc, name)
    assert any(test.name == f"{public.__module__}.{name}" for test in examples(public.__module__))


def test_no_example_is_skipped() -> None:
    every = [example for module in MODULES for test in examples(module) for example in test.examples]
    assert [e.source for e in every if doctest.SKIP in e.options] == []
