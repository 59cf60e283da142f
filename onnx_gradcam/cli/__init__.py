"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import io
import logging
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from onnx_gradcam.cli.attacking import attack
from onnx_gradcam.cli.bare import BareCommand
from onnx_gradcam.cli.checking import inspect, verify
from onnx_gradcam.cli.comparing import compare
from onnx_gradcam.cli.console import BAD_INPUT, DONE, INTERRUPTED, MISTAKE, complain, log, set_loudness, show
from onnx_gradcam.cli.evaluating import evaluate
from onnx_gradcam.cli.explaining import demo, explain
from onnx_gradcam.cli.signatures import takes_loudness
from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.photos.opencv import silence

NAME = "onnx-gradcam"
SHOWN_CHARACTERS = 300
STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
app = typer.Typer(
    name=NAME,
    help="Explain any exported ONNX CNN with Grad-CAM, on the runtime that serves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 a check found something, 2 bad input or usage, 3 a mistake of ours, "
    "4 undecided, 130 interrupted, 141 nobody reads the output, 143 terminated.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from onnx_gradcam.engine.session import versions

        for name, version in versions().items():
            show(f"{name} {version}")
        raise typer.Exit(DONE)


def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Versions of the tool, onnx, runtime, and providers.",
            callback=_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Apply the options that stand before any command."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", force=True)
    silence()  # what cannot be decoded is told by our own message


app.callback()(takes_loudness(common))
for command in (explain, inspect, verify, compare, evaluate, attack, demo):
    app.command(cls=BareCommand)(takes_loudness(command))


def _stop(number: int, _frame: object) -> None:
    """End the program as a signal requests it: results that are being written are finished on the way out."""
    sys.exit(128 + number)


def main() -> NoReturn:
    """Run the command line and exit.

    An error of this package becomes a message and exit status 2. Any other exception is a mistake of ours: one line,
    with ``-v`` the traceback too, and exit status 3, so that no check takes it for a finding.
    """
    set_loudness(verbose=False, quiet=False)
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files that are no text are printed with escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name=NAME)
    except OnnxGradcamError as error:
        complain(str(error))
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if log.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN_CHARACTERS]
        complain(f"a mistake in {NAME}: {cause} ({NAME} -v shows where; please report it)")
        sys.exit(MISTAKE)
    sys.exit(DONE)
