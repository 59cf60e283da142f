"""Trains the classifiers of scenes, and writes them into ``models/``.

    python tools/train_scenes.py [--only NAME]... [-o models]

Every scene is drawn from the seed and the number of its step, and seen once. Only the classes are learned from, never
the masks. The convolutions start from what the older demo models learnt of outlines, those of ``scenes-vgg-gap`` from
``scenes-vgg``: as in the paper, the head is replaced, and the network trained again. A training that is stopped goes on
where it was: its state lies in ``build/training``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scene_networks import inception, resnet, start_from, vgg, vgg_gap
from scenes import CLASSES, SIZE, Scene, draw_many, draw_scene, one_object, random_items, two_objects
from torch import nn
from train_models import PREPROCESS, difference, export, normalise, to_input

STATES = Path(__file__).resolve().parent.parent / "build" / "training"
BATCH = 32
TRAINING_SEED, NETWORK_SEED, TEST_SEED = 11, 12, 13
TEST_SCENES = 1000
SAVED_EVERY = 50  # steps
WARM_UP = 0.15  # share of the steps in which the learning rate rises
WIDE = (0.14, 0.38)  # the radius of a single object in training: beyond that of the scenes that are judged


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        build: makes the untrained network.
        start: the network whose convolutions it starts from.
        cycles: how many batches it sees; in each cycle the learning rate rises and falls once.
        learning_rate: the highest.
    """

    build: Callable[[], Any]
    start: str
    cycles: tuple[int, ...]
    learning_rate: float


RECIPES = {
    "scenes-resnet": Recipe(resnet, "shapes-resnet", (1500,), 3e-3),
    "scenes-vgg": Recipe(vgg, "shapes-vgg", (1000, 1500), 2e-3),
    "scenes-vgg-gap": Recipe(vgg_gap, "scenes-vgg", (1200,), 2e-3),
    "scenes-inception": Recipe(inception, "shapes-inception", (1000, 1500), 3e-3),
}


def training_scene(rng: np.random.Generator) -> Scene:
    """Return a scene with one object (45 %), two (50 %) or none."""
    kind = rng.uniform()
    if kind < 0.45:
        return one_object(rng, radius=WIDE)
    return two_objects(rng) if kind < 0.95 else draw_scene(rng, random_items(rng, 0))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of a step, uint8 (B, 3, H, W), and equal shares of the classes that are there, (B, classes)."""
    rng = np.random.default_rng([TRAINING_SEED, step])
    scenes = [training_scene(rng) for _ in range(BATCH)]
    images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
    return torch.from_numpy(images), torch.from_numpy(np.stack([shares(scene.labels) for scene in scenes]))


def shares(labels: tuple[int, ...]) -> NDArray[np.float32]:
    """Return equal shares of the classes present; of all classes in an empty scene."""
    target = np.zeros(len(CLASSES), np.float32)
    target[list(labels) or slice(None)] = 1
    return np.asarray(target / target.sum())


@dataclass(eq=False)
class Training:
    """A network while it is trained; ``load`` and ``save`` keep it in a file.

    Attributes:
        network: the network.
        recipe: how it is trained.
        step: how many batches it has seen.
        seconds: how long this took one core.
        optimiser, schedule: of the cycle that goes on.
    """

    network: Any
    recipe: Recipe
    step: int = 0
    seconds: float = 0.0
    optimiser: Any = None
    schedule: Any = None

    @property
    def ends(self) -> list[int]:
        """Return after how many steps each cycle ends."""
        return list(accumulate(self.recipe.cycles))

    def begin_cycle(self) -> None:
        """Start the optimiser and the learning rates of a cycle anew."""
        steps = self.recipe.cycles[sum(end <= self.step for end in self.ends)]
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=1e-2)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, self.recipe.learning_rate, total_steps=steps, pct_start=WARM_UP
        )

    def load(self, path: Path) -> None:
        """Go on where a training was left."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]
        if self.step not in self.ends:
            self.begin_cycle()
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])

    def save(self, path: Path) -> None:
        """Keep all that the next step depends on."""
        parts = {part: getattr(self, part).state_dict() for part in ("network", "optimiser", "schedule")}
        aside = path.with_suffix(".new")
        numbers = {"random": torch.get_rng_state(), "step": self.step, "seconds": self.seconds}
        torch.save({**parts, **numbers}, aside)
        aside.replace(path)


