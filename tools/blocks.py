"""What the architectures are made of: a network of two parts, its random weights, and its blocks.

Rectifiers are not in place, so that hooks see what ONNX values hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

Module = Any
Kernel = int | tuple[int, int]


class Network(nn.Module):  # type: ignore[misc]
    """Logits = head(features(x)), x float32 (N, 3, size, size), in eval mode, with weights from a fixed seed.

    ``last_stage``: the submodule whose output is the end of the last convolutional stage.
    """

    last_stage = "features"

    def __init__(self, features: Module, head: Iterable[Module], size: int) -> None:
        super().__init__()
        self.features, self.head, self.size = features, nn.Sequential(*head), size
        randomise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def randomise(network: Network) -> None:
    """He-normal weights; BatchNorm statistics of a random batch, perturbed: activations keep their scale.

    The same for every run. Biases and per-channel factors are uniform, around 0 and around 1.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            bounds = (-0.1, 0.1) if name.endswith("bias") else (0.8, 1.2)
            parameter.data = uniform(parameter.data, *bounds)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        count = max(2, 512 // network.size)
        with torch.no_grad():
            network.train()(torch.randn(count, 3, network.size, network.size, generator=generator))
    for norm in norms:
        norm.running_mean += norm.running_var.sqrt() * uniform(norm.running_mean, -0.1, 0.1)
        norm.running_var *= uniform(norm.running_var, 0.8, 1.25)
    network.eval()


class Residual(nn.Module):  # type: ignore[misc]
    """act(body(x) + shortcut(x))."""

    def __init__(self, body: Module, shortcut: Module | None = None, act: type[Module] = nn.Identity) -> None:
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class Branches(nn.Module):  # type: ignore[misc]
    """The branches' outputs, concatenated over channels."""

    def __init__(self, *branches: Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SqueezeExcite(nn.Module):  # type: ignore[misc]
    """x · gate(W₂ · act(W₁ · mean of x over space)).   Hu et al. 2018, eq. 2 to 4."""

    def __init__(self, channels: int, squeezed: int, act: type[Module], gate: type[Module]) -> None:
        super().__init__()
        narrow, widen = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), narrow, act(), widen, gate())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class ShuffleUnit(nn.Module):  # type: ignore[misc]
    """Concatenate left(x) and right(x), and shuffle the channels.   Ma et al. 2018, fig. 3.

    Without ``left``, x is split: one half is kept, the other goes to the right.
    """

    def __init__(self, right: Module, left: Module | None = None) -> None:
        super().__init__()
        self.right, self.left = right, left

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, dim=1) if self.left is None else (self.left(x), x)
        joined = torch.cat([kept, self.right(changed)], dim=1)
        n, c, h, w = joined.shape
        return joined.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class SpatialMean(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class Permute(nn.Module):  # type: ignore[misc]
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.axes)


class LayerScale(nn.Module):  # type: ignore[misc]
    """γ · x over the last axis.   Touvron et al. 2021, eq. 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def half(kernel: Kernel) -> Kernel:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def conv(
    inputs: int,
    outputs: int,
    kernel: Kernel = 3,
    stride: int = 1,
    pad: Kernel | None = None,
    groups: int = 1,
    act: type[Module] = nn.ReLU,
) -> Module:
    """Convolution, BatchNorm, activation; padded by half the kernel unless ``pad`` is given."""
    padding = half(kernel) if pad is None else pad
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, momentum=1.0), act())


def plain(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pad: int | None = None) -> Module:
    """Convolution with bias, and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, half(kernel) if pad is None else pad), nn.ReLU())


def chain(c: Callable[[int], int], inputs: int, steps: Iterable[Any], unit: Callable[..., Module] = conv) -> Any:
    """The steps in sequence, and their number of output channels.

    A step is the arguments of a ``unit`` (outputs, kernel, stride, pad), a module that keeps the channels, or
    a list of chains whose outputs are concatenated. ``c`` scales channel counts.
    """
    layers = []
    for step in steps:
        if isinstance(step, list):
            parts = [chain(c, inputs, row, unit) for row in step]
            layers.append(Branches(*(part for part, _ in parts)))
            inputs = sum(outputs for _, outputs in parts)
        elif isinstance(step, tuple):
            layers.append(unit(inputs, inputs := c(step[0]), *step[1:]))
        else:
            layers.append(step)
    return nn.Sequential(*layers), inputs


def inverted(
    inputs: int,
    hidden: int,
    outputs: int,
    kernel: int,
    stride: int,
    act: type[Module],
    gate: Module | None = None,
) -> Module:
    """Expand, depthwise, gate, project; with a shortcut where it fits.   Sandler et al. 2018, table 1."""
    expand = [conv(inputs, hidden, 1, act=act)] if hidden != inputs else []
    depthwise = conv(hidden, hidden, kernel, stride, groups=hidden, act=act)
    project = conv(hidden, outputs, 1, act=nn.Identity)
    body = nn.Sequential(*expand, depthwise, *([gate] if gate else []), project)
    return Residual(body) if stride == 1 and inputs == outputs else body


def pooled(channels: int, num_classes: int) -> list[Module]:
    """Global average pooling and one linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


def dense(inputs: int, hidden: int, num_classes: int) -> list[Module]:
    """Three linear layers, without the dropout, which is nothing in eval mode."""
    first, second, last = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, num_classes)
    return [nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last]


def scaler(width: float, divisor: int = 8) -> Callable[[int], int]:
    """Multiply a channel count by ``width``, to the nearest positive multiple of ``divisor``."""
    return lambda count: max(divisor, int(count * width / divisor + 0.5) * divisor)
