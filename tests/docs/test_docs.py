"""What the documentation says can be done: commands parse, links lead somewhere, examples are accepted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from repository import DOCS, ROOT

from onnx_gradcam.cli import app
from onnx_gradcam.photos.preprocess.choice import InputSpec, choose

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
IMAGENET_INPUT = InputSpec("x", (None, 3, 224, 224), "float32")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[str]:
    """The lines of fenced blocks and the inline code that call onnx-gradcam with a command or an option."""
    text = page.read_text("utf-8")
    lines = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    found = (re.sub(r"^\S*[/\\](?=onnx-gradcam)", "", part.strip()) for code in lines + inline for part in split(code))
    return [" ".join(command.split()) for command in found if re.match(r"onnx-gradcam [a-z-]", command)]


def split(code: str) -> list[str]:
    """The commands of one line, without the comment behind them."""
    return re.split(r"&&|;", code.partition("#")[0])


COMMANDS = [
    pytest.param(command, id=f"{name(page)}: {command}")
    for page in PAGES
    if "decisions" not in page.parts
    for command in dict.fromkeys(commands(page))
]


def parse(words: list[str]) -> dict[str, Any]:
    """What Typer makes of the words: the arguments of the command. Nothing runs."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("onnx-gradcam", list(words))
    called, command, rest = group.resolve_command(context, words)
    parameters: dict[str, Any] = command.make_context(called, rest).params
    return parameters


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    parse(shlex.split(command)[1:])


def test_commands_are_found() -> None:
    """Those in fences, behind a path, after another command, and inline; not the prose around them."""
    found = commands(ROOT / "README.md")
    assert "onnx-gradcam demo" in found
    assert "onnx-gradcam explain resnet50.onnx cat.jpg --preprocess imagenet --target top3 -o out" in found
    assert len(found) >= 6
    assert len(commands(DOCS / "limits.md")) >= 5


@pytest.mark.parametrize("command", ["explain m.onnx cat.jpg --tagret 3", "explian m.onnx", "verify"])
def test_commands_that_do_not_parse(command: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        parse(command.split())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    """Relative ones, with the heading they point to."""
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        assert not heading or heading in headings(target), f"{name(page)} links to {link}"


def headings(page: Path) -> set[str]:
    """As GitHub names them: lower case, punctuation dropped, hyphens for spaces."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools" / "docs.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def preprocessing_examples() -> list[dict[str, Any]]:
    """The JSON objects of the chapter on preprocessing, in fences and inline."""
    chapter = (DOCS / "formats.md").read_text("utf-8").split("## Preprocessing")[1].split("\n## ")[0]
    fenced = [block for language, block in FENCE.findall(chapter) if language == "json"]
    inline = re.findall(r"`(\{[^`]*\})`", FENCE.sub("", chapter))
    return [json.loads(example) for example in fenced + inline]


EXAMPLES = preprocessing_examples()


def test_both_forms_have_an_example() -> None:
    assert {"preset" in example for example in EXAMPLES} == {True, False}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: ",".join(example))
def test_preprocessing_examples_are_accepted(example: dict[str, Any]) -> None:
    """Every field is taken over as it stands, and none is guessed."""
    choice = choose(example, IMAGENET_INPUT, metadata={}, model_path=None)
    assert choice.warnings == ()
    assert not [
        source for source in choice.sources.values() if not source.startswith(("declared", "chosen", "default"))
    ]
    for key, value in example.items():
        if key != "preset":
            found = getattr(choice.preprocess, key)
            assert (list(found) if isinstance(found, tuple) else found) == value
