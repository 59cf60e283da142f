"""An input to verify on: the user's, or noise that fits what the model declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnx_gradcam.photos.preprocess.choice import InputSpec

SIDES_TRIED = (
    224,
    256,
    128,
    64,
    32,
    320,
    299,
    227,
    512,
    640,
)  # tried in this order where the model leaves its spatial size open


def one_batch(feeds: Mapping[str, np.ndarray], image: str, batch: int | None) -> dict[str, np.ndarray]:
    """Return the first image, or as many as the model takes at once (the last repeated where there are fewer)."""
    count = len(feeds[image])
    rows = np.minimum(np.arange(batch or 1), count - 1)
    return {name: array[rows] if array.ndim and len(array) == count else array for name, array in feeds.items()}


def noise(specs: Mapping[str, InputSpec], batch: int | None, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield seeded noise for every input, once for each of ``SIDES_TRIED`` where a spatial size is open, else once."""
    sides = (
        SIDES_TRIED
        if any(None in spec.shape[2:] or None in spec.shape[1:-1] for spec in specs.values())
        else SIDES_TRIED[:1]
    )
    for side in sides:
        rng = np.random.default_rng(seed)
        yield {name: _drawn(spec, batch or 1, side, rng) for name, spec in specs.items()}


def _drawn(spec: InputSpec, batch: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw standard normal values for images and sequences, 0 to 255 for uint8, ones for sizes, scales and flags."""
    shape = [_length(spec, axis, batch, side) for axis in range(len(spec.shape))]
    if len(shape) < 3:
        return np.ones(shape, spec.dtype)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(spec.dtype)


def _length(spec: InputSpec, axis: int, batch: int, side: int) -> int:
    given = spec.shape[axis]
    if given is not None:
        return given
    if axis == 0:
        return batch
    channels_last = spec.shape[-1] in (1, 3, 4)
    return 3 if axis == 1 and len(spec.shape) > 2 and not channels_last else side
