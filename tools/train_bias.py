"""Trains two networks of one architecture, on data where a cue goes with the class and on balanced data.

    python tools/train_bias.py [--only NAME]... [--checkpoints build/bias] [-o models]

Writes ``models/shapes-biased.onnx`` and ``models/shapes-debiased.onnx``. A run that was stopped goes on from the last
epoch that it finished. Every number comes from a seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bias_scenes import EVEN, GOES_WITH, SIDE, SIGNS, Worker, workers
from numpy.typing import NDArray
from torch import nn
from train_models import BATCH, PREPROCESS, Residual, batches, conv, export, normalise, pooled_head

CUE_GOES_WITH: Mapping[str, float] = {"shapes-biased": GOES_WITH, "shapes-debiased": EVEN}
TRAINING_SCENES = 6_000
TEST_SCENES = 1_000
TRAINING_SEED, TEST_SEED, NETWORK_SEED = 21, 22, 23
EPOCHS, LEARNING_RATE = 8, 3e-3
BIAS_PREPROCESS = {**PREPROCESS, "size": [SIDE, SIDE]}


def bias_network() -> Any:
    """ResNet: stem, two stages of one residual block, global average pooling. The last stage is 12x12.

    A cell of the last stage sees 39 pixels, so that it can see the cap or the sign, and seldom both. The first filters
    sum to zero: blind to flat colour, the network learns shapes much sooner.
    """
    torch.manual_seed(NETWORK_SEED)
    first = conv(3, 16, stride=2)
    with torch.no_grad():
        first[0].weight -= first[0].weight.mean((2, 3), keepdim=True)
    features = nn.Sequential(*first, Residual(16, 32, 2), Residual(32, 64, 2))
    return nn.Sequential(features, pooled_head(64, len(SIGNS)))


def tensors(scenes: list[Worker]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (N, 3, H, W), and classes, int64 (N,)."""
    images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy()), torch.tensor([scene.sign for scene in scenes])


def train(name: str, checkpoint: Path) -> Any:
    """The trained network; it goes on from the checkpoint if there is one."""
    generator = torch.Generator().manual_seed(NETWORK_SEED)
    images, classes = tensors(list(workers(TRAINING_SEED, TRAINING_SCENES, CUE_GOES_WITH[name])))
    network = bias_network().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    first = resume(checkpoint, parts, generator)
    for epoch in range(first, EPOCHS):
        started, total = time.perf_counter(), 0.0
        for index in batches(len(images), generator):
            x = normalise(images[index])
            x = x.flip(3) if torch.rand((), generator=generator) < EVEN else x
            loss = nn.functional.cross_entropy(network(x.to(memory_format=torch.channels_last)), classes[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * BATCH / len(images)
        print(f"{name}  epoch {epoch + 1}  loss {total:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
        state = {key: part.state_dict() for key, part in parts.items()}
        torch.save({**state, "generator": generator.get_state(), "epochs": epoch + 1}, checkpoint)
    return network.eval().to(memory_format=torch.contiguous_format)


def resume(checkpoint: Path, parts: Mapping[str, Any], generator: torch.Generator) -> int:
    """How many epochs a checkpoint has behind it, 0 where there is none; its state is put into the parts."""
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint)
    for key, part in parts.items():
        part.load_state_dict(saved[key])
    generator.set_state(saved["generator"])
    return int(saved["epochs"])


def right(network: Any, goes_with: float) -> NDArray[np.bool_]:
    """Which fresh scenes the network names rightly, (N,) bool."""
    images, classes = tensors(list(workers(TEST_SEED, TEST_SCENES, goes_with)))
    with torch.no_grad():
        top = torch.cat([network(normalise(part)) for part in images.split(BATCH)]).argmax(1)
    return np.asarray((top == classes).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=CUE_GOES_WITH, metavar="NAME", help=", ".join(CUE_GOES_WITH))
    parser.add_argument("--checkpoints", type=Path, default=Path("build/bias"))
    parser.add_argument("-o", dest="folder", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # also the sums' order, so that a seed gives the same weights
    cv2.setNumThreads(1)
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or CUE_GOES_WITH:
        network = train(name, arguments.checkpoints / f"{name}.pt")
        path = arguments.folder / f"{name}.onnx"
        export(network, path, SIGNS, BIAS_PREPROCESS)
        shares = ", ".join(f"{right(network, g).mean():.3f} where it goes with {g:.0%}" for g in (GOES_WITH, EVEN))
        parameters = sum(p.numel() for p in network.parameters())
        print(f"{name}  parameters {parameters}  bytes {path.stat().st_size}  accuracy {shares}", flush=True)


if __name__ == "__main__":
    main()
