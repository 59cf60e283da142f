"""The options of a model as a command line and a manifest hold them: texts, numbers and flags.

There is one row for each keyword of ``Opening``. All commands that open a model take the options from this table, and a
manifest records what was given, so that the run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.engine.session import session_options
from onnx_gradcam.errors import ProviderError
from onnx_gradcam.explain.opening import Opening

Plain = str | int | bool | tuple[str, ...] | None


def _as_it_is(given: Any) -> Any:
    return given


def _one_or_several(texts: str | Sequence[str]) -> str | Sequence[str]:
    return texts[0] if len(texts) == 1 else texts


def _provider_options(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read texts NAME:KEY=VALUE; the name of the provider may hold a colon of its own ("cuda:1")."""
    options: dict[str, dict[str, str]] = {}
    for text in texts:
        setting, equals, value = text.partition("=")
        provider, colon, key = setting.rpartition(":")
        if not (provider and colon and key and equals):
            raise ProviderError(
                f"--provider-option {text!r} is not NAME:KEY=VALUE",
                hint="--provider-option cuda:use_tf32=1",
                option=text,
            )
        options.setdefault(provider, {})[key] = value
    return options


@dataclass(frozen=True)
class ModelOption:
    """An option that every command has which opens a model.

    Attributes:
        keyword: the keyword of ``Opening`` that the option sets.
        name: what the option is called in a request and in a manifest.
        flag: what it is called on the command line.
        kind: what it takes: a text (str), a count (int), any number of texts (tuple), or nothing (bool): such a flag
            turns its default round.
        default: what stands for the option where it is not given.
        metavar: what stands for its value in help texts.
        help: what it does.
        shown_default: what happens without it, in words; "" where ``default`` says so itself.
        read: makes the keyword's value of what was given.
    """

    keyword: str
    name: str
    flag: str
    kind: type
    default: Plain
    metavar: str
    help: str
    shown_default: str = ""
    read: Callable[[Any], Any] = _as_it_is


MODEL_OPTIONS = (
    ModelOption(
        "score", "score", "--score", tuple, (), "NAME",
        "The score tensor, before its softmax; of a detector that returns its levels apart each of them. What its file "
        "does not tell stands behind a colon: NAME:anchors=3, NAME:columns=4-83, NAME:axis=1, NAME:squash=sigmoid. "
        "Repeatable.",
        "found in the graph", _one_or_several,
    ),
    ModelOption(
        "head", "head", "--head", str, "auto", "NAME|all",
        "The output that is explained, where several could be (inspect lists them). explain takes all of them, too.",
    ),
    ModelOption(
        "grid", "grid", "--grid", str, None, "HxW[+K]",
        "How the tokens of the target layer lie in the image: H rows of W, behind K others (all the rest).",
        "found by following the graph",
    ),
    ModelOption(
        "image_input", "image_input", "--image-input", str, None, "NAME", "The input that takes the images.",
        "the largest of those with the most axes",
    ),
    ModelOption(
        "providers", "providers", "--provider", tuple, (), "NAME",
        "cpu, cuda, cuda:1, tensorrt, openvino, … Repeatable, in order.", "cuda if it initialises, else cpu",
    ),
    ModelOption(
        "provider_options", "provider_options", "--provider-option", tuple, (), "NAME:KEY=VALUE",
        "An option of a provider: cuda:use_tf32=1. Repeatable.", "", _provider_options,
    ),
    ModelOption(
        "session_options", "threads", "--threads", int, None, "N", "How many threads compute one operator.",
        "as many as the runtime chooses", session_options,
    ),
    ModelOption(
        "custom_ops", "custom_ops", "--custom-ops", tuple, (), "FILE",
        "A shared library with custom operators. Repeatable.",
    ),
    ModelOption(
        "check_forward", "check_forward", "--no-check-forward", bool, True, "",
        "Do not compare the first run with the untouched model.",
    ),
)  # fmt: skip
PLAIN_DEFAULTS: Mapping[str, Plain] = {option.name: option.default for option in MODEL_OPTIONS}


def opening_of(given: Mapping[str, Plain]) -> Opening:
    """Return the keywords that open a model as options say.

    Args:
        given: the value of each option by its name; those that are missing have their default.

    Raises:
        ProviderError: the text of an option cannot be read, or no runtime is installed whose threads could be counted.
    """
    chosen = [(option, given.get(option.name)) for option in MODEL_OPTIONS]
    values: dict[str, Any] = {o.keyword: o.read(v) for o, v in chosen if v is not None and v != o.default}
    opening: Opening = {}
    opening.update(values)  # type: ignore[typeddict-item]  # the keywords come from a table
    return opening
