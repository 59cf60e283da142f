"""The only module that imports cv2: it turns a broken installation of OpenCV into one clear message."""

from onnx_gradcam.errors import reinstall

try:
    import cv2
except ImportError as error:  # OpenCV's distributions overwrite one another's files, and servers have no libGL
    raise ImportError(f"OpenCV cannot be imported ({error}); repair it with: {reinstall('cv2')}") from None

__all__ = ["cv2", "silence"]


def silence() -> None:
    """Stop the log of OpenCV in this process: for programs only, never for the library."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
