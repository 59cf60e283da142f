"""``python -m onnx_gradcam``."""

from onnx_gradcam.cli import main

if __name__ == "__main__":
    main()
