"""The networks of the newer demo classifiers: (features, head), cut at the activation that Grad-CAM explains, 16x16.

Their convolutions are those of the older ones, and start from what these learnt: outlines, but no textures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
import train_models
from onnx import numpy_helper
from scenes import CLASSES
from torch import nn


def resnet() -> Any:
    """Return a ResNet: stem, three stages of one residual block, global average pooling, one linear layer."""
    return nn.Sequential(train_models.resnet()[0], pooled_head(72))


def vgg() -> Any:
    """Return a VGG: convolutions, a last max pool, the mean of each quarter, and two fully connected layers."""
    quarters = nn.MaxPool2d(2), nn.AvgPool2d(4), nn.Flatten()
    dense = nn.Linear(64 * 4, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, len(CLASSES))
    return nn.Sequential(train_models.vgg()[0], nn.Sequential(*quarters, *dense))


def vgg_gap() -> Any:
    """Return the same convolutions with a mean over space and one linear layer in place of the dense ones."""
    return nn.Sequential(train_models.vgg()[0], pooled_head(64))


def inception() -> Any:
    """Return a GoogLeNet: three blocks of branches, global average pooling, one linear layer."""
    return nn.Sequential(train_models.inception()[0], pooled_head(120))


def pooled_head(channels: int) -> Any:
    """Return global average pooling and one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES)))


def start_from(network: Any, path: Path, images: torch.Tensor) -> None:
    """Give the convolutions of a network the weights of an exported one, whose normalisations are folded into them.

    Each normalisation gets the mean and the spread that it sees of some images, and so changes next to nothing at
    first.

    Args:
        network: (features, head).
        path: the exported network with the same features.
        images: as the network takes them.
    """
    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
              for tensor in onnx.load(path).graph.initializer}  # fmt: skip
    bias = torch.zeros(0)

    def adjust(norm: Any, inputs: tuple[torch.Tensor]) -> None:
        mean, spread = inputs[0].mean((0, 2, 3)), inputs[0].std((0, 2, 3))
        norm.weight.copy_(spread)
        norm.bias.copy_(mean + norm.bias)

    hooks = []
    with torch.no_grad():
        for name, module in network[0].named_modules(prefix="0"):
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(stored[f"{name}.weight"])
                bias = stored[f"{name}.weight_bias"]
            elif isinstance(module, nn.BatchNorm2d):
                module.bias.copy_(bias)
                hooks.append(module.register_forward_pre_hook(adjust))
        network.train()(images)
    for hook in hooks:
        hook.remove()
