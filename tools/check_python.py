"""Say what to install where Python or venv cannot be used. Runs on any Python 3."""

import sys

OLDEST = (3, 11)

if sys.version_info < OLDEST:
    sys.exit(
        "onnx-gradcam needs Python 3.11 or newer, this is {}.{}.\n"
        "Install one (Debian: apt-get install python3 python3-venv) and run: make PYTHON=python3.11 ...".format(
            *sys.version_info
        )
    )
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError:
    sys.exit("Python's venv module is missing. Debian and Ubuntu: apt-get install python3-venv")
