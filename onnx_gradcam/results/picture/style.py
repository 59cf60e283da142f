"""The style of pictures: how photo, map and caption are drawn. It changes no number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_gradcam.errors import OutputError, nearest
from onnx_gradcam.photos.opencv import cv2

COLORMAPS: Mapping[str, int] = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "bone": cv2.COLORMAP_BONE,
    "hot": cv2.COLORMAP_HOT,
    "parula": cv2.COLORMAP_PARULA,
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
}
"""Name → OpenCV's number. The lightness of the first seven grows with the value, whatever the colour vision."""
PHOTOS = ("colour", "grey")
SPELLINGS: Mapping[str, str] = {"color": "colour", "gray": "grey"}


@dataclass(frozen=True)
class Style:
    """How a picture is drawn.

    >>> Style(colormap="viridis", alpha=0.5).photo_under(signed=True)
    'grey'

    Attributes:
        photo: "colour" or "grey"; None: colour, and grey under a signed map, whose two colours would else be taken for
            those of the photo.
        colormap: the colours of maps in [0, 1]: inferno, magma, plasma, viridis, cividis, bone, hot, parula, turbo or
            jet. Those of a signed map are always vermilion and blue.
        alpha: the opacity of the strongest evidence, in [0, 1].
        caption: whether title, colour bar and notes stand around the overlay. What changes how a map must be read
            stands there without them, too.

    Raises:
        OutputError: a name is unknown, or ``alpha`` is out of its range.
    """

    photo: str | None = None
    colormap: str = "inferno"
    alpha: float = 0.75
    caption: bool = True

    def __post_init__(self) -> None:
        if self.photo is not None:
            object.__setattr__(self, "photo", SPELLINGS.get(self.photo, self.photo))
            _require("photo", self.photo, PHOTOS)
        _require("colormap", self.colormap, COLORMAPS)
        if not 0 <= self.alpha <= 1:
            raise OutputError(f"alpha {self.alpha} is not an opacity", hint="a number from 0 to 1", alpha=self.alpha)

    def photo_under(self, signed: bool) -> str:
        """Return "colour" or "grey", what the photo is under a map."""
        return self.photo or ("grey" if signed else "colour")


def _require(what: str, name: str | None, known: Mapping[str, int] | tuple[str, ...]) -> None:
    if name not in known:
        raise OutputError(f"unknown {what} {name!r}", hint=nearest(str(name), known), name=name)


PLAIN = Style()
