"""What is guessed of the preprocessing where nobody declared it: by what the model gives, and by its input's shape.

The centre is cut out for classifiers alone. A detector, a segmenter and a reader of text lines look at the whole photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.photos.preprocess.evidence import NO_EVIDENCE, TENSORFLOW, Evidence, values_of
from onnx_gradcam.photos.preprocess.presets import PRESETS, Preprocess, Size

OBLONG = 2
"""An input whose one side is so many times the other holds a strip: a line of text, a person."""


@dataclass(frozen=True)
class Guess:
    """What is usual for a family of models.

    Attributes:
        preset: the preset that the values of pixels come from.
        resize: how the photo gets the size of the input.
        size: the size where the model leaves both sides open, and the photo's own is not taken.
        longest: how long a side of the photo's own size may be, where that is taken; None where it is not.
    """

    preset: str
    resize: str
    size: Size
    longest: int | None = None


CLASSIFIER = Guess("imagenet", "crop", (224, 224))
GUESSES: Mapping[str, Guess] = {
    "detector": Guess("yolo", "letterbox", (640, 640), 640),
    "undecoded": Guess("yolox", "letterbox-corner", (640, 640), 640),
    "ssd": Guess("tf", "stretch", (300, 300), 640),
    "map": Guess("imagenet", "stretch", (512, 512), 1024),
    "sequence": Guess("tf", "stretch", (48, None)),
}
"""Family → the guess; for all others ``CLASSIFIER``.

"undecoded" is a detector with an objectness whose boxes are as a convolution leaves them, one for each cell: YOLOX.
"ssd" is a detector without an objectness whose classes, with one for the background, share a Softmax, or that comes
from TensorFlow.
"""
NAMES = {
    "detector": "detector",
    "undecoded": "detector that leaves its boxes as YOLOX does",
    "ssd": "detector of SSD's kind",
    "map": "segmenter",
    "sequence": "text line",
}
YOLO = ("detector", "undecoded")
"""Families that take their own numbers, whatever framework they come from."""


def guess_for(
    family: str, dtype: str, count: int | None, sides: Size, evidence: Evidence = NO_EVIDENCE
) -> tuple[Preprocess, str, str]:
    """Return the guess at 224 × 224, the source of its values, and the source of how it resizes: "guessed: …".

    Args:
        family: a key of ``GUESSES``, or another.
        dtype: NumPy's name of the dtype of the input.
        count: the number of channels; None: not known.
        sides: height and width of the input, None where they are open.
        evidence: what the model file tells of the numbers in its input.
    """
    guess = GUESSES.get(family, CLASSIFIER)
    base, source = _numbers(guess, family, dtype, count, evidence)
    if guess is not CLASSIFIER:
        whole = f"guessed: the whole photo, for a {NAMES[family]}"
        return replace(base, resize=guess.resize, shorter=None), source, whole
    why = "for a strip" if is_strip(sides) else ""
    if evidence.framework == TENSORFLOW:
        why = why or f"as Keras resizes it, {evidence.origin}"
    if why:
        return replace(base, resize="stretch", shorter=None), source, f"guessed: the whole photo, {why}"
    return base, source, source


def _numbers(guess: Guess, family: str, dtype: str, count: int | None, evidence: Evidence) -> tuple[Preprocess, str]:
    """Return the preset with the numbers that the input takes, and the source of these."""
    if np.dtype(dtype).kind != "f":
        base = replace(PRESETS["raw"], mean=(128.0,)) if dtype == "int8" else PRESETS["raw"]
        return base, f"guessed: as preset raw, {_because(family)}"
    name = guess.preset if count in (None, 3) else "zero-one"
    by_names = count in (None, 3) and family not in YOLO
    values = values_of(evidence, by_names) if count in (None, 1, 3) else None
    if values is None:
        return PRESETS[name], f"guessed: as preset {name}, {_because(family)}"
    own, base = values.numbers, PRESETS[name]
    if (own.scale, own.mean, own.std) == (base.scale, base.mean, base.std):  # a detector's own order of channels
        return base, f"guessed: as preset {name}, {values.reason}"
    told = replace(base, scale=own.scale, mean=own.mean, std=own.std, channels=own.channels)
    return told, f"guessed: as preset {values.preset}, {values.reason}"


def _because(family: str) -> str:
    return f"for a {NAMES[family]}" if family in NAMES else "from shape and dtype"


def is_strip(sides: Size) -> bool:
    """Return whether an input holds a strip: it is oblong, or one side alone is open."""
    known = [side for side in sides if side]
    return len(known) == 1 or (len(known) == 2 and max(known) >= OBLONG * min(known))


def guess_size(family: str, sides: Size, is_cut: bool) -> tuple[Size | None, int | None]:
    """Return the size of an input of which a side is open, and how long a photo's own side may be, where it is that.

    Where one side is known it is kept, and the open one is in proportion. Where both are open, detectors and segmenters
    look at the photo in its own size.

    Args:
        family: a key of ``GUESSES``, or another.
        sides: height and width of the input, None where they are open.
        is_cut: whether the centre of the photo is cut out: then the usual size is taken.
    """
    guess = GUESSES.get(family, CLASSIFIER)
    if any(sides) or is_cut or guess.longest is None:
        return (sides if any(sides) else guess.size), None
    return None, guess.longest
