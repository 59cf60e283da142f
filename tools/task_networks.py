"""The networks of the tasks: one encoder, and what reads it to answer, to tell, to find and to segment.

The encoder makes 72 features on a grid of 12x12 cells of an image of 96x96 pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from shapes import CLASSES
from task_scenes import ANSWERS, CAPTION_WORDS, NAMES, QUESTION_WORDS
from torch import nn
from train_models import Residual, conv

STEM, MIDDLE, DEEP, FEATURES = 16, 24, 48, 72
STRIDE = 8
WORD, STATE, KEY = 32, 64, 48
AROUND, FEW, CELLS_OF_AN_OBJECT = 16, 6, 12


def blind_to_flat_colour(network: Any) -> Any:
    """The network, with filters of its first convolution that sum to zero: it learns outlines much sooner."""
    with torch.no_grad():
        first = next(network.parameters())
        first[: len(first) // 2] -= first[: len(first) // 2].mean((2, 3), keepdim=True)
    return network


class Encoder(nn.Module):  # type: ignore[misc]
    """A stem and three residual stages; ``levels`` returns the values of stride 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv(3, STEM, stride=2))
        self.middle = Residual(STEM, MIDDLE, 2)
        self.deep = nn.Sequential(Residual(MIDDLE, DEEP, 2), Residual(DEEP, FEATURES, 1))

    def levels(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fine = self.stem(image)
        middle = self.middle(fine)
        return fine, middle, self.deep(middle)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.levels(image)[2]


class Presence(nn.Module):  # type: ignore[misc]
    """Which outlines and which colours are there: what the encoder is trained with before it serves a task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(FEATURES, len(CLASSES) + len(NAMES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(image).mean((2, 3)))


class Wide(nn.Module):  # type: ignore[misc]
    """relu(x + body(x)), each cell seeing 9x9 cells: what lies beside an object."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 9, padding=4, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            *conv(channels, channels, 1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(x + self.body(x))


class Answerer(nn.Module):  # type: ignore[misc]
    """Image and question → logits of the answers: the question scales and shifts features (FiLM), and opens cells.

    What lies beside an object reaches its cells through one number, the gate: what an object is stays where it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.words = nn.Embedding(len(QUESTION_WORDS), WORD)
        self.reader = nn.GRU(WORD, STATE, batch_first=True)
        self.around = nn.Conv2d(FEATURES, AROUND, 1)
        self.films = nn.ModuleList(nn.Linear(STATE, 2 * width) for width in (AROUND, AROUND, FEATURES))
        self.wides = nn.ModuleList(Wide(AROUND) for _ in range(2))
        self.gate = nn.Conv2d(AROUND, 1, 1)
        self.own = nn.Conv2d(FEATURES, FEATURES, 1)
        self.last = nn.Sequential(*conv(FEATURES, FEATURES, 1))
        self.head = nn.Linear(FEATURES, len(ANSWERS))

    def forward(self, image: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        return self.answer(self.encoder(image), question)

    def answer(self, features: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        _, state = self.reader(self.words(question))
        beside = self.around(features)
        for film, wide in zip(self.films[:2], self.wides, strict=True):
            beside = wide(filmed(film(state[0]), beside))
        x = filmed(self.films[2](state[0]), self.own(features)) * torch.sigmoid(self.gate(beside))
        return self.head(self.last(x).mean((2, 3)))


def filmed(numbers: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """relu(x · (1 + scale) + shift), the numbers of each channel from the question."""
    scale, shift = numbers[:, :, None, None].chunk(2, dim=1)
    return nn.functional.relu(x * (1 + scale) + shift)


class Teller(nn.Module):  # type: ignore[misc]
    """Image and caption so far → logits of the next word after each word: a GRU whose states open cells.

    A few numbers say what lies beside a cell; the gates and what passes them are read from the same cells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.around = nn.Sequential(nn.Conv2d(FEATURES, FEW, 1), Wide(FEW), Wide(FEW))
        self.cells = nn.Sequential(*conv(FEATURES + FEW, FEATURES, 1))
        self.words = nn.Embedding(len(CAPTION_WORDS), WORD)
        self.start = nn.Linear(FEATURES, STATE)
        self.speaker = nn.GRU(WORD, STATE, batch_first=True)
        self.query = nn.Linear(STATE, KEY)
        self.key = nn.Conv2d(FEATURES, KEY, 1)
        self.mix = nn.Linear(FEATURES + STATE, STATE)
        self.head = nn.Linear(STATE, len(CAPTION_WORDS))

    def forward(self, image: torch.Tensor, caption: torch.Tensor) -> torch.Tensor:
        features = self.encoder(image)
        x = self.cells(torch.cat([features, self.around(features)], dim=1))
        start = torch.tanh(self.start(x.mean((2, 3))))
        states, _ = self.speaker(self.words(caption), start[None])
        gates = torch.sigmoid(self.query(states) @ self.key(x).flatten(2) / KEY**0.5)
        seen = gates @ x.flatten(2).mT / CELLS_OF_AN_OBJECT
        return self.head(nn.functional.relu(self.mix(torch.cat([seen, states], dim=2))))


class Finder(nn.Module):  # type: ignore[misc]
    """Image → for each of 144 cells a box (cx, cy, w, h in pixels) and the probability of each class: (N, 144, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.neck = nn.Sequential(*conv(FEATURES, FEATURES))
        self.box = nn.Conv2d(FEATURES, 4, 1)
        self.score = nn.Conv2d(FEATURES, len(CLASSES), 1)
        nn.init.constant_(self.score.bias, -4.0)
        y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
        self.register_buffer("cells", torch.stack([x, y]).flatten(1).T[None] + 0.5, persistent=False)

    def raw(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The numbers of the boxes (N, 144, 4), and the logits of the classes (N, 144, 8)."""
        x = self.neck(self.encoder(image))
        return self.box(x).flatten(2).mT, self.score(x).flatten(2).mT

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        numbers, logits = self.raw(image)
        centre = (numbers[..., :2] + self.cells) * STRIDE
        return torch.cat([centre, numbers[..., 2:].exp() * STRIDE, logits.sigmoid()], dim=2)


class Segmenter(nn.Module):  # type: ignore[misc]
    """Image → logits of background and classes at each pixel: two steps up, each with the encoder's finer features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.narrow = nn.Sequential(*conv(FEATURES, DEEP, 1))
        self.middle = nn.Sequential(*conv(DEEP + MIDDLE, 32))
        self.fine = nn.Sequential(*conv(32 + STEM, 24))
        self.head = nn.Conv2d(24, 1 + len(CLASSES), 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine, middle, deep = self.encoder.levels(image)
        x = self.middle(torch.cat([self.up(self.narrow(deep)), middle], dim=1))
        x = self.fine(torch.cat([self.up(x), fine], dim=1))
        return self.up(self.head(x))
