"""Torch modules as ONNX models, and what torch autograd says of them."""

from __future__ import annotations

import copy
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from architectures import ARCHITECTURES, SMALL

torch.set_num_threads(1)  # these networks are small: waiting for a second thread takes longer than the work

Exporter = Literal["torchscript", "dynamo"]
EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")

# What the exporters of torch 2.13 say of themselves on every call: category, beginning of the message.
NOISE: tuple[tuple[type[Warning], str], ...] = (
    (DeprecationWarning, "You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, "The feature will be removed"),
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (FutureWarning, "_check_is_size will be removed"),
    (UserWarning, "Constant folding - Only steps=1 can be constant folded"),
    (UserWarning, "Exporting a model to ONNX with a batch_size other than 1, with a variable length"),
    (UserWarning, "Exporting aten::index operator of advanced indexing in opset"),
    (UserWarning, r"The tensor attributes self\.\w+\._flat_weights"),
    (torch.jit.TracerWarning, "Converting a tensor to a Python boolean"),
)


class TorchGradcam(NamedTuple):
    """Float arrays in the dtype asked for; gradients of the chosen logit of every image."""

    activation: np.ndarray
    gradient: np.ndarray
    logits: np.ndarray
    input_gradient: np.ndarray


@functools.cache
def small(name: str) -> Any:
    """The small architecture ``name``."""
    return ARCHITECTURES[name](**SMALL[name])


@functools.cache
def small_model(
    name: str,
    exporter: Exporter,
    dtype: torch.dtype = torch.float32,
    *,
    dynamic_batch: bool = True,
    opset: int | None = None,
) -> bytes:
    """The same as an ONNX model, exported once. In float64 the exporter folds BatchNorm without rounding."""
    network = copy.deepcopy(small(name)).to(dtype)
    x = torch.zeros(2 if dynamic_batch else 1, 3, network.size, network.size, dtype=dtype)
    return export(network, x, exporter, dynamic_batch=dynamic_batch, opset=opset)


def export(
    module: Any,
    x: torch.Tensor,
    exporter: Exporter,
    *,
    dynamic_batch: bool = True,
    opset: int | None = None,
    space: Sequence[str] = (),
) -> bytes:
    """Export ``module``: "x" in, "logits" out. No ``opset``: 17 for TorchScript, its own default for dynamo.

    ``space``: names for the spatial axes that are dynamic. A dynamic batch needs an ``x`` of two images or more: dynamo
    takes a batch of one for a constant.
    """
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["logits"]}
    file = io.BytesIO()
    named = {**({0: "N"} if dynamic_batch else {}), **dict(enumerate(space, 2))}
    with quiet():
        if exporter == "torchscript":
            axes = {"x": named, "logits": {0: "N"} if dynamic_batch else {}} if named else None
            torch.onnx.export(module, (x,), file, dynamo=False, opset_version=opset or 17, dynamic_axes=axes, **names)
        else:
            shapes = ({axis: torch.export.Dim(name) for axis, name in named.items()},) if named else None
            program = torch.onnx.export(
                module, (x,), dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False, **names
            )
            program.save(file)
    return file.getvalue()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the exporters' known warnings, and the log lines on torchvision, which is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category, message in NOISE:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        logger.setLevel(level)


def torch_gradcam(
    module: Any, x: np.ndarray, class_index: Sequence[int] | np.ndarray, dtype: torch.dtype
) -> TorchGradcam:
    """Activation at ``module.last_stage`` and the gradients there and at x, by hook and autograd.

    ``class_index``: one for each image of ``x`` (N, 3, H, W); -1 is the top-1 of that image.
    """
    module = copy.deepcopy(module).to(dtype)
    kept: list[torch.Tensor] = []
    module.get_submodule(module.last_stage).register_forward_hook(lambda _m, _x, y: kept.append(y))
    images = torch.tensor(x, dtype=dtype, requires_grad=True)
    logits = module(images)
    index = torch.tensor(class_index)
    index = torch.where(index < 0, logits.argmax(1), index)
    score = logits.gather(1, index[:, None]).sum()
    gradient, input_gradient = torch.autograd.grad(score, [kept[0], images])
    arrays = (kept[0], gradient, logits, input_gradient)
    return TorchGradcam(*(a.detach().numpy() for a in arrays))


# ------------------------------------------------------------------------------ images of the small architectures

SEEDS = range(9)
TOP_1 = (-1,) * 9


@functools.cache
def images(name: str) -> np.ndarray:
    """Return one image for each seed, float32 (N, 3, H, W)."""
    shape = (3, small(name).size, small(name).size)
    return np.stack([np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in SEEDS])


@functools.cache
def truth(name: str, class_index: tuple[int, ...]) -> TorchGradcam:
    """Return what torch says in float64."""
    return torch_gradcam(small(name), images(name), class_index, torch.float64)


@functools.cache
def ranked(name: str) -> tuple[int, ...]:
    """Return for image i the class of rank i mod 5, so that several ranks are explained in one batch."""
    order = truth(name, TOP_1).logits.argsort(1)[:, ::-1]
    return tuple(int(order[i, i % 5]) for i in range(len(order)))


def hardsigmoid(x: Any, inplace: bool) -> Any:
    """Compute torch's hardsigmoid with the alpha that ONNX has for 1/6: an attribute in float32."""
    return (float(np.float32(1 / 6)) * x + 0.5).clamp(0, 1)
