"""Small torch modules with many scores per image, and what the most probable of them is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Pyramid(nn.Module):
    """Two levels of features, 8 × 8 and 4 × 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 8, 2), block(8, 8, 2))
        self.deeper = block(8, 8, 2)

    def features(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        return [fine, self.deeper(fine)]


class UNet(nn.Module):
    """Two halvings, transposed convolutions, skips; logits of 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.deep = block(3, 6), block(6, 8), block(8, 12)
        self.pool = nn.MaxPool2d(2)
        self.up2, self.up1 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.join2, self.join1, self.head = block(16, 8), block(12, 6), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(self.pool(one))
        x = self.join2(torch.cat([self.up2(self.deep(self.pool(two))), two], 1))
        return self.head(self.join1(torch.cat([self.up1(x), one], 1)))


class V5(Pyramid):
    """(N, A, 5 + K): one Sigmoid over box, objectness and 4 classes of two anchors a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Conv2d(8, 2 * 9, 1), nn.Conv2d(8, 2 * 9, 1)])

    def raw(self, x: Tensor) -> list[Tensor]:
        found = []
        for head, f in zip(self.heads, self.features(x), strict=True):
            y = head(f)
            n, _, h, w = y.shape
            found.append(y.view(n, 2, 9, h, w).permute(0, 1, 3, 4, 2).contiguous())
        return found

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for y in self.raw(x):
            xy, wh, conf = y.sigmoid().split((2, 2, 5), 4)
            y = torch.cat(((xy * 2 - 0.5) * 8, (wh * 2) ** 2 * 4, conf), 4)
            levels.append(y.view(y.shape[0], -1, 9))
        return torch.cat(levels, 1)


class V8(Pyramid):
    """(N, 4 + K, A): boxes and classes from convolutions of their own, joined over levels before the Sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = nn.ModuleList([nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)])
        self.scores = nn.ModuleList([nn.Sequential(block(8, 8), nn.Conv2d(8, 5, 1)) for _ in range(2)])

    def raw(self, x: Tensor) -> Tensor:
        pairs = zip(self.boxes, self.scores, self.features(x), strict=True)
        return torch.cat([torch.cat([b(f), s(f)], 1).flatten(2) for b, s, f in pairs], 2)

    def forward(self, x: Tensor) -> Tensor:
        box, scores = self.raw(x).split((4, 5), 1)
        return torch.cat([box * 8, scores.sigmoid()], 1)


class SSD(Pyramid):
    """(N, A, K) with a Softmax over (background, 3 classes), two anchors a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Conv2d(8, 2 * 4, 3, 1, 1), nn.Conv2d(8, 2 * 4, 3, 1, 1)])

    def raw(self, x: Tensor) -> Tensor:
        levels = [h(f).permute(0, 2, 3, 1) for h, f in zip(self.heads, self.features(x), strict=True)]
        return torch.cat([y.reshape(y.shape[0], -1, 4) for y in levels], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.raw(x).softmax(2)


class CRNN(nn.Module):
    """(T, N, K) log-probabilities of a CTC head behind an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 8, 2), block(8, 8, 2))
        self.rnn, self.head = nn.LSTM(8, 6, bidirectional=True), nn.Linear(12, 5)

    def raw(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.stem(x).mean(2).permute(2, 0, 1))[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.raw(x).log_softmax(2)


NETS: dict[str, type[nn.Module]] = {"u-net": UNet, "yolov5": V5, "yolov8": V8, "ssd": SSD, "crnn": CRNN}


def entry(name: str, module: Any, x: Tensor) -> tuple[int, tuple[int, ...], Tensor, float]:
    """The most probable class that is not the background, its cell, logit and probability."""
    if name == "u-net":
        z = module(x)[0]
        return _softmax(z.flatten(1).T, lambda cell: divmod(cell, 32))
    if name == "yolov5":
        z = torch.cat([y.reshape(-1, 9) for y in module.raw(x)])
        p = z[:, 4:5].sigmoid() * z[:, 5:].sigmoid()
        cell, index = divmod(int(p.argmax()), 4)
        return index, (cell,), z[cell, 5 + index], float(p.detach().max())
    if name == "yolov8":
        z = module.raw(x)[0, 4:].T
        cell, index = divmod(int(z.argmax()), 5)
        return index, (cell,), z[cell, index], float(z.detach().max().sigmoid())
    z = module.raw(x)[0] if name == "ssd" else module.raw(x)[:, 0]
    return _softmax(z, lambda cell: (cell,))


def _softmax(z: Tensor, place: Any) -> tuple[int, tuple[int, ...], Tensor, float]:
    """(cells, classes); the class that wins most cells is left out."""
    p = z.softmax(1)
    wins = torch.bincount(p.argmax(1), minlength=z.shape[1])
    kept = torch.where(wins * 2 > len(z), torch.zeros_like(p), p)
    cell, index = divmod(int(kept.argmax()), z.shape[1])
    return index, place(cell), z[cell, index], float(p.detach()[cell, index])
