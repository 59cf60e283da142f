"""Trains the three demo models on scenes from shapes.py, measures them, and writes ``models/``.

    python tools/train_models.py [--only NAME]... [-o models]

Only image labels are learned from; the masks serve the measurement. Every number comes from a seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx_files import save_onnx
from shapes import CLASSES, Image, Scene, Size, draw_scene, single_object, two_objects
from torch import nn

SIZE = (96, 96)
MEAN, STD = 0.5, 0.25
BATCH = 32
TRAINING_SCENES = 16_000
TEST_SCENES = 2_000
POINTING_SCENES = 500
TRAINING_SEED, TEST_SEED, POINTING_SEED, NETWORK_SEED = 1, 2, 3, 4


# Networks: (features, head), cut at the activation that Grad-CAM explains.


class Residual(nn.Module):  # type: ignore[misc]
    """relu(body(x) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        second = [nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*conv(inputs, outputs, stride=stride), *second)
        project = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*(project if inputs != outputs else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class Branches(nn.Module):  # type: ignore[misc]
    """The branches' outputs, concatenated over channels."""

    def __init__(self, *branches: list[Any]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[Any]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def pooled_head(channels: int, classes: int = len(CLASSES)) -> Any:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def resnet() -> Any:
    """ResNet: stem, three stages of residual blocks, global average pooling. The last stage is 12x12."""
    blocks = Residual(16, 24, 2), Residual(24, 48, 2), Residual(48, 72, 1)
    return nn.Sequential(nn.Sequential(*conv(3, 16, stride=2), *blocks), pooled_head(72))


def vgg() -> Any:
    """VGG: 3x3 convolutions and maxpools, then fully connected layers. The last convolutions are at 12x12."""
    pool = nn.MaxPool2d(2)
    features = [*conv(3, 8), pool, *conv(8, 16), pool, *conv(16, 32), *conv(32, 32), pool]
    features += [*conv(32, 64), *conv(64, 64)]
    dense = [nn.Linear(64 * 3 * 3, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, len(CLASSES))]
    return nn.Sequential(nn.Sequential(*features), nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), *dense))


def inception() -> Any:
    """GoogLeNet: branches of 1x1, 3x3, 5x5 and pooling, concatenated. The last blocks are at 12x12."""

    def block(inputs: int, width: int, pool: Any) -> Any:
        return Branches(
            conv(inputs, width, 1),
            [*conv(inputs, width, 1), *conv(width, 2 * width, 3)],
            [*conv(inputs, width // 2, 1), *conv(width // 2, width, 5)],
            [pool, *conv(inputs, width, 1)],
        )

    average, largest = nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1)
    shrink = nn.MaxPool2d(3, 2, 1)
    stem = [*conv(3, 16, stride=2), shrink]
    blocks = [block(16, 8, average), shrink, block(40, 16, largest), block(80, 24, average)]
    return nn.Sequential(nn.Sequential(*stem, *blocks), pooled_head(120))


@dataclass(frozen=True)
class Recipe:
    build: Callable[[], Any]
    epochs: int
    learning_rate: float


RECIPES = {
    "shapes-resnet": Recipe(resnet, 5, 3e-3),
    "shapes-vgg": Recipe(vgg, 7, 2e-3),
    "shapes-inception": Recipe(inception, 7, 3e-3),
}


# Data.


def photo_size(rng: np.random.Generator) -> Size:
    return int(rng.integers(100, 220)), int(rng.integers(100, 220))


def training_scene(rng: np.random.Generator) -> Scene:
    """One object (50 %), two (45 %) or none, on a scene of the network's size (60 %) or of another one."""
    count = int(rng.choice(3, p=[0.05, 0.5, 0.45]))
    size = SIZE if rng.uniform() < 0.6 else photo_size(rng)
    if count == 1:
        return single_object(rng, size)
    return draw_scene(rng, rng.choice(len(CLASSES), count, replace=False).tolist(), size)


def stretch(image: Image) -> Image:
    """The image at the network's size."""
    return np.asarray(cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def soft_target(labels: tuple[int, ...]) -> NDArray[np.float32]:
    """Equal shares of the classes present; of all classes in an empty scene."""
    target = np.zeros(len(CLASSES), np.float32)
    target[list(labels) or slice(None)] = 1
    return np.asarray(target / target.sum())


def training_data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (N, 3, H, W), and soft targets, float32 (N, K)."""
    rng = np.random.default_rng(seed)
    scenes = [training_scene(rng) for _ in range(TRAINING_SCENES)]
    images = np.stack([stretch(scene.image) for scene in scenes]).transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy()), torch.from_numpy(np.stack([soft_target(s.labels) for s in scenes]))


def normalise(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255 - MEAN) / STD


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the 8 symmetries of the square and a permutation of the colours: none changes a class."""
    turns, flip = torch.randint(4, (2,), generator=generator).tolist()
    images = torch.rot90(images, turns, (2, 3))
    images = images.flip(3) if flip % 2 else images
    return images[:, torch.randperm(3, generator=generator)]


# Training.


def batches(count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    yield from torch.randperm(count, generator=generator)[: count // BATCH * BATCH].split(BATCH)


def build(name: str) -> Any:
    """The untrained network. Its first filters sum to zero: blind to flat colour, it learns shapes much sooner."""
    torch.manual_seed(NETWORK_SEED)
    network = RECIPES[name].build()
    with torch.no_grad():
        first = next(network.parameters())
        first -= first.mean((2, 3), keepdim=True)
    return network


def train(name: str, images: torch.Tensor, targets: torch.Tensor) -> Any:
    recipe = RECIPES[name]
    generator = torch.Generator().manual_seed(NETWORK_SEED)
    network = build(name).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = recipe.epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps)
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        total = 0.0
        for index in batches(len(images), generator):
            x = normalise(augment(images[index], generator)).to(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(network(x), targets[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * BATCH / len(images)
        print(f"{name}  epoch {epoch + 1}  loss {total:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
    return network.eval().to(memory_format=torch.contiguous_format)


# Measurement.


def to_input(images: list[Image]) -> torch.Tensor:
    return normalise(torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()))


def accuracy(network: Any) -> float:
    """The share of fresh single-object scenes whose class comes first."""
    rng = np.random.default_rng(TEST_SEED)
    scenes = [single_object(rng, SIZE) for _ in range(TEST_SCENES)]
    with torch.no_grad():
        top = torch.cat([network(x) for x in to_input([s.image for s in scenes]).split(BATCH)]).argmax(1).tolist()
    return float(np.mean([c == s.labels[0] for c, s in zip(top, scenes, strict=True)]))


def gradcam(network: Any, x: torch.Tensor, classes: list[int]) -> NDArray[np.float32]:
    """relu(Σ_k α_k A_k), α_k = mean over space of ∂y_c/∂A_k, upsampled (bilinear, half-pixel): (N, H, W)."""
    features, head = network
    activation = features(x).detach().requires_grad_()
    score = head(activation)[range(len(classes)), classes].sum()
    (gradient,) = torch.autograd.grad(score, activation)
    cam = (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True).relu().detach()
    return np.asarray(nn.functional.interpolate(cam, SIZE, mode="bilinear", align_corners=False)[:, 0].numpy())


def pointing(network: Any) -> tuple[float, float]:
    """How often the map of an object's class has its maximum on that object, and on the other one."""
    rng = np.random.default_rng(POINTING_SEED)
    scenes = [two_objects(rng, SIZE) for _ in range(POINTING_SCENES)]
    hits = []
    for which in (0, 1):
        for start in range(0, len(scenes), BATCH):
            part = scenes[start : start + BATCH]
            x = to_input([scene.image for scene in part])
            maps = gradcam(network, x, [scene.labels[which] for scene in part])
            for scene, cam in zip(part, maps, strict=True):
                on_first, on_second = scene.masks[:, *np.unravel_index(cam.argmax(), cam.shape)]
                hits.append((on_first, on_second) if which == 0 else (on_second, on_first))
    own, other = np.mean(hits, axis=0)
    return float(own), float(other)


# Files.

INPUT, OUTPUT = "image", "logits"
PREPROCESS = {
    "size": list(SIZE),
    "resize": "stretch",
    "scale": 1 / 255,
    "mean": [MEAN] * 3,
    "std": [STD] * 3,
    "channels": "RGB",
    "layout": "NCHW",
    "dtype": "float32",
}


def export(
    network: Any, path: Path, labels: Sequence[str] = CLASSES, preprocess: Mapping[str, Any] = PREPROCESS
) -> None:
    """One ONNX file of opset 18, weights inside, labels and preprocessing in its metadata."""
    inputs = {INPUT: torch.zeros(2, 3, *preprocess["size"])}
    save_onnx(network, path, inputs, OUTPUT, {"labels": labels, "preprocess": preprocess})


def difference(network: Any, path: Path, draw: Callable[[np.random.Generator], Image]) -> float:
    """The largest difference between the file, run by onnxruntime at two batch sizes, and torch, on images drawn so."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(TEST_SEED)
    worst = 0.0
    for count in (1, 17):
        x = to_input([draw(rng) for _ in range(count)])
        (logits,) = session.run([OUTPUT], {INPUT: x.numpy()})
        with torch.no_grad():
            worst = max(worst, float(np.abs(logits - network(x).numpy()).max()))
    return worst


# Photos: file name, size, seed; the names tell the classes.
PHOTOS: dict[str, tuple[Size, int]] = {
    "star-and-heart": ((360, 480), 10),
    "arrow-and-circle": ((480, 360), 6),
    "drop": ((400, 400), 5),
    "cross": ((360, 480), 11),
}


def draw_photo(name: str) -> Image:
    """A scene drawn at three times its size and reduced, so that its edges are smooth."""
    (height, width), seed = PHOTOS[name]
    labels = [CLASSES.index(label) for label in name.split("-and-")]
    scene = draw_scene(np.random.default_rng(seed), labels, (3 * height, 3 * width))
    return np.asarray(cv2.resize(scene.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def write_photos(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        _, data = cv2.imencode(".png", draw_photo(name)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        (folder / f"{name}.png").write_bytes(data.tobytes())


def recognised(network: Any) -> dict[str, list[str]]:
    """For each photo the classes that come first, as many as it shows, most probable first."""
    names = list(PHOTOS)
    with torch.no_grad():
        ranking = network(to_input([stretch(draw_photo(name)) for name in names])).argsort(1, descending=True)
    return {
        name: [CLASSES[k] for k in row[: len(name.split("-and-"))]]
        for name, row in zip(names, ranking.tolist(), strict=True)
    }


# The program.


def make(name: str, images: torch.Tensor, targets: torch.Tensor, folder: Path) -> None:
    network = train(name, images, targets)
    path = folder / f"{name}.onnx"
    export(network, path)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{name}  parameters {parameters}  bytes {path.stat().st_size}  accuracy {accuracy(network):.4f}")
    worst = difference(network, path, lambda rng: single_object(rng, SIZE).image)
    print(f"{name}  largest difference between onnxruntime and torch {worst:.2e}")
    for kind, candidate in (("trained", network), ("random weights", build(name).eval())):
        own, other = pointing(candidate)
        print(f"{name}  {kind}: maximum on the object {own:.3f}, on the other {other:.3f}")
    for photo, classes in recognised(network).items():
        print(f"{name}  {photo}.png: {', '.join(classes)}", flush=True)


def centre_rate() -> float:
    """How often the centre point, the map of a lazy explainer, lies on an object: the other baseline."""
    rng = np.random.default_rng(POINTING_SEED)
    centre = SIZE[0] // 2, SIZE[1] // 2
    return float(np.mean([two_objects(rng, SIZE).masks[:, *centre] for _ in range(POINTING_SCENES)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("-o", dest="folder", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # also the sums' order, so that a seed gives the same weights
    cv2.setNumThreads(1)
    write_photos(arguments.folder / "images")
    print(f"centre point on the object {centre_rate():.3f}", flush=True)
    images, targets = training_data(TRAINING_SEED)
    for name in arguments.only or RECIPES:
        make(name, images, targets, arguments.folder)


if __name__ == "__main__":
    main()
