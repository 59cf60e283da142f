"""Copies of an input that smoothing averages over, and how they are run with the classes frozen.

The first line of the docstrings in ``COPIES`` says what a smoothing does and where it comes from: the table in the
documentation is made of these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError

Array = npt.NDArray[Any]
Classes = list[tuple[int, ...]]  # for each image the classes that are explained

FACTORS, MIRRORED = (0.9, 1.0, 1.1), (False, True)
TOGETHER = 16  # images of one run: more need memory and are not quicker on a CPU
VALUES = 2**24  # of the input, in one run: large images and volumes are run fewer at a time


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on an input: ``samples`` copies, σ = ``scale`` · (max − min) of each image.   Smilkov et al. 2017,
    arXiv:1706.03825.

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
        wanted = {
            "samples": (_is_whole(self.samples) and self.samples >= 1, "a whole number from 1"),
            "scale": (0 < self.scale < float("inf"), "a number above 0, as a share of the range of the input"),
            "seed": (_is_whole(self.seed) and self.seed >= 0, "a whole number from 0"),
        }
        for name, (fits, hint) in wanted.items():
            if not fits:
                given = getattr(self, name)
                raise MethodError(f"noise with {name} {given!r}", hint=hint, **{name: given})


def _is_whole(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def noisy(x: Array, noise: Noise) -> Iterator[Array]:
    """The noisy copies of ``x`` (N, …), one after the other, each in its shape and dtype.

    Copy number s of every image gets the same standard noise, drawn from (seed, s) and scaled by the image's own range:
    an image gets in a batch what it gets alone, whatever is computed together. Floats are not clipped; integers are
    rounded, and clipped to the range of their dtype.
    """
    axes = tuple(range(1, x.ndim))
    wide = x.astype(np.float64)
    sigma = noise.scale * (wide.max(axis=axes, keepdims=True) - wide.min(axis=axes, keepdims=True))
    for number in range(noise.samples):
        standard = np.random.default_rng([noise.seed, number]).standard_normal(x.shape[1:])
        yield _as(wide + sigma * standard, x.dtype)


def augmented(x: Array, width: int) -> Iterator[Array]:
    """x times each of ``FACTORS``, for each of ``MIRRORED``: as it is, and mirrored along the axis ``width``.

    The copies have the dtype of x, integers as in ``noisy``. The factor is applied to the model's input tensor, as in
    pytorch-grad-cam: behind a preprocessing that subtracts the mean colour it changes the contrast, not the brightness.
    """
    for is_mirrored in MIRRORED:
        turned = np.flip(x, width) if is_mirrored else x
        for factor in FACTORS:
            yield _as(turned * np.float64(factor), x.dtype)


def _as(x: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        x = np.clip(np.rint(x), limits.min, limits.max)
    return x.astype(dtype)


def frozen(rows: Iterable[tuple[int, Any]], count: int) -> Classes:
    """What the rows (image, class or aim) explain of ``count`` images, image by image in the order of the rows."""
    classes: list[list[int]] = [[] for _ in range(count)]
    for image, index in rows:
        classes[image].append(index)
    return [tuple(each) for each in classes]


def batches(
    copies: Iterable[Array], feeds: Mapping[str, Array], name: str, classes: Classes, shared: Sequence[str] = ()
) -> Iterator[tuple[dict[str, Array], Classes, int]]:
    """What is run for ``copies`` of the input ``name``: feeds, classes, and how many copies these are, as many as stay
    within ``TOGETHER`` images and ``VALUES`` numbers, at least one.

    The copies lie one behind the other, so that a result with one row for each (image, class) reshapes to (copies,
    rows, …). Inputs other than ``name`` are repeated, those of ``shared`` handed on as they are: they have no batch
    axis.
    """
    remaining = iter(copies)
    each = max(1, min(TOGETHER // len(feeds[name]), VALUES // feeds[name].size))
    while piece := list(islice(remaining, each)):
        count = len(piece)
        again = {
            key: value if key in shared else np.concatenate([value] * count)
            for key, value in feeds.items()
            if key != name
        }
        yield {**again, name: np.concatenate(piece)}, classes * count, count


class Copies(NamedTuple):
    """Copies of the image input, and for each whether it is mirrored, so that its cam is to be mirrored back."""

    arrays: Iterable[Array]
    mirrored: Sequence[bool]


def aug(x: Array, space: Sequence[int], settings: Noise) -> Copies:
    """mean over x · 0.9, x and x · 1.1, each as it is and mirrored.   pytorch-grad-cam, aug_smooth.

    The cams of mirrored copies are mirrored back. Unlike there the class is chosen once, by the input itself, and cams
    are averaged in the score's units, before they are scaled. The factor is applied to the model's input tensor, as
    there: behind a preprocessing that subtracts the mean colour it changes the contrast. Of a dense output each copy
    explains its own cell.

    Args:
        x: (N, …), the image input.
        space: the axes of x that are space; the last one is mirrored.
        settings: not used by this smoothing.

    Raises:
        MethodError: x has fewer than two spatial axes.
    """
    if len(space) < 2:
        raise MethodError(
            "smoothing by 'aug' mirrors images left to right: the input has one spatial axis",
            hint="smoothing by 'noise' or 'eigen'",
            smooth="aug",
        )
    mirrored = [is_mirrored for is_mirrored in MIRRORED for _ in FACTORS]
    return Copies(augmented(x, space[-1]), mirrored)


def noise(x: Array, space: Sequence[int], settings: Noise) -> Copies:
    """mean over noisy copies of x.   Smilkov et al. 2017, arXiv:1706.03825, of cams.

    ``samples`` copies (25); ``noise``: σ as a share of the range of values of each image's own tensor (0.15); ``seed``
    (0): equal seeds give equal maps. The class is chosen without noise.

    Args:
        x: (N, …), the image input.
        space: not used by this smoothing.
        settings: how many copies, how much noise, and the seed.
    """
    return Copies(noisy(x, settings), [False] * settings.samples)


COPIES: Mapping[str, Callable[[Array, Sequence[int], Noise], Copies]] = {"aug": aug, "noise": noise}
