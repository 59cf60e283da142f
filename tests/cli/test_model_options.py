"""What one command takes of the options of a model, all take: from one table, with a row for each keyword."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import typer.main
from brightness import brightness_model

import onnx_gradcam as ogc
from onnx_gradcam.cli import app, main
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.explain.opening import OPENING_DEFAULTS, Opening
from onnx_gradcam.jobs.inspect import overview
from onnx_gradcam.jobs.model_options import MODEL_OPTIONS, PLAIN_DEFAULTS, opening_of
from onnx_gradcam.jobs.presets import rank_presets

COMMANDS = ("explain", "inspect", "verify", "compare")
FUNCTIONS: tuple[Callable[..., Any], ...] = (
    ogc.Explainer, ogc.compare, ogc.gradient_model, ogc.layers, ogc.verify, overview, rank_presets,
)  # fmt: skip


def test_every_keyword_has_its_option() -> None:
    assert [option.keyword for option in MODEL_OPTIONS] == list(Opening.__annotations__)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_every_option(command: str) -> None:
    commands: Any = typer.main.get_command(app)
    flags = {flag for p in commands.commands[command].params for flag in [*p.opts, *p.secondary_opts]}
    assert flags >= {option.flag for option in MODEL_OPTIONS}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_function_has_every_keyword(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in OPENING_DEFAULTS} == OPENING_DEFAULTS


def test_nothing_is_said_of_what_was_not_given() -> None:
    assert opening_of({}) == opening_of(PLAIN_DEFAULTS) == {}


def test_what_texts_become() -> None:
    given = {
        "score": "logits",
        "providers": ("cuda:1", "cpu"),
        "provider_options": ("cuda:1:use_tf32=1", "cuda:1:path=a=b", "cpu:x=y"),
        "custom_ops": ("a.so", "b.so"),
        "threads": 3,
        "check_forward": False,
    }
    opening = opening_of(given)
    assert opening.pop("session_options").intra_op_num_threads == 3
    assert opening == {
        "score": "logits",
        "providers": ("cuda:1", "cpu"),
        "provider_options": {"cuda:1": {"use_tf32": "1", "path": "a=b"}, "cpu": {"x": "y"}},
        "custom_ops": ("a.so", "b.so"),
        "check_forward": False,
    }


@pytest.mark.parametrize("text", ["use_tf32=1", "cuda:use_tf32", ":use_tf32=1", "cuda:=1"])
def test_a_provider_option_in_another_form(text: str) -> None:
    with pytest.raises(ogc.ProviderError, match="is not NAME:KEY=VALUE"):
        opening_of({"provider_options": (text,)})


# --- the commands ---------------------------------------------------------------------------------------------------

LINES = {
    "explain": ["explain", "model.onnx", "photo.png", "--json"],
    "inspect": ["inspect", "model.onnx", "--image", "photo.png"],
    "verify": ["verify", "model.onnx"],
    "compare": ["compare", "model.onnx", "model.onnx", "photo.png"],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    onnx.save(brightness_model(), "model.onnx")
    cv2.imwrite("photo.png", np.full((96, 112, 3), 200, np.uint8))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnx-gradcam", "-q", *arguments])
        with pytest.raises(SystemExit) as status:
            main()
        printed = capsys.readouterr()
        return int(status.value.code or 0), printed.out, printed.err

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_every_session_is_opened_as_was_said(command: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for sessions that are opened without optimisations to measure their effect, of which there are none here."""
    opened: list[Options] = []
    plain = Session.__init__

    def recorded(self: Session, model: Any, options: Options) -> None:
        opened.append(options)
        plain(self, model, options)

    monkeypatch.setattr(Session, "__init__", recorded)
    status, _, err = run(*LINES[command], "--provider", "cpu", "--threads", "1", "--no-check-forward")
    assert (status, err) == (0, "")
    assert opened
    for options in opened:
        assert (options.providers, options.check_forward) == (("cpu",), False)
        assert options.session_options.intra_op_num_threads == 1


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score", "lots"], "no value 'lots'"),
        (["--grid", "9by9"], "9by9"),
        (["--image-input", "picture"], "no input 'picture'"),
        (["--provider", "abacus"], "unknown execution provider 'abacus'"),
        (["--provider-option", "abacus:beads=10"], "unknown execution provider 'abacus'"),
        (["--custom-ops", "/nowhere.so"], "/nowhere.so"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_by_every_command(command: str, options: list[str], message: str, run: Any) -> None:
    status, _, err = run(*LINES[command], *options)
    assert (status, message in err) == (2, True), err


def test_a_run_is_repeated_with_its_options(run: Any) -> None:
    status, out, _ = run(*LINES["explain"], "--threads", "1", "--provider", "cpu", "--no-check-forward")
    assert status == 0
    manifest = json.loads(out)
    assert {name: manifest["request"][name] for name in PLAIN_DEFAULTS} == {
        **PLAIN_DEFAULTS, "score": [], "threads": 1, "providers": ["cpu"], "check_forward": False,
        "provider_options": [], "custom_ops": [],
    }  # fmt: skip
    assert manifest["check_forward"] is False
    assert run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json")[0] == 0


def test_a_manifest_without_the_options_is_repeated(run: Any) -> None:
    """Manifests of earlier versions have four of them, and null for no providers."""
    run(*LINES["explain"])
    path = Path("onnx-gradcam-out", "model-gradcam", "manifest.json")
    manifest = json.loads(path.read_text("utf-8"))
    for name in ("provider_options", "threads", "custom_ops", "check_forward"):
        del manifest["request"][name]
    manifest["request"]["providers"] = None
    path.write_text(json.dumps(manifest), "utf-8")
    assert run("explain", "--from", str(path))[0] == 0
