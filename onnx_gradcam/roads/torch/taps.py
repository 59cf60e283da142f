"""Named submodules of a module made to show the tensors that they return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from onnx_gradcam.errors import LayerError, nearest


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Hold a module in evaluation mode; afterwards every part of it is in the mode that it was in before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def tapped(module: Any, paths: Sequence[str]) -> Iterator[None]:
    """Let ``module`` return (its output, [the output of each submodule in ``paths`` …]).

    What comes after a submodule reads a copy of the tensor that is returned: an activation in place behind it changes
    the copy. A call raises ``LayerError`` where a submodule was not called once or returned no tensor.
    """
    kept: dict[str, list[Any]] = {path: [] for path in paths}

    def keep(path: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            if not hasattr(output, "clone"):
                kept[path].append(output)
                return output
            kept[path].append(output.clone())
            return kept[path][-1].clone()

        return hook

    def collect(_module: Any, _inputs: Any, output: Any) -> Any:
        found = [_only(path, tensors) for path, tensors in kept.items()]
        for tensors in kept.values():
            tensors.clear()
        return output, found

    handles = [submodule(module, path).register_forward_hook(keep(path)) for path in paths]
    handles.append(module.register_forward_hook(collect))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def submodule(module: Any, path: str) -> Any:
    """Return the part of a module called ``path``. Raises ``LayerError`` with the nearest names."""
    parts = {name: part for name, part in module.named_modules(remove_duplicate=False) if name}
    if path not in parts:
        raise LayerError(f"the module has no part {path!r}", hint=f"one of {nearest(path, parts)}", name=path)
    return parts[path]


def _only(path: str, tensors: Sequence[Any]) -> Any:
    if len(tensors) != 1:
        raise LayerError(
            f"the part {path!r} is called {len(tensors)} times in one forward pass: its output is not one value",
            hint="a part around it, or one inside it, that is called once",
            name=path,
        )
    if not hasattr(tensors[0], "clone"):
        raise LayerError(
            f"the part {path!r} returns {type(tensors[0]).__name__}, not one tensor",
            hint="a part inside it that returns the tensor",
            name=path,
        )
    return tensors[0]
