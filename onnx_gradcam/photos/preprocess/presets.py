"""The record of one preprocessing, and the presets, which have a name. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx_gradcam.photos.window import Window

RESIZES = ("crop", "stretch", "letterbox", "letterbox-corner")
INTERPOLATIONS = ("linear", "cubic", "lanczos", "area", "nearest", "linear-aliased")
CHANNELS = {"L": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
LAYOUTS = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}
"""Layout → the axes of channels, height and width."""
Size = tuple[int | None, int | None]
"""Height and width, where one side may be None: in proportion to the photo."""


@dataclass(frozen=True)
class Preprocess:
    """One way from a photo (H, W, 3) uint8 RGB to a model input: value = (pixel · scale − mean) / std.

    Attributes:
        size: (H, W) of the model input. None: the photo's own size, after ``shorter`` or ``longest`` where these are
            set, as whole multiples of ``multiple``. None for one of the two: that side is in proportion to the photo,
            as for text lines of a set height.
        resize: "crop": the photo's shorter side becomes ``shorter``, and the centre is cut out (torchvision);
            "stretch": each side is resized by itself, to ``size``; where ``shorter`` is set, to ``size`` enlarged
            until its shorter side is ``shorter``, and the centre is cut out;
            "letterbox": the largest copy that fits, centred, the rest filled with ``pad``; "letterbox-corner": the
            same in the upper left corner.
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
        longest: where the size is the photo's own: a longer side is shrunk to so many pixels. None: it never is.
        multiple: where the size is the photo's own: each side of the model input is a whole multiple of so many pixels,
            the nearest one, or with a letterbox the next larger one.
        window: the centre and the width of the stored values that become 0 to 255, as for X-rays of 16 bits; the pixels
            are not rounded then. None: the photo in 8 bits, as it is.
    """

    size: Size | None
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
    longest: int | None = None
    multiple: int = 1
    window: Window | None = None


def rescale_shorter(shorter: int | None, size: Size | None, reference: Size | None) -> int | None:
    """Return a ``shorter`` that is meant for one size of input (H, W) as another size needs it: in proportion.

    For an oblong input it is None. It stays where a side is not known.
    """
    if not shorter or size is None or reference is None or size == reference or None in (*size, *reference):
        return shorter
    least, before = (min(side for side in sides if side) for sides in (size, reference))
    return round(shorter * least / before) if size[0] == size[1] else None


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
    "yolo": replace(_RAW, scale=1 / 255, resize="letterbox", interpolation="linear-aliased"),
    "yolox": replace(_RAW, channels="BGR", resize="letterbox-corner", interpolation="linear-aliased"),
}
"""Name → the specification at 224 × 224; ``choose`` fits it to the model's size, layout and dtype.

"yolo" is that of Ultralytics' detectors, YOLOv6 and YOLOv7; "yolox" that of YOLOX.
"""
