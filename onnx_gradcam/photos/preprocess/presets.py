"""The record of one preprocessing, and the presets, which have a name. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, replace

RESIZES = ("crop", "stretch", "letterbox")
INTERPOLATIONS = ("linear", "cubic", "lanczos", "area", "nearest", "linear-aliased")
CHANNELS = {"L": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
LAYOUTS = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}
"""Layout → the axes of channels, height and width."""


@dataclass(frozen=True)
class Preprocess:
    """One way from a photo (H, W, 3) uint8 RGB to a model input: value = (pixel · scale − mean) / std.

    Attributes:
        size: (H, W) of the model input; None: the photo's own size, after ``shorter`` where that is set.
        resize: "crop": the photo's shorter side becomes ``shorter``, and the centre is cut out (torchvision);
            "stretch": each side is resized by itself, to ``size``; where ``shorter`` is set, to ``size`` enlarged
            until its shorter side is ``shorter``, and the centre is cut out;
            "letterbox": the largest copy that fits, centred, the rest filled with ``pad``.
        shorter: see ``resize``. None: crop takes the smallest copy that fills it, stretch cuts nothing.
        scale: factor on the pixel.
        mean: one for each channel, in the order of ``channels``, in units of pixel · scale.
        std: like ``mean``.
        channels: "RGB", "BGR", "L" (luma, ITU-R BT.601), "RGBA", "BGRA" (with an opaque alpha, 255).
        layout: "NCHW" or "NHWC".
        dtype: NumPy's name of the model input's dtype; values for integers are rounded.
        pad: the pixel value beside the photo.
        interpolation: "linear", "cubic", "lanczos" and "area" widen their filter when they shrink, as Pillow,
            torchvision and Hugging Face do; "nearest" and "linear-aliased" (OpenCV's INTER_LINEAR) do not.
    """

    size: tuple[int, int] | None
    resize: str
    shorter: int | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str
    layout: str
    dtype: str
    pad: float = 114.0
    interpolation: str = "linear"


_ZEROS, _ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_IMAGENET = Preprocess(
    (224, 224), "crop", 256, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB", "NCHW", "float32"
)
_RAW = replace(_IMAGENET, resize="stretch", shorter=None, scale=1.0, mean=_ZEROS, std=_ONES)

PRESETS: dict[str, Preprocess] = {
    "imagenet": _IMAGENET,
    "imagenet-caffe": replace(_IMAGENET, scale=1.0, mean=(103.939, 116.779, 123.68), std=_ONES, channels="BGR"),
    "tf": replace(_RAW, scale=1 / 127.5, mean=_ONES),
    "zero-one": replace(_RAW, scale=1 / 255),
    "raw": _RAW,
}
"""Name → the specification at 224 × 224; ``choose`` fits it to the model's size, layout and dtype."""
