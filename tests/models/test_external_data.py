"""Every model once more, with its weights in another file: outputs, maps and checks are those of the file in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from external import save_beside
from nets import feeds
from repository import MODELS

import onnx_gradcam as ogc

SMALL: dict[str, Callable[[], onnx.ModelProto]] = {**builders.ARCHITECTURES, **builders.HABITS}
LARGER = 100  # bytes with the 33 of a Python object: more than shapes and pads have
WORDS = 20  # fewer than any demo model knows
SAMPLE = ("residual", "convnext", "constant_weights", "with_function")


def explain(model: onnx.ModelProto | Path, fed: dict[str, Any]) -> list[ogc.Explanation]:
    """The default, all scores of a kind that reads the weights of the classes, and a method of the input."""
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        found = [explainer.explain(fed)]
        if explainer.score.kind == "classes":
            found.append(explainer.explain(fed, target=ogc.Finer(0, similar=1)))
        return found


def check(model: onnx.ModelProto, folder: Path, fed: dict[str, Any]) -> None:
    for found, expected in zip(
        explain(save_beside(folder, model, smallest=LARGER), fed), explain(model, fed), strict=True
    ):
        np.testing.assert_array_equal(found.heatmap, expected.heatmap)
        np.testing.assert_array_equal(found.score, expected.score)
        for name, output in expected.outputs.items():
            np.testing.assert_array_equal(found.outputs[name], output)


def small(name: str) -> pytest.param:
    return pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow)


@pytest.mark.parametrize("name", [small(name) for name in SMALL])
def test_a_small_model(name: str, tmp_path: Path) -> None:
    model = SMALL[name]()
    check(model, tmp_path, feeds(model))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_demo_model(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    check(model, tmp_path, feeds(model, below=WORDS))


@pytest.mark.slow
def test_the_zoo(zoo: Path, zoo_index: dict[str, Any], tmp_path: Path) -> None:
    """One after the other, without the brain: its 16 million voxels take minutes."""
    for name, entry in zoo_index.items():
        if name != "niivue-3d":
            model = onnx.load(zoo / entry["file"])
            (tmp_path / name).mkdir()
            check(model, tmp_path / name, sized(model, entry))


def sized(model: onnx.ModelProto, entry: dict[str, Any]) -> dict[str, Any]:
    """One image of the size that the index names, where the model leaves it open."""
    fed = feeds(model, batch=1)
    return {k: np.resize(x, (1, 3, *entry["size"])) if x.shape[2:] == (1, 1) else x for k, x in fed.items()}


@pytest.mark.parametrize("name", SAMPLE)
def test_checks_and_comparisons(name: str, tmp_path: Path) -> None:
    model = SMALL[name]()
    path = save_beside(tmp_path, model, smallest=LARGER)
    inside, outside = ogc.verify(model), ogc.verify(path)
    assert outside.ok
    assert [(c.name, c.error) for c in outside.checks] == [(c.name, c.error) for c in inside.checks]
    np.save(tmp_path / "x.npy", next(iter(feeds(model).values())))
    same = ogc.compare(path, model, [tmp_path / "x.npy"], providers=["cpu"])
    assert [pair.pearson for pair in same.pairs] == pytest.approx([1, 1])