def begin(name: str, folder: Path) -> Training:
    """Return the training of a network where it was left, or at its start, from a network in ``folder``."""
    recipe = RECIPES[name]
    torch.manual_seed(NETWORK_SEED)
    training = Training(recipe.build().to(memory_format=torch.channels_last), recipe)
    state = STATES / f"{name}.pt"
    if state.exists():
        training.load(state)
    else:
        start_from(training.network, folder / f"{recipe.start}.onnx", normalise(batch(0)[0]))
    return training


def train(name: str, folder: Path) -> Any:
    """Return the trained network; a state that is complete is not trained again.

    Args:
        name: of the network.
        folder: where the network lies from which it starts.
    """
    STATES.mkdir(parents=True, exist_ok=True)
    training = begin(name, folder)
    network = training.network.train()
    losses: list[float] = []
    while training.step < training.ends[-1]:
        if training.step in (0, *training.ends):
            training.begin_cycle()
        started = time.process_time()
        losses.append(take_step(training))
        training.seconds += time.process_time() - started
        if training.step % SAVED_EVERY == 0 or training.step in training.ends:
            training.save(STATES / f"{name}.pt")
            print(f"{name}  step {training.step}  loss {np.mean(losses):.4f}  {training.seconds:.0f} s", flush=True)
            losses.clear()
    return network.eval().to(memory_format=torch.contiguous_format)


def take_step(training: Training) -> float:
    """Learn from the next batch, and return its loss."""
    images, targets = batch(training.step)
    x = normalise(images).to(memory_format=torch.channels_last)
    loss = nn.functional.cross_entropy(training.network(x), targets)
    training.optimiser.zero_grad()
    loss.backward()
    training.optimiser.step()
    training.schedule.step()
    training.step += 1
    return float(loss.item())


def accuracy(network: Any) -> float:
    """Return the share of fresh scenes with one object whose class comes first."""
    scenes = draw_many(one_object, TEST_SCENES, TEST_SEED)
    return float(
        np.mean([row[0] == scene.labels[0] for row, scene in zip(ranking(network, scenes), scenes, strict=True)])
    )


def both_first(network: Any) -> float:
    """Return the share of fresh scenes with two objects whose classes are the first two."""
    scenes = draw_many(two_objects, TEST_SCENES, TEST_SEED)
    rows = ranking(network, scenes)
    return float(np.mean([{*row[:2]} == {*scene.labels} for row, scene in zip(rows, scenes, strict=True)]))


def ranking(network: Any, scenes: Sequence[Scene]) -> list[list[int]]:
    """Return for each scene the classes, most probable first."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(scenes), BATCH):
            x = to_input([scene.image for scene in scenes[start : start + BATCH]])
            rows += network(x).argsort(1, descending=True).tolist()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("-o", dest="folder", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # also the sums' order, so that a seed gives the same weights
    cv2.setNumThreads(1)
    for name in arguments.only or RECIPES:
        network, path = train(name, arguments.folder), arguments.folder / f"{name}.onnx"
        export(network, path, CLASSES, {**PREPROCESS, "size": list(SIZE)})
        print(f"{name}  parameters {sum(p.numel() for p in network.parameters())}  bytes {path.stat().st_size}")
        print(f"{name}  accuracy {accuracy(network):.4f}, both of two objects first {both_first(network):.4f}")
        worst = difference(network, path, lambda rng: one_object(rng).image)
        print(f"{name}  largest difference between onnxruntime and torch {worst:.2e}", flush=True)


if __name__ == "__main__":
    main()
