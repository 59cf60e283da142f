"""Options that may stand without a value, which typer does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

from onnx_gradcam.explain.sentences import OWN

BARE: Mapping[str, str] = {"--caption": OWN}
"""Option → the value that it has where none follows."""


def with_values(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which a bare option, last or before another option, has its value.

    >>> with_values(["model.onnx", "cat.jpg", "--caption", "--json"])
    ['model.onnx', 'cat.jpg', '--caption=own', '--json']
    >>> with_values(["model.onnx", "cat.jpg", "--caption", "a cat"])
    ['model.onnx', 'cat.jpg', '--caption', 'a cat']
    """
    following = [*arguments, "-"][1:]
    return [
        f"{word}={BARE[word]}" if word in BARE and after.startswith("-") else word
        for word, after in zip(arguments, following, strict=True)
    ]


class BareCommand(TyperCommand):
    """A command whose options in ``BARE`` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments of a command line."""
        return super().parse_args(ctx, with_values(args))
