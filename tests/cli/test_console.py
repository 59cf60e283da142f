"""What the command line shows on a terminal, and where nobody reads it."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from onnx_gradcam.cli.console import CLOSED_PIPE, progress, set_loudness, show
from onnx_gradcam.cli.estimate import runs_ticker
from onnx_gradcam.errors import OutputError


class Terminal(io.StringIO):
    """Text that is shown on a terminal of some width."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stderr: Any, ticks: list[tuple[int, int | None]]) -> str:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with progress("explaining") as tick:
        for done, total in ticks:
            tick(done, total)
    text: str = stderr.getvalue()
    return text


def test_progress_says_how_many_of_how_many_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    set_loudness(verbose=False, quiet=False)
    text = shown(monkeypatch, Terminal(), [(40, 300), (41, 300), (42, 300)])
    assert "42 of 300" in text
    assert "/s" in text
    assert "left" in text
    assert "3 of ?" in shown(monkeypatch, Terminal(), [(1, None), (2, None), (3, None)])


def test_no_progress_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    set_loudness(verbose=False, quiet=False)
    assert shown(monkeypatch, io.StringIO(), [(1, 2)]) == ""
    set_loudness(verbose=False, quiet=True)
    assert shown(monkeypatch, Terminal(), [(1, 2)]) == ""
    set_loudness(verbose=False, quiet=False)


def test_lines_go_to_stdout_beside_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdout is a file, stderr a terminal: the lines belong into the file."""
    set_loudness(verbose=False, quiet=False)
    stdout, stderr = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress("explaining"):
        show("a line")
    assert stdout.getvalue() == "a line\n"
    assert "a line" not in stderr.getvalue()


def test_a_pipe_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as status:
            show("a line")
        assert status.value.code == CLOSED_PIPE == 141
        print("what is printed after that goes nowhere", file=pipe, flush=True)


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OutputError, match="cannot write to stdout: No space left on device"):
        show("a line")


class TestRuns:
    def shown(self, monkeypatch: pytest.MonkeyPatch, stderr: Any, seconds: float) -> str:
        """Return what stands on stderr when ten batches of ten runs are done, each in ``seconds``."""
        set_loudness(verbose=False, quiet=False)
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("TERM", "xterm")
        bar = Progress(TextColumn("{task.description}"), MofNCompleteColumn(" of "), console=Console(stderr=True))
        bar.disable = not stderr.isatty()
        clock = iter(100 + seconds * n for n in range(20))
        with bar:
            tick = runs_ticker(bar, lambda: next(clock))
            for done in range(0, 101, 10):
                tick(done, 100)
                bar.refresh()
        text: str = stderr.getvalue()
        return text

    def test_a_long_run_says_how_long_it_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = self.shown(monkeypatch, Terminal(), 5)
        assert text.count("100 runs: about 50 seconds for each image") == 1
        assert "90 of 100" in text

    def test_a_short_one_and_one_that_nobody_looks_at_do_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "about" not in self.shown(monkeypatch, Terminal(), 0.5)
        assert self.shown(monkeypatch, io.StringIO(), 5) == ""
