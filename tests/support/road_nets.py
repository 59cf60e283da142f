"""A torch network with strides, pads, pools, blocks and SiLU, and its export by the torch road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from exports import quiet
from torch import nn

import onnx_gradcam as ogc


class Block(nn.Module):  # type: ignore[misc]
    """The rectifier is one module, called twice, and in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.conv2(y) + x)


class Net(nn.Module):  # type: ignore[misc]
    """Strides, pads, pools, a block, SiLU and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.block = Block(8)
        self.tail = nn.Sequential(nn.Conv2d(8, 6, 3, 2, 1), nn.SiLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False))
        self.head = nn.Linear(6 * 4, 4)

    def logits(self, x: Any) -> Any:
        x = self.tail(self.block(self.stem(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))

    def forward(self, x: Any) -> Any:
        return self.logits(x).softmax(1)


def seeded(make: Any) -> Any:
    torch.manual_seed(0)
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 2)
    return module


def export(module: Any, path: Path, layer: Any, x: Any, **settings: Any) -> Path:
    with quiet():
        return ogc.roads.torch.export(module, (x,), path, layer, **settings)
