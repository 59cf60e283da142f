"""Tell how far a method is that runs the model many times, and how long all of it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import Progress, TaskID

LONG = 10.0
"""Seconds from which on it is said how long the runs will take."""
UNITS = (("hours", 3600.0, 2 * 3600.0), ("minutes", 60.0, 120.0), ("seconds", 1.0, 0.0))
"""The name of a unit, its seconds, and from how many seconds on it is taken."""


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(31.4), duration(250), duration(9000)
    ('31 seconds', '4 minutes', '2.5 hours')
    """
    name, length, _ = next(unit for unit in UNITS if seconds >= unit[2])
    number = seconds / length
    return f"{number:.1f} {name}" if name == "hours" else f"{number:.0f} {name}"


def runs_ticker(bar: Progress, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Return what shows how many runs are done, to be called as ``progress`` of ``Explainer.explain``.

    The time that the first runs take, in which sessions are opened, counts for no rate. From the second on a line says
    how long all runs will take, once, where that is long.
    """
    task: TaskID | None = None
    first: tuple[int, float] | None = None
    is_told = bar.disable

    def tick(done: int, total: int) -> None:
        nonlocal task, first, is_told
        if task is not None and done in (0, total):
            bar.remove_task(task)
            task = None
        if done == 0:
            first = None
        elif first is None:
            first = done, clock()
        elif not is_told and done > first[0]:
            is_told = True
            rate = (clock() - first[1]) / (done - first[0])
            if rate * total > LONG:
                bar.console.print(f"{total} runs: about {duration(rate * total)} for each image", highlight=False)
        if done < total:
            task = bar.add_task("runs", total=total, completed=done) if task is None else task
            bar.update(task, completed=done)

    return tick
