"""Small torch modules whose outputs are not one row of logits: detectors, embeddings, images, means of networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 5


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.SiLU())


class Levels(nn.Module):  # type: ignore[misc]
    """Two levels of features, 8 × 8 and 4 × 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deeper = nn.Sequential(block(3, 8, 2), block(8, 8, 2)), block(8, 8, 2)

    def features(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        return [fine, self.deeper(fine)]


class YoloV8(Levels):
    """Distances as the expected values of distributions, boxes from anchor points, classes behind a Sigmoid."""

    def __init__(self, end_to_end: bool = False) -> None:
        super().__init__()
        self.end_to_end = end_to_end
        self.boxes = nn.ModuleList(nn.Conv2d(8, 64, 1) for _ in range(2))
        self.classes = nn.ModuleList(nn.Sequential(block(8, 8), nn.Conv2d(8, CLASSES, 1)) for _ in range(2))
        self.bins = nn.Conv2d(16, 1, 1, bias=False)
        self.bins.weight.data = torch.arange(16.0).view(1, 16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.features(x)
        parts = [torch.cat([b(f), c(f)], 1) for b, c, f in zip(self.boxes, self.classes, levels, strict=True)]
        box, logits = torch.cat([p.view(p.shape[0], 64 + CLASSES, -1) for p in parts], 2).split((64, CLASSES), 1)
        d = self.bins(box.view(box.shape[0], 4, 16, -1).transpose(2, 1).softmax(1)).view(box.shape[0], 4, -1)
        points = [
            torch.stack(torch.meshgrid(torch.arange(n) + 0.5, torch.arange(n) + 0.5, indexing="xy")) for n in (8, 4)
        ]
        centre = torch.cat([p.flatten(1) for p in points], 1)[None]
        stride = torch.cat([torch.full((1, 1, n * n), 32.0 / n) for n in (8, 4)], 2)
        first, last = d.chunk(2, 1)
        corners = torch.cat((centre - first, centre + last), 1) * stride
        if not self.end_to_end:
            return torch.cat((corners, logits.sigmoid()), 1)
        p, corners = logits.sigmoid().transpose(1, 2), corners.transpose(1, 2)
        index = p.amax(-1).topk(9, 1).indices.unsqueeze(-1)
        p, corners = p.gather(1, index.expand(-1, -1, CLASSES)), corners.gather(1, index.expand(-1, -1, 4))
        best, place = p.flatten(1).topk(9, 1)
        cell = (place // CLASSES).unsqueeze(-1).expand(-1, -1, 4)
        return torch.cat([corners.gather(1, cell), best[..., None], (place % CLASSES)[..., None].float()], -1)


class Fcos(Levels):
    """√(class × centre-ness), and boxes behind an exponential with a scale for each level."""

    def __init__(self) -> None:
        super().__init__()
        self.cls, self.box, self.centre = (nn.Conv2d(8, n, 3, 1, 1) for n in (CLASSES, 4, 1))
        self.scales = nn.Parameter(torch.tensor([1.3, 1.7]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def rows(y: Tensor) -> Tensor:
            return y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, y.shape[1])

        levels = self.features(x)
        p = [torch.sqrt(rows(self.cls(f).sigmoid()) * rows(self.centre(f).sigmoid())) for f in levels]
        boxes = [rows((self.box(f) * s).exp()) for f, s in zip(levels, (self.scales[0], self.scales[1]), strict=True)]
        return torch.cat(p, 1), torch.cat(boxes, 1)


class YuNet(Levels):
    """One convolution a level, cut into class, objectness, box and landmarks of one face a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = [
            h(f).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 16)
            for h, f in zip(self.heads, self.features(x), strict=True)
        ]
        squashed = [y[..., k : k + 1].sigmoid() for k in (0, 1) for y in rows]
        return (*squashed, *(y[..., 2:6] for y in rows), *(y[..., 6:] for y in rows))


class Faces(Levels):
    """Two anchors of box, objectness, points and classes: a Sigmoid over some columns, boxes and points in place."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(8, 2 * (15 + CLASSES), 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.decoded(h(f)) for h, f in zip(self.heads, self.features(x), strict=True)], 1)

    def decoded(self, y: Tensor) -> Tensor:
        batch, _, height, width = y.shape
        raw = y.view(batch, 2, 15 + CLASSES, height, width).permute(0, 1, 3, 4, 2).contiguous()
        made = torch.zeros_like(raw)
        made[..., 0:5] = raw[..., 0:5].sigmoid()
        made[..., 15:] = raw[..., 15:].sigmoid()
        made[..., 5:15] = raw[..., 5:15]
        grid = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), 2).float()
        made[..., 0:2] = (made[..., 0:2] * 2 - 0.5 + grid) * 4
        made[..., 2:4] = (made[..., 2:4] * 2) ** 2 * 8
        for k in range(5, 15, 2):
            made[..., k : k + 2] = made[..., k : k + 2] * 4 + grid * 4
        return made.view(batch, -1, 15 + CLASSES)


class Anchors(Levels):
    """Raw maps of classes and boxes of three anchors for each level, as edge runtimes want them."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.ModuleList(nn.Conv2d(8, 3 * CLASSES, 3, 1, 1) for _ in range(2))
        self.box = nn.ModuleList(nn.Conv2d(8, 3 * 4, 3, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = self.features(x)
        classes = [c(f) for c, f in zip(self.cls, levels, strict=True)]
        return (*classes, *(b(f) for b, f in zip(self.box, levels, strict=True)))


class Detr(Levels):
    """Two decoders of six queries: raw logits of the classes and of none, and boxes behind a Sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 6, 8))
        self.decoders = nn.ModuleList(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2))
        self.cls, self.box = nn.Linear(8, CLASSES + 1), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        memory, q = self.features(x)[1].flatten(2).transpose(1, 2), self.queries.expand(x.shape[0], -1, -1)
        for decoder in self.decoders:
            q = decoder(q, memory)
        return self.cls(q), self.box(q).sigmoid()


class Vector(nn.Module):  # type: ignore[misc]
    """A small CNN with a linear layer, and an ending."""

    def __init__(self, ending: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Sequential(block(3, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.trunk(x))


class Autoencoder(nn.Module):  # type: ignore[misc]
    """Down by four, up by four, and a Sigmoid for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(block(3, 8, 2), block(8, 2, 2))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class SideBySide(nn.Module):  # type: ignore[misc]
    """The mean of the probabilities of two networks of different depth."""

    def __init__(self) -> None:
        super().__init__()
        parts = [nn.Sequential(block(3, 6, 2)), nn.Sequential(block(3, 8, 2), block(8, 8, 2))]
        self.parts = nn.ModuleList(
            nn.Sequential(p, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, CLASSES))
            for p, n in zip(parts, (6, 8), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x).softmax(1) for part in self.parts]).mean(0)


NETS: dict[str, Callable[[], nn.Module]] = {
    "yolov8": YoloV8,
    "yolov10": lambda: YoloV8(end_to_end=True),
    "fcos": Fcos,
    "yunet": YuNet,
    "faces": Faces,
    "anchors": Anchors,
    "detr": Detr,
    "embedding": lambda: Vector(lambda y: F.normalize(y, dim=1)),
    "pose": lambda: Vector(lambda y: torch.tanh(y) * 90),
    "logits": lambda: Vector(nn.Identity()),
    "autoencoder": Autoencoder,
    "mean of softmaxes": SideBySide,
}
