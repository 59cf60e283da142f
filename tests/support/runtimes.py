"""An onnxruntime that offers what a test says."""

from __future__ import annotations

import sys
import types
from typing import Any

import onnxruntime
import pytest

from onnx_gradcam.engine.session import CPU


class Fake(types.ModuleType):
    """An onnxruntime of any build: what it has, what initialises, and what it was asked for."""

    __version__ = "9.9.9"

    def __init__(self, available: list[str], starts: list[str], problem: Exception | None = None) -> None:
        super().__init__("onnxruntime")
        self.available, self.starts, self.problem = available, starts, problem
        self.opened: list[tuple[list[str], list[dict[str, str]]]] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def get_all_providers(self) -> list[str]:
        return list(onnxruntime.get_all_providers())

    SessionOptions = types.SimpleNamespace
    RunOptions = types.SimpleNamespace

    def InferenceSession(self, payload: Any, **options: Any) -> Any:
        """Providers that do not start are dropped, as onnxruntime does; ``problem`` is raised for all but the CPU."""
        assert options["enable_fallback"] == 0, "onnxruntime falls back by itself, and prints that on stdout"
        names = options["providers"]
        self.opened.append((names, options["provider_options"]))
        if self.problem and names != [CPU]:
            raise self.problem
        session = types.SimpleNamespace(get_inputs=list, get_outputs=list)
        session.get_providers = lambda: [n for n in names if n in self.starts]
        session.get_provider_options = lambda: dict(zip(names, options["provider_options"], strict=True))
        return session


def installed(monkeypatch: pytest.MonkeyPatch, *args: Any) -> Fake:
    fake = Fake(*args)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake
