"""Copies of an input that smoothing averages over, and the batches in which they are run for the same targets.

The first line of each docstring in ``SMOOTHING_COPIES`` says what a smoothing does and where it comes from: the table
in the documentation is made of these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError

Array = npt.NDArray[Any]
T = TypeVar("T")  # what a row explains: a class index, or the target that was settled for the row

FACTORS, MIRRORED = (0.9, 1.0, 1.1), (False, True)
MAX_IMAGES = 16  # in one run: more images need memory and are not quicker on a CPU
MAX_VALUES = 2**24  # of the input, in one run: of large images and volumes fewer are run together


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on an input: ``samples`` copies, σ = ``scale`` · (max − min) of each image.

    Smilkov et al. 2017, arXiv:1706.03825.

    Attributes:
        samples: how many copies, at least 1.
        scale: σ as a share of the range of values of an image's own input tensor, above 0 and finite.
        seed: equal seeds give equal noise, to the bit.

    Raises:
        MethodError: a number is out of its range.
    """

    samples: int = 25
    scale: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "samples": (is_whole(self.samples) and self.samples >= 1, "a whole number from 1"),
            "scale": (0 < self.scale < float("inf"), "a number above 0, as a share of the range of the input"),
            "seed": (is_whole(self.seed) and self.seed >= 0, "a whole number from 0"),
        }
        for name, (fits, hint) in limits.items():
            if not fits:
                value = getattr(self, name)
                raise MethodError(f"noise with {name} {value!r}", hint=hint, **{name: value})


def is_whole(number: object) -> bool:
    """Tell whether an option is a whole number."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def noisy_copies(x: Array, noise: Noise) -> Iterator[Array]:
    """Yield the noisy copies of ``x`` (N, …), one after the other, each in the shape and dtype of ``x``.

    Copy number s of every image gets the same standard noise, drawn from (seed, s) and scaled by the range of that
    image. So an image gets the same noise in a batch as alone. Floats are not clipped. Integers are rounded, and
    clipped to the range of their dtype.
    """
    axes = tuple(range(1, x.ndim))
    wide = x.astype(np.float64)
    sigma = noise.scale * (wide.max(axis=axes, keepdims=True) - wide.min(axis=axes, keepdims=True))
    for number in range(noise.samples):
        standard = np.random.default_rng([noise.seed, number]).standard_normal(x.shape[1:])
        yield _convert(wide + sigma * standard, x.dtype)


def augmented_copies(x: Array, width: int) -> Iterator[Array]:
    """Yield ``x`` times each of ``FACTORS``, as it is, and then the same mirrored along the axis ``width``.

    The copies have the dtype of ``x``; integers are rounded and clipped as in ``noisy_copies``. The factor is applied
    to the model's input tensor, as in pytorch-grad-cam: after a preprocessing that subtracts the mean colour it changes
    the contrast, not the brightness.
    """
    for is_mirrored in MIRRORED:
        view = np.flip(x, width) if is_mirrored else x
        for factor in FACTORS:
            yield _convert(view * np.float64(factor), x.dtype)


def _convert(x: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        x = np.clip(np.rint(x), limits.min, limits.max)
    return x.astype(dtype)


def batches(
    copies: Iterable[Mapping[str, Array]],
    feeds: Mapping[str, Array],
    name: str,
    targets: list[T],
    shared: Sequence[str] = (),
) -> Iterator[tuple[dict[str, Array], list[T], int]]:
    """Yield what is run for ``copies`` of inputs: feeds, targets, and how many copies they hold.

    A batch holds at most ``MAX_IMAGES`` images and ``MAX_VALUES`` numbers, but always at least one copy. The copies lie
    one behind the other: a result with one row for each (image, target) reshapes to (copies, rows, …).

    Args:
        copies: arrays by input name, each of the shape that it has in ``feeds``, (N, …); all copies are of the same
            inputs.
        feeds: arrays by input name, for the N images.
        name: the input that holds the images.
        targets: for each of the N images its targets.
        shared: the inputs without a batch axis, which are passed on as they are; all others are repeated.
    """
    remaining = iter(copies)
    each = max(1, min(MAX_IMAGES // len(feeds[name]), MAX_VALUES // feeds[name].size))
    while batch := list(islice(remaining, each)):
        count = len(batch)
        copied = {key: np.concatenate([copy[key] for copy in batch]) for key in batch[0]}
        others = {
            key: value if key in shared else np.concatenate([value] * count)
            for key, value in feeds.items()
            if key not in copied
        }
        yield {**others, **copied}, targets * count, count


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of the image input.

    Attributes:
        arrays: the copies, one after the other, each (N, …).
        mirrored: for each copy whether it is mirrored, so that its cam has to be mirrored back.
    """

    arrays: Iterable[Array]
    mirrored: Sequence[bool]


def aug(x: Array, space: Sequence[int], settings: Noise) -> Copies:
    """mean over x · 0.9, x and x · 1.1, each as it is and mirrored.   pytorch-grad-cam, aug_smooth.

    The cams of mirrored copies are mirrored back. Two things differ from pytorch-grad-cam: the class is chosen once, by
    the input itself, and cams are averaged in the score's units, before they are scaled. As there, the factor is
    applied to the model's input tensor: after a preprocessing that subtracts the mean colour it changes the contrast.
    For a dense output each copy explains its own cell.

    Args:
        x: (N, …), the image input.
        space: the axes of x that are space; the last one is mirrored.
        settings: not used by this smoothing.

    Raises:
        MethodError: x has fewer than two spatial axes.
    """
    if len(space) < 2:
        raise MethodError(
            "smoothing by 'aug' mirrors images left to right, but the input has only one spatial axis",
            hint="smoothing by 'noise' or 'eigen'",
            smooth="aug",
        )
    mirrored = [is_mirrored for is_mirrored in MIRRORED for _ in FACTORS]
    return Copies(augmented_copies(x, space[-1]), mirrored)


def noise(x: Array, space: Sequence[int], settings: Noise) -> Copies:
    """mean over noisy copies of x.   Smilkov et al. 2017, arXiv:1706.03825, of cams.

    ``samples`` copies (25); ``noise``: σ as a share of the range of values of each image's own tensor (0.15); ``seed``
    (0): equal seeds give equal maps. The class is chosen without noise.

    Args:
        x: (N, …), the image input.
        space: not used by this smoothing.
        settings: how many copies, how much noise, and the seed.
    """
    return Copies(noisy_copies(x, settings), [False] * settings.samples)


SMOOTHING_COPIES: Mapping[str, Callable[[Array, Sequence[int], Noise], Copies]] = {"aug": aug, "noise": noise}
