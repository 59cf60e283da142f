from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from repository import MODELS

torch = pytest.importorskip("torch", reason="torch: not installed")

import scene_networks  # noqa: E402 (these import torch: the skip comes first)
import train_scenes  # noqa: E402 (behind the skip)
from scenes import CLASSES  # noqa: E402 (behind the skip)
from shapes import single_object  # noqa: E402 (behind the skip)
from train_models import to_input  # noqa: E402 (behind the skip)

import onnx_gradcam as ogc  # noqa: E402 (behind the skip)

NAME = "scenes-inception"  # the smallest


@pytest.mark.parametrize("name", ["resnet", "vgg", "inception"])
def test_convolutions_start_as_an_exported_network_has_them(name: str) -> None:
    """On the images that set the normalisations, features are those of the file, but for the ε of a normalisation."""
    x = to_input([single_object(np.random.default_rng(seed)).image for seed in range(4)])
    network = getattr(scene_networks, name)()
    path = MODELS / f"shapes-{name}.onnx"
    scene_networks.start_from(torch.nn.Sequential(network[0], torch.nn.Identity()), path, x)
    with torch.no_grad():
        features = network[0].train()(x).numpy()
    with ogc.Explainer(path, providers=["cpu"]) as explainer:
        expected = explainer.explain(x.numpy()).activation
    assert np.linalg.norm(features - expected) <= 0.01 * np.linalg.norm(expected)


def test_an_empty_scene_is_of_every_class_and_two_objects_share() -> None:
    assert train_scenes.shares(()).tolist() == pytest.approx([1 / len(CLASSES)] * len(CLASSES))
    assert train_scenes.shares((1, 3)).nonzero()[0].tolist() == [1, 3]
    assert train_scenes.shares((1, 3)).max() == 0.5


@pytest.mark.parametrize("stopped_at", [2, 3])
def test_a_training_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    recipe = train_scenes.Recipe(scene_networks.inception, "shapes-inception", (2, 2), 3e-3)
    monkeypatch.setitem(train_scenes.RECIPES, NAME, recipe)
    monkeypatch.setattr(train_scenes, "SAVED_EVERY", 1)
    monkeypatch.setattr(train_scenes, "BATCH", 4)
    monkeypatch.setattr(train_scenes, "STATES", tmp_path / "straight")
    straight = train_scenes.train(NAME, MODELS).state_dict()

    def stop(step: int) -> None:
        if step == stopped_at:
            raise KeyboardInterrupt
        return batch(step)

    batch = train_scenes.batch
    monkeypatch.setattr(train_scenes, "STATES", tmp_path / "stopped")
    monkeypatch.setattr(train_scenes, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        train_scenes.train(NAME, MODELS)
    monkeypatch.setattr(train_scenes, "batch", batch)
    resumed = train_scenes.train(NAME, MODELS).state_dict()
    assert all(torch.equal(resumed[name], weights) for name, weights in straight.items())
