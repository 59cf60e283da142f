"""The choice of preprocessing as tests make it, with what every choice must say of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, Preprocess, choose

FLOAT = InputSpec("x", (None, 3, 224, 224), "float32")
FREE = InputSpec("x", (None, 3, None, None), "float32")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pick(
    request: Any = "auto",
    spec: InputSpec = FLOAT,
    metadata: Mapping[str, str] | None = None,
    path: Path | None = None,
    family: str = "",
) -> Choice:
    """Return the choice; assert that it says of every value whether it is declared or guessed, and warns of guesses."""
    choice = choose(request, spec, metadata=metadata or {}, model_path=path, family=family)
    assert set(choice.sources) == {f.name for f in fields(Preprocess)}
    assert all(s.startswith(("declared: ", "chosen: ", "default: ", "guessed: ")) for s in choice.sources.values())
    guessed = guesses(choice)
    assert bool(guessed) == any("is guessed" in w and "--preprocess" in w for w in choice.warnings)
    assert all(f"{name} " in " ".join(choice.warnings) for name in guessed)
    return choice


def guesses(choice: Choice) -> set[str]:
    """Return the names of the values that are guessed."""
    return {name for name, source in choice.sources.items() if source.startswith("guessed")}
