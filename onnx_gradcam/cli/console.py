"""What every command has: exit statuses, the log on stderr, and a spinner."""

from __future__ import annotations

import logging
import sys
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from onnx_gradcam.jobs.report import RENDERERS, Renderer

DONE, FOUND, BAD_INPUT, MISTAKE, INTERRUPTED = 0, 1, 2, 3, 130

log = logging.getLogger("onnx_gradcam")


def renderer(as_json: bool) -> Renderer:
    """Return the format that results are printed in."""
    return RENDERERS["json" if as_json else "text"]


def show(text: str) -> None:
    """Print a text at once, unless it is empty."""
    if text:
        print(text, flush=True)


class progress:
    """A spinner on stderr while the body runs, where stderr is a terminal and nobody asked for quiet."""

    def __init__(self, what: str) -> None:
        self._what = what
        shown = sys.stderr.isatty() and log.isEnabledFor(logging.WARNING)
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)

    def __enter__(self) -> Any:
        self._progress.start()
        task = self._progress.add_task(self._what)
        return lambda name: self._progress.update(task, description=f"{self._what} {name}")

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
