"""The colours of a heatmap over its photo.

All images are (H, W, 3) uint8 RGB. The colours of a map in [0, 1] are those of a colour map; the lightness of "inferno"
(van der Walt and Smith), the default, grows with the value, so that it reads the same with any colour vision and in
print. The colours of a signed map in [−1, 1] are the vermilion and the blue of Okabe and Ito 2008, which differ for any
colour vision. The nearer a map is to 0, the more of the photo is visible.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results.picture.style import COLORMAPS, PLAIN, Style

Picture = NDArray[np.uint8]
Seen = tuple[int, int, int, int]

HIDDEN_BRIGHTNESS = 0.3
FOR, AGAINST, NEUTRAL = (213, 94, 0), (0, 114, 178), 128


def overlay(
    image: NDArray[np.uint8],
    heatmap: NDArray[Any],
    *,
    seen: Seen | None = None,
    signed: bool = False,
    style: Style = PLAIN,
) -> Picture:
    """Return a heatmap (H, W) in colour over an image (H, W, 3), (H, W, 3) uint8 RGB.

    picture = (1 − a) · image + a · colour(v), with v the heatmap:

    - in [0, 1], over the image in colour: a = alpha · v · (2 − v);
    - in [0, 1], over the image in grey: a = alpha · (1 + 3 v) / 4;
    - ``signed``, in [−1, 1]: a = alpha · |v|, the colour is vermilion where v > 0 and blue where v < 0.

    Outside ``seen`` (x1, y1, x2, y2), where the model saw nothing, the photo is dark and grey.

    Raises:
        InputError: the heatmap does not have the size of the image.
    """
    require_size(image, heatmap)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    is_grey = style.photo_under(signed) == "grey"
    ground = grey if is_grey else image.astype(np.float32)
    if signed:
        mixed = _diverging(ground, heatmap, style.alpha)
    else:
        level = np.clip(heatmap, 0, 1).astype(np.float32)
        share = (1 + 3 * level) / 4 if is_grey else level * (2 - level)
        mixed = _mix(ground, _table(style.colormap)[np.rint(level * 255).astype(np.uint8)], style.alpha * share)
    if seen is not None:
        x1, y1, x2, y2 = seen
        dimmed = np.ones(heatmap.shape, bool)
        dimmed[y1:y2, x1:x2] = False
        mixed[dimmed] = HIDDEN_BRIGHTNESS * grey[dimmed]
    return np.rint(mixed).astype(np.uint8)


def require_size(image: NDArray[np.uint8], heatmap: NDArray[Any]) -> None:
    """Raise ``InputError`` unless a heatmap (H, W) has the size of an image (H, W, 3)."""
    if image.shape[:2] != heatmap.shape:
        what = f"a heatmap of {heatmap.shape} does not fit an image of {image.shape[:2]}"
        hint = "the image that was explained, at the heatmap's size"
        raise InputError(what, hint=hint, image=image.shape[:2], heatmap=heatmap.shape)


def scale_colours(count: int, signed: bool = False, colormap: str = PLAIN.colormap) -> Picture:
    """Return the colours of a colour bar from its lower to its upper end, (count, 3) uint8 RGB.

    The colours of a signed scale are mixed into grey as ``overlay`` mixes them into a photo.
    """
    colours = _table(colormap)[np.rint(np.linspace(0, 255, count)).astype(int)]
    if signed:
        colours = _diverging(np.full((1, count, 1), NEUTRAL, np.float32), np.linspace(-1, 1, count)[None], 1.0)[0]
    rounded: Picture = np.rint(colours).astype(np.uint8)
    return rounded


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return an image (H, W, 3) RGB or (H, W) grey, uint8, as the bytes of a PNG file."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(".png", pixels)[1].tobytes()


def _mix(ground: NDArray[np.float32], colour: NDArray[np.float32], opacity: NDArray[Any]) -> NDArray[np.float32]:
    share = opacity[:, :, None].astype(np.float32)
    mixed: NDArray[np.float32] = (1 - share) * ground + share * colour
    return mixed


def _diverging(ground: NDArray[np.float32], heatmap: NDArray[Any], alpha: float) -> NDArray[np.float32]:
    level = np.clip(heatmap, -1, 1).astype(np.float32)
    colour = np.where(level[:, :, None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    return _mix(ground, colour, alpha * np.abs(level))


@cache
def _table(colormap: str) -> NDArray[np.float32]:
    """Return the colours for 0 to 1, (256, 3) float32 RGB."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap])
    return table[:, 0, ::-1].astype(np.float32)
