"""Run the code of a page of the documentation, in order, and compare what it prints with what the page shows.

    python tools/tutorials.py docs/tutorials/torch.md [--pictures]

Fences marked ``python`` run in one namespace, fences marked ``sh`` in bash, all in a temporary folder. A fence marked
``text`` right after one of them is what it prints, ``...`` standing for anything. A fence behind
``<!-- not run -->`` is left out. Exits with 1 and a difference for each fence that printed something else.

With ``--pictures`` the pictures of the page are drawn anew: the image after ``<!-- picture: FILE -->`` becomes FILE,
which the page has written.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx_gradcam.photos.decode import decode

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = "<!-- not run -->"
FENCE = re.compile(rf"^(?P<skip>{NOT_RUN}\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^<!-- picture: (?P<file>\S+) -->\n!\[[^\]]*\]\((?P<image>\S+)\)$", re.MULTILINE)
LANGUAGES = ("python", "sh")


@dataclass(frozen=True)
class Step:
    """One fence of a page that is run, and what the page says it prints; None where it shows nothing."""

    line: int
    language: str
    code: str
    shown: str | None


def steps(text: str) -> list[Step]:
    """Return the fences of a page that are run, in order."""
    fences = list(FENCE.finditer(text))
    pairs = zip(fences, [*fences[1:], None], strict=True)
    return [
        Step(text[: fence.start("code")].count("\n") + 1, fence["language"], fence["code"], _shown(text, fence, after))
        for fence, after in pairs
        if fence["language"] in LANGUAGES and not fence["skip"]
    ]


def _shown(text: str, fence: re.Match[str], after: re.Match[str] | None) -> str | None:
    """Return the ``text`` fence that follows with nothing but blank lines between."""
    if after is None or after["language"] != "text" or text[fence.end() : after.start()].strip():
        return None
    return after["code"]


def differences(text: str, name: str) -> Iterator[str]:
    """Run a page in the current folder; yield one text for each step that does not print what the page shows."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    checker = doctest.OutputChecker()
    for step in steps(text):
        where = f"{name}, line {step.line}"
        printed = _python(step, namespace, where) if step.language == "python" else _shell(step, where)
        example = doctest.Example(step.code, step.shown if step.shown is not None else printed)
        if not checker.check_output(example.want, printed, doctest.ELLIPSIS):
            yield f"{where}\n{checker.output_difference(example, printed, doctest.ELLIPSIS | doctest.REPORT_NDIFF)}"


def _python(step: Step, namespace: dict[str, object], where: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (step.line - 1) + step.code, where, "exec"), namespace)
    return _stripped(printed.getvalue())


def _shell(step: Step, where: str) -> str:
    """Return what the commands print on both streams, as a terminal shows it; raises where one of them fails."""
    program = f'onnx-gradcam() {{ {shlex.quote(sys.executable)} -m onnx_gradcam "$@"; }}\n'
    command = ["bash", "-euo", "pipefail", "-c", program + step.code]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{where}: exit status {result.returncode}\n{step.code}{result.stdout}")
    return _stripped(result.stdout)


def _stripped(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def draw_pictures(text: str, page: Path) -> None:
    """Write the pictures of a page that has been run in the current folder."""
    from gallery import encode  # the gallery opens models, which no page needs that draws nothing

    for picture in PICTURE.finditer(text):
        (page.parent / picture["image"]).write_bytes(encode(decode(picture["file"])))


def main(page: Path, pictures: bool) -> int:
    """Run one page in a temporary folder, and print the differences; draw its pictures anew where that is wanted."""
    text = page.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        found = list(differences(text, page.name))
        if pictures:
            draw_pictures(text, page)
    print("\n".join(found) if found else f"{page.name}: {len(steps(text))} steps")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), "--pictures" in sys.argv[2:]))
