"""Trains the models of the tasks on scenes from task_scenes.py: answers, captions, boxes, masks; writes ``models/``.

    python tools/train_tasks.py [--only NAME]... [-o models] [--state build/tasks] [--scenes N]

An encoder is trained first, with which outlines and colours are there; each task starts from it. Only what a task gives
back is learned from: answers, sentences, boxes, class maps. Every number comes from a seed. The state after each epoch
lies in ``--state``: a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from onnx_files import save_onnx
from shapes import CLASSES, Image
from task_data import CAPTION_LENGTH, Batch, assigned, caption_tokens, draw_batch, presence, question_tokens, turned
from task_networks import Answerer, Finder, Presence, Segmenter, Teller, blind_to_flat_colour
from task_scenes import (
    ANSWERS,
    CAPTION_WORDS,
    NAMES,
    QUESTION_LENGTH,
    QUESTION_WORDS,
    QUESTIONS,
    describe,
    draw_named,
)
from torch import nn
from train_models import BATCH, PREPROCESS, SIZE, batches, normalise

SCENES, SCENES_SEED, NETWORK_SEED = 12_000, 21, 22
ENCODER = "encoder"
EACH = 2
"""How many questions are asked of each image in an epoch."""
Loss = Callable[[Any, torch.Tensor, Batch, np.random.Generator], torch.Tensor]


# Losses: what a network is told of a batch.


def presence_loss(network: Any, x: torch.Tensor, batch: Batch, _: np.random.Generator) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(network(x), presence(batch))


def answer_loss(network: Any, x: torch.Tensor, batch: Batch, rng: np.random.Generator) -> torch.Tensor:
    """Some questions of different kinds on each image, whose features are computed once."""
    kinds = list(QUESTIONS.values())
    asked = [kinds[k](rng, things) for things in batch.things for k in rng.permutation(len(kinds))[:EACH]]
    tokens = torch.tensor([question_tokens(each.words) for each in asked])
    answers = torch.tensor([ANSWERS.index(each.answer) for each in asked])
    features = network.encoder(x).repeat_interleave(EACH, dim=0)
    return nn.functional.cross_entropy(network.answer(features, tokens), answers)


def sentence_loss(network: Any, x: torch.Tensor, batch: Batch, _: np.random.Generator) -> torch.Tensor:
    """The next word after each word of the sentences of scenes of one or two objects."""
    rows = [n for n, things in enumerate(batch.things) if len(things) < 3]
    tokens = torch.tensor([caption_tokens(batch.things[n]) for n in rows])
    logits = network(x[rows], tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0)


def box_loss(network: Any, x: torch.Tensor, batch: Batch, _: np.random.Generator) -> torch.Tensor:
    """Focal cross entropy of the classes, and the distance of the numbers of the boxes at the cells of an object."""
    classes, numbers = assigned(batch, 12)
    boxes, logits = network.raw(x)
    p = logits.sigmoid()
    certainty = torch.where(classes > 0, p, 1 - p).detach()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    is_object = classes.any(dim=2)
    away = nn.functional.smooth_l1_loss(boxes[is_object], numbers[is_object], beta=0.1)
    return ((1 - certainty) ** 2 * entropy).sum() / is_object.sum() + 2 * away


def pixel_loss(network: Any, x: torch.Tensor, batch: Batch, _: np.random.Generator) -> torch.Tensor:
    return nn.functional.cross_entropy(network(x), batch.maps.long())


# Tasks.


@dataclass(frozen=True)
class Task:
    """How a model is built, trained and described.

    ``inputs``: those beside the image, by name; ``metadata``: what is written into the file beside the preprocessing.
    """

    build: Callable[[], Any]
    loss: Loss
    epochs: int
    learning_rate: float
    output: str = ""
    inputs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


TASKS: dict[str, Task] = {
    ENCODER: Task(Presence, presence_loss, 6, 4e-3),
    "shapes-vqa": Task(
        Answerer, answer_loss, 7, 3e-3, "answer",
        {"question": torch.ones(2, QUESTION_LENGTH, dtype=torch.int64)},
        {"labels": ANSWERS, "vocabulary": QUESTION_WORDS},
    ),
    "shapes-caption": Task(
        Teller, sentence_loss, 6, 3e-3, "next_word",
        {"caption": torch.ones(2, CAPTION_LENGTH, dtype=torch.int64)},
        {"labels": CAPTION_WORDS, "vocabulary": CAPTION_WORDS},
    ),
    "shapes-detector": Task(Finder, box_loss, 3, 3e-3, "detections", metadata={"labels": CLASSES}),
    "shapes-segmenter": Task(
        Segmenter, pixel_loss, 2, 3e-3, "classes", metadata={"labels": ("background", *CLASSES)}
    ),
}  # fmt: skip


# Training.


def build(name: str, state: Path) -> Any:
    """The untrained network, with the weights of the trained encoder where there is one."""
    torch.manual_seed(NETWORK_SEED)
    network = TASKS[name].build()
    if name == ENCODER:
        return blind_to_flat_colour(network)
    trained = torch.load(state / f"{ENCODER}.pt", weights_only=False)["network"]
    start = {key.removeprefix("encoder."): value for key, value in trained.items() if key.startswith("encoder.")}
    network.encoder.load_state_dict(start)
    return network


def train(name: str, data: Batch, state: Path) -> Any:
    task, path = TASKS[name], state / f"{name}.pt"
    network = build(name, state).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = task.epochs * (len(data.images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, task.learning_rate, total_steps=steps)
    generator, rng, first = torch.Generator().manual_seed(NETWORK_SEED), np.random.default_rng(NETWORK_SEED), 0
    if path.is_file():
        saved = torch.load(path, weights_only=False)
        for part, key in ((network, "network"), (optimiser, "optimiser"), (schedule, "schedule")):
            part.load_state_dict(saved[key])
        generator.set_state(saved["generator"])
        rng.bit_generator.state, first = saved["rng"], saved["epoch"]
    started = time.perf_counter()
    for epoch in range(first, task.epochs):
        total, network = 0.0, network.train()
        for index in batches(len(data.images), generator):
            batch = turned(data.part(index), generator)
            x = normalise(batch.images).to(memory_format=torch.channels_last)
            loss = task.loss(network, x, batch, rng)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * BATCH / len(data.images)
        print(f"{name}  epoch {epoch + 1}  loss {total:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
        torch.save(
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "generator": generator.get_state(),
                "rng": rng.bit_generator.state,
                "epoch": epoch + 1,
            },
            path,
        )
    return network.eval().to(memory_format=torch.contiguous_format)


# Files.


def export(name: str, network: Any, folder: Path) -> Path:
    task, path = TASKS[name], folder / f"{name}.onnx"
    inputs = {"image": torch.zeros(2, 3, *SIZE), **task.inputs}
    metadata = {"preprocess": PREPROCESS, **task.metadata}
    save_onnx(network, path, inputs, task.output, metadata)
    return path


PHOTOS = ("a red star left of a blue heart", "a yellow circle above a green arrow")
"""What the photos of the demos show; their names are these words."""
PHOTO_SIDE = 384


def draw_photo(sentence: str) -> Image:
    """The first of some seeded scenes that the sentence describes, drawn at three times its size and reduced."""
    words = sentence.split()
    named = [(CLASSES.index(words[k]), NAMES.index(words[k - 1])) for k in (2, len(words) - 1)]
    for seed in range(1000):
        scene = draw_named(np.random.default_rng(seed), 2, (3 * PHOTO_SIDE,) * 2, named=named)
        if describe(scene.things).words == tuple(words):
            size = (PHOTO_SIDE, PHOTO_SIDE)
            return np.asarray(cv2.resize(scene.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    raise ValueError(f"no scene is described by {sentence!r}")


def write_photos(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sentence in PHOTOS:
        name = "-".join(word for word in sentence.split() if word not in ("a", "an"))
        _, data = cv2.imencode(".png", draw_photo(sentence)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        (folder / f"{name}.png").write_bytes(data.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=TASKS, metavar="NAME", help=", ".join(TASKS))
    parser.add_argument("-o", dest="folder", type=Path, default=Path("models"))
    parser.add_argument("--state", type=Path, default=Path("build/tasks"))
    parser.add_argument("--scenes", type=int, default=SCENES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # also the sums' order, so that a seed gives the same weights
    cv2.setNumThreads(1)
    arguments.state.mkdir(parents=True, exist_ok=True)
    write_photos(arguments.folder / "images-tasks")
    data = draw_batch(SCENES_SEED, arguments.scenes)
    for name in arguments.only or TASKS:
        network = train(name, data, arguments.state)
        if TASKS[name].output:
            path = export(name, network, arguments.folder)
            print(f"{name}  parameters {sum(p.numel() for p in network.parameters())}  bytes {path.stat().st_size}")


if __name__ == "__main__":
    main()
