"""What every command has: exit statuses, the log on stderr, and a progress bar."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from onnx_gradcam.cli.estimate import runs_ticker
from onnx_gradcam.errors import OutputError
from onnx_gradcam.jobs.report import RENDERERS, Renderer

DONE, FOUND, BAD_INPUT, MISTAKE, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 4, 130
CLOSED_PIPE = 141  # 128 + SIGPIPE, as a shell has it

log = logging.getLogger("onnx_gradcam")


def set_loudness(verbose: bool, quiet: bool) -> None:
    """Set how much the log says: everything, warnings, or errors only."""
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)


def renderer(as_json: bool) -> Renderer:
    """Return the format that results are printed in."""
    return RENDERERS["json" if as_json else "text"]


def show(text: str) -> None:
    """Print a text at once, unless it is empty.

    Where nobody reads it any more (``| head -1``), the program ends with the status of a closed pipe.

    Raises:
        OutputError: it cannot be written.
    """
    if not text:
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror}", hint="free space, or another place") from None


def complain(text: str) -> None:
    """Print an error on stderr; where nobody reads it, the exit status still tells."""
    with suppress(BrokenPipeError):
        print(f"error: {text}", file=sys.stderr, flush=True)


class Rate(ProgressColumn):
    """A column that shows how many are done in a second, of those of this run."""

    def render(self, task: Task) -> Text:
        """Return the rate in words, nothing before the first is done."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


Tick = Callable[[int, int | None], None]
"""Is called with the number of those that are done, and of all, None where that is not known."""


@contextmanager
def progress(what: str) -> Iterator[Tick]:
    """Show "n of N, rate, time left" on stderr while the body runs, if stderr is a terminal and nobody asked for quiet.

    Yields:
        A function to be called with the number of those that are done, and of all, None where that is not known.
    """
    with _bar() as bar:
        yield _ticker(bar, what)


@contextmanager
def progress_with_runs(what: str) -> Iterator[tuple[Tick, Callable[[int, int], None]]]:
    """Show the same, and below it how far a method is that runs the model many times for each image.

    Yields:
        What ``progress`` yields, and the same for the runs.
    """
    with _bar() as bar:
        yield _ticker(bar, what), runs_ticker(bar)


def _bar() -> Progress:
    shown = sys.stderr.isatty() and log.isEnabledFor(logging.WARNING)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(" of "),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    beside = sys.stdout.isatty()  # else rich would print on the terminal what goes into a file or a pipe
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown, redirect_stdout=beside)


def _ticker(bar: Progress, what: str) -> Tick:
    task = bar.add_task(what, total=None)

    def tick(done: int, total: int | None) -> None:
        if total is not None and bar.tasks[0].total is None:  # what was done before counts for no rate
            bar.reset(task, completed=done, total=total)
        else:
            bar.update(task, completed=done, total=total)

    return tick
