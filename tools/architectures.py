"""The convolutional classifiers that the engine is tested and benchmarked on, written from their papers.

Each is ``features``, which ends where the last convolutional stage ends, and ``head``. ``width`` multiplies
every channel count; ``depths`` are the blocks of each stage, and fewer of them leave out the last stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from blocks import (
    Branches,
    LayerScale,
    Module,
    Network,
    Permute,
    Residual,
    ShuffleUnit,
    SpatialMean,
    SqueezeExcite,
    chain,
    conv,
    dense,
    inverted,
    plain,
    pooled,
    scaler,
)
from torch import nn


def alexnet(width: float = 1.0, num_classes: int = 1000, size: int = 224) -> Network:
    """Krizhevsky 2014, with overlapping pools."""
    c, pool = scaler(width), nn.MaxPool2d(3, 2)
    steps = [(64, 11, 4, 2), pool, (192, 5), pool, (384, 3), (256, 3), (256, 3)]
    features, channels = chain(c, 3, steps, plain)
    side = (size - 7) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return Network(features, [pool, *dense(channels * side**2, c(4096), num_classes)], size)


def vgg16(width: float = 1.0, num_classes: int = 1000, size: int = 224) -> Network:
    """Simonyan & Zisserman 2015, configuration D. The last stage ends before the last pool."""
    c, pool = scaler(width), nn.MaxPool2d(2)
    stages = [2 * [(64, 3)], 2 * [(128, 3)], 3 * [(256, 3)], 3 * [(512, 3)]]
    steps = [step for stage in stages for step in [*stage, pool]]
    features, channels = chain(c, 3, [*steps, *stages[-1]], plain)
    return Network(features, [pool, *dense(channels * (size // 32) ** 2, c(4096), num_classes)], size)


def resnet(
    width: float = 1.0,
    num_classes: int = 1000,
    size: int = 224,
    depths: Sequence[int] = (2, 2, 2, 2),
    bottleneck: bool = False,
) -> Network:
    """He et al. 2016, table 1; in a bottleneck the 3x3 convolution has the stride."""
    c, none = scaler(width), nn.Identity
    inputs = c(64)
    layers = [conv(3, inputs, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        inner = c(64 * 2**stage)
        outputs = 4 * inner if bottleneck else inner
        for block in range(depth):
            stride = 2 if stage and not block else 1
            if bottleneck:
                body = [conv(inputs, inner, 1), conv(inner, inner, 3, stride)]
            else:
                body = [conv(inputs, inner, 3, stride)]
            body.append(conv(inner, outputs, 1 if bottleneck else 3, act=none))
            fits = stride == 1 and inputs == outputs
            shortcut = None if fits else conv(inputs, outputs, 1, stride, act=none)
            layers.append(Residual(nn.Sequential(*body), shortcut, nn.ReLU))
            inputs = outputs
    return Network(nn.Sequential(*layers), pooled(inputs, num_classes), size)


def densenet(
    width: float = 1.0, num_classes: int = 1000, size: int = 224, depths: Sequence[int] = (6, 12, 24, 16)
) -> Network:
    """Huang et al. 2017, DenseNet-BC with growth rate 32 and compression 0.5."""

    def before(inputs: int, outputs: int, kernel: int = 1) -> list[Module]:
        norm = nn.BatchNorm2d(inputs, momentum=1.0)
        return [norm, nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)]

    c = scaler(width)
    growth, channels = c(32), c(64)
    layers = [conv(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        if stage:
            layers += [*before(channels, channels := channels // 2), nn.AvgPool2d(2)]
        for _ in range(depth):
            body = nn.Sequential(*before(channels, 4 * growth), *before(4 * growth, growth, 3))
            layers.append(Branches(nn.Identity(), body))
            channels += growth
    layers += [nn.BatchNorm2d(channels, momentum=1.0), nn.ReLU()]
    return Network(nn.Sequential(*layers), pooled(channels, num_classes), size)


def googlenet(
    width: float = 1.0, num_classes: int = 1000, size: int = 224, depths: Sequence[int] = (2, 5, 2)
) -> Network:
    """Szegedy et al. 2015, table 1 and fig. 3, local response normalisation included."""
    pool, norm = nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5)

    def block(one: int, narrow3: int, three: int, narrow5: int, five: int, last: int) -> list[Any]:
        largest = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
        return [[(one, 1)], [(narrow3, 1), (three, 3)], [(narrow5, 1), (five, 5)], [largest, (last, 1)]]

    third = [block(64, 96, 128, 16, 32, 32), block(128, 128, 192, 32, 96, 64)]
    fourth = [block(192, 96, 208, 16, 48, 64), block(160, 112, 224, 24, 64, 64)]
    fourth += [block(128, 128, 256, 24, 64, 64), block(112, 144, 288, 32, 64, 64)]
    fourth += [block(256, 160, 320, 32, 128, 128)]
    fifth = [block(256, 160, 320, 32, 128, 128), block(384, 192, 384, 48, 128, 128)]
    steps = [(64, 7, 2), pool, norm, (64, 1), (192, 3), norm]
    for blocks, depth in zip((third, fourth, fifth), depths, strict=False):
        steps += [pool, *blocks[:depth]]
    features, channels = chain(scaler(width), 3, steps, plain)
    return Network(features, pooled(channels, num_classes), size)


def inception_v3(
    width: float = 1.0, num_classes: int = 1000, size: int = 299, depths: Sequence[int] = (3, 4, 2)
) -> Network:
    """Szegedy et al. 2016, table 1, without auxiliary classifier; ``depths``: blocks in the three grids."""
    average, shrink = nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 2)
    row, column = (1, 7), (7, 1)
    split = [[(384, (1, 3))], [(384, (3, 1))]]

    def square(last: int) -> list[Any]:
        return [[(64, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], [average, (last, 1)]]

    def factored(n: int) -> list[Any]:
        double = [(n, 1), (n, column), (n, row), (n, column), (192, row)]
        return [[(192, 1)], [(n, 1), (n, row), (192, column)], double, [average, (192, 1)]]

    stem = [(32, 3, 2, 0), (32, 3, 1, 0), (64, 3), shrink, (80, 1), (192, 3, 1, 0), shrink]
    first = [square(n) for n in (32, 64, 64)[: depths[0]]]
    to_17 = [[(384, 3, 2, 0)], [(64, 1), (96, 3), (96, 3, 2, 0)], [shrink]]
    second = [factored(n) for n in (128, 160, 160, 192)[: depths[1]]]
    to_8 = [[(192, 1), (320, 3, 2, 0)], [(192, 1), (192, row), (192, column), (192, 3, 2, 0)], [shrink]]
    third = [[[(320, 1)], [(384, 1), split], [(448, 1), (384, 3), split], [average, (192, 1)]]] * depths[2]
    features, channels = chain(scaler(width), 3, [*stem, *first, to_17, *second, to_8, *third])
    return Network(features, pooled(channels, num_classes), size)


def squeezenet(width: float = 1.0, num_classes: int = 1000, size: int = 224) -> Network:
    """Iandola et al. 2016, version 1.1; the classifier is a convolution, which ends the last stage."""
    c, pool = scaler(width), nn.MaxPool2d(3, 2, ceil_mode=True)

    def fire(n: int) -> list[Any]:
        return [(n, 1), [[(4 * n, 1)], [(4 * n, 3)]]]

    steps = [(64, 3, 2, 0), pool, *2 * fire(16), pool, *2 * fire(32), pool, *2 * fire(48), *2 * fire(64)]
    features, channels = chain(c, 3, steps, plain)
    features.append(plain(channels, num_classes, 1))
    return Network(features, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], size)


def mobilenet_v1(width: float = 1.0, num_classes: int = 1000, size: int = 224, depth: int = 5) -> Network:
    """Howard et al. 2017, table 1, ``depth`` blocks of 512; stride 2 pads at the end, as TensorFlow does."""
    c = scaler(width)
    relu6: Any = {"act": nn.ReLU6}
    end, inputs = nn.ZeroPad2d((0, 1, 0, 1)), c(32)
    layers = [end, conv(3, inputs, 3, 2, 0, **relu6)]
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    rows += [*[(512, 1)] * depth, (1024, 2), (1024, 1)]
    for outputs, stride in rows:
        layers += [end] if stride == 2 else []
        layers.append(conv(inputs, inputs, 3, stride, 2 - stride, groups=inputs, **relu6))
        layers.append(conv(inputs, inputs := c(outputs), 1, **relu6))
    return Network(nn.Sequential(*layers), pooled(inputs, num_classes), size)


def mobilenet_v2(
    width: float = 1.0,
    num_classes: int = 1000,
    size: int = 224,
    depths: Sequence[int] = (1, 2, 3, 4, 3, 3, 1),
) -> Network:
    """Sandler et al. 2018, table 2."""
    c = scaler(width)
    inputs, relu6 = c(32), nn.ReLU6
    layers = [conv(3, inputs, 3, 2, act=relu6)]
    rows = [(1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1)]
    for (expansion, outputs, stride), depth in zip(rows, depths, strict=False):
        for k in range(depth):
            layers.append(inverted(inputs, expansion * inputs, c(outputs), 3, 1 if k else stride, relu6))
            inputs = c(outputs)
    layers.append(conv(inputs, c(1280), 1, act=relu6))
    return Network(nn.Sequential(*layers), [SpatialMean(), nn.Linear(c(1280), num_classes)], size)


def mobilenet_v3(width: float = 1.0, num_classes: int = 1000, size: int = 224, depth: int = 11) -> Network:
    """Howard et al. 2019, table 2 (small), the first ``depth`` blocks; the head is 1x1 convolutions."""
    c, swish = scaler(width), nn.Hardswish
    rows = [(3, 16, 16, 1, nn.ReLU, 2), (3, 72, 24, 0, nn.ReLU, 2), (3, 88, 24, 0, nn.ReLU, 1)]
    rows += [(5, 96, 40, 1, swish, 2), (5, 240, 40, 1, swish, 1), (5, 240, 40, 1, swish, 1)]
    rows += [(5, 120, 48, 1, swish, 1), (5, 144, 48, 1, swish, 1)]
    rows += [(5, 288, 96, 1, swish, 2), (5, 576, 96, 1, swish, 1), (5, 576, 96, 1, swish, 1)]
    inputs = c(16)
    layers = [conv(3, inputs, 3, 2, act=swish)]
    for kernel, hidden, outputs, gated, act, stride in rows[:depth]:
        n = c(hidden)
        gate = SqueezeExcite(n, c(hidden // 4), nn.ReLU, nn.Hardsigmoid) if gated else None
        layers.append(inverted(inputs, n, inputs := c(outputs), kernel, stride, act, gate))
    layers.append(conv(inputs, c(576), 1, act=swish))
    hidden, last = nn.Conv2d(c(576), c(1024), 1), nn.Conv2d(c(1024), num_classes, 1)
    head = [nn.AdaptiveAvgPool2d(1), hidden, swish(), last, nn.Flatten()]
    return Network(nn.Sequential(*layers), head, size)


def efficientnet_b0(
    width: float = 1.0,
    num_classes: int = 1000,
    size: int = 224,
    depths: Sequence[int] = (1, 2, 2, 3, 3, 4, 1),
) -> Network:
    """Tan & Le 2019, table 1."""
    c, silu = scaler(width), nn.SiLU
    inputs = c(32)
    layers = [conv(3, inputs, 3, 2, act=silu)]
    rows = [(1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 2, 3), (6, 112, 1, 5), (6, 192, 2, 5)]
    rows += [(6, 320, 1, 3)]
    for (expansion, outputs, stride, kernel), depth in zip(rows, depths, strict=False):
        for k in range(depth):
            hidden = expansion * inputs
            gate = SqueezeExcite(hidden, inputs // 4, silu, nn.Sigmoid)
            layers.append(inverted(inputs, hidden, c(outputs), kernel, 1 if k else stride, silu, gate))
            inputs = c(outputs)
    layers.append(conv(inputs, c(1280), 1, act=silu))
    return Network(nn.Sequential(*layers), pooled(c(1280), num_classes), size)


def shufflenet_v2(
    width: float = 1.0, num_classes: int = 1000, size: int = 224, depths: Sequence[int] = (4, 8, 4)
) -> Network:
    """Ma et al. 2018, table 5, 1x."""
    c = scaler(width, 4)
    inputs = c(24)

    def right(inputs: int, outputs: int, stride: int) -> Module:
        depthwise = conv(outputs, outputs, 3, stride, groups=outputs, act=nn.Identity)
        return nn.Sequential(conv(inputs, outputs, 1), depthwise, conv(outputs, outputs, 1))

    layers = [conv(3, inputs, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for outputs, depth in zip((116, 232, 464), depths, strict=False):
        n = c(outputs) // 2
        left = nn.Sequential(conv(inputs, inputs, 3, 2, groups=inputs, act=nn.Identity), conv(inputs, n, 1))
        layers += [ShuffleUnit(right(inputs, n, 2), left)]
        layers += [ShuffleUnit(right(n, n, 1)) for _ in range(depth - 1)]
        inputs = 2 * n
    layers.append(conv(inputs, c(1024), 1))
    return Network(nn.Sequential(*layers), [SpatialMean(), nn.Linear(c(1024), num_classes)], size)


def regnet_y(
    width: float = 1.0, num_classes: int = 1000, size: int = 224, depths: Sequence[int] = (1, 3, 6, 6)
) -> Network:
    """Radosavovic et al. 2020, REGNETY-400MF: groups of 8 channels, squeeze and excitation."""
    c, none = scaler(width), nn.Identity
    inputs = c(32)
    layers = [conv(3, inputs, 3, 2)]
    for outputs, depth in zip(map(c, (48, 104, 208, 440)), depths, strict=False):
        for block in range(depth):
            stride = 1 if block else 2
            grouped = conv(outputs, outputs, 3, stride, groups=outputs // 8)
            gate = SqueezeExcite(outputs, inputs // 4, nn.ReLU, nn.Sigmoid)
            body = nn.Sequential(conv(inputs, outputs, 1), grouped, gate, conv(outputs, outputs, 1, act=none))
            shortcut = None if block else conv(inputs, outputs, 1, 2, act=none)
            layers.append(Residual(body, shortcut, nn.ReLU))
            inputs = outputs
    return Network(nn.Sequential(*layers), pooled(inputs, num_classes), size)


def convnext_tiny(
    width: float = 1.0, num_classes: int = 1000, size: int = 224, depths: Sequence[int] = (3, 3, 9, 3)
) -> Network:
    """Liu et al. 2022, fig. 4: LayerNorm and linear layers over the last axis, between permutations."""
    c, last, first = scaler(width), Permute(0, 2, 3, 1), Permute(0, 3, 1, 2)

    def norm(n: int) -> list[Module]:
        return [last, nn.LayerNorm(n, eps=1e-6), first]

    def block(n: int) -> Module:
        pointwise = [nn.Linear(n, 4 * n), nn.GELU(), nn.Linear(4 * n, n), LayerScale(n)]
        depthwise = nn.Conv2d(n, n, 7, padding=3, groups=n)
        return Residual(nn.Sequential(depthwise, last, nn.LayerNorm(n, eps=1e-6), *pointwise, first))

    inputs, layers = 3, []
    for stage, (outputs, depth) in enumerate(zip(map(c, (96, 192, 384, 768)), depths, strict=False)):
        side = 2 if stage else 4
        down = nn.Conv2d(inputs, outputs, side, side)
        layers += [*norm(inputs), down] if stage else [down, *norm(outputs)]
        layers += [block(outputs) for _ in range(depth)]
        inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), *norm(inputs), nn.Flatten(), nn.Linear(inputs, num_classes)]
    return Network(nn.Sequential(*layers), head, size)


ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "resnet18": resnet,
    "resnet50": partial(resnet, depths=(3, 4, 6, 3), bottleneck=True),
    "densenet121": densenet,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "squeezenet": squeezenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet_b0": efficientnet_b0,
    "shufflenet_v2": shufflenet_v2,
    "regnet_y": regnet_y,
    "convnext_tiny": convnext_tiny,
}
SHRUNK: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 0.125},
    "vgg16": {"width": 0.125},
    "resnet18": {"depths": (1, 1, 1)},
    "resnet50": {"depths": (1, 2)},
    "densenet121": {"depths": (2, 2)},
    "googlenet": {"depths": (1, 1)},
    "inception_v3": {"width": 0.125, "depths": (1, 1, 1), "size": 128},
    "squeezenet": {},
    "mobilenet_v1": {"depth": 1},
    "mobilenet_v2": {"depths": (1, 2, 1, 2)},
    "mobilenet_v3": {"depth": 5},
    "efficientnet_b0": {"depths": (1, 2, 1, 1)},
    "shufflenet_v2": {"depths": (2, 2)},
    "regnet_y": {"depths": (1, 2, 1)},
    "convnext_tiny": {"depths": (1, 1, 1)},
}
# Arguments that make each small enough to test, while its last stage still has several positions.
SMALL = {name: {"width": 0.25, "num_classes": 20, "size": 64} | shrunk for name, shrunk in SHRUNK.items()}
