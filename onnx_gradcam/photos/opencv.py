"""The only place that imports cv2, so that one message serves a broken installation."""

from onnx_gradcam.errors import reinstall

try:
    import cv2
except ImportError as error:  # OpenCV's distributions overwrite one another's files, and servers have no libGL
    raise ImportError(f"OpenCV cannot be imported ({error}); mend it with: {reinstall('cv2')}") from None

__all__ = ["cv2"]
