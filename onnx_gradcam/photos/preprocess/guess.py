"""What is guessed of the preprocessing where nobody declared it: by what the model gives, and by its input's shape.

The centre is cut out for classifiers alone. A detector, a segmenter and a reader of text lines look at the whole photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.photos.preprocess.presets import PRESETS, Preprocess, Size

OBLONG = 2
"""An input whose one side is so many times the other holds a strip: a line of text, a person."""


@dataclass(frozen=True)
class Guess:
    """What is usual for a family of models.

    Attributes:
        preset: the preset that the values of pixels come from.
        resize: how the photo gets the size of the input.
        size: the size where the model leaves both sides open.
    """

    preset: str
    resize: str
    size: Size


CLASSIFIER = Guess("imagenet", "crop", (224, 224))
GUESSES: Mapping[str, Guess] = {
    "detector": Guess("yolo", "letterbox", (640, 640)),
    "undecoded": Guess("yolox", "letterbox-corner", (640, 640)),
    "map": Guess("imagenet", "stretch", (512, 512)),
    "sequence": Guess("tf", "stretch", (48, None)),
}
"""Family → the guess; for all others ``CLASSIFIER``.

"undecoded" is a detector with an objectness whose boxes are as a convolution leaves them, one for each cell: YOLOX.
"""
NAMES = {
    "detector": "detector",
    "undecoded": "detector that leaves its boxes as YOLOX does",
    "map": "segmenter",
    "sequence": "text line",
}


def guess_for(family: str, dtype: str, count: int | None, sides: Size) -> tuple[Preprocess, str, str]:
    """Return the guess at 224 × 224, the source of its values, and the source of how it resizes: "guessed: …".

    Args:
        family: a key of ``GUESSES``, or another.
        dtype: NumPy's name of the dtype of the input.
        count: the number of channels; None: not known.
        sides: height and width of the input, None where they are open.
    """
    guess = GUESSES.get(family, CLASSIFIER)
    is_float = np.dtype(dtype).kind == "f"
    name = (guess.preset if count in (None, 3) else "zero-one") if is_float else "raw"
    base = replace(PRESETS[name], mean=(128.0,)) if dtype == "int8" else PRESETS[name]
    if guess is not CLASSIFIER:
        source = f"guessed: as preset {name}, for a {NAMES[family]}"
        whole = f"guessed: the whole photo, for a {NAMES[family]}"
        return replace(base, resize=guess.resize, shorter=None), source, whole
    source = f"guessed: as preset {name}, from shape and dtype"
    if is_strip(sides):
        return replace(base, resize="stretch", shorter=None), source, "guessed: the whole photo, for a strip"
    return base, source, source


def is_strip(sides: Size) -> bool:
    """Return whether an input holds a strip: it is oblong, or one side alone is open."""
    known = [side for side in sides if side]
    return len(known) == 1 or (len(known) == 2 and max(known) >= OBLONG * min(known))


def guess_size(family: str, sides: Size) -> Size:
    """Return the size of an input of which a side is open: the other one is kept, and the open one in proportion."""
    return sides if any(sides) else GUESSES.get(family, CLASSIFIER).size
