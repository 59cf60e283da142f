"""An installation of OpenCV that cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_broken_opencv_names_the_command_that_mends_it(tmp_path: Path) -> None:
    """Two distributions own cv2 and one has overwritten the other."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "m.packages_distributions = lambda: {'cv2': ['opencv-python', 'opencv-python-headless']}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "import onnx_gradcam"], env=env, capture_output=True, text=True, check=False
    )
    assert "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless" in done.stderr
    assert "libGL.so.1" in done.stderr
