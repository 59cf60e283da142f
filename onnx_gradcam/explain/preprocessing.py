"""How photos become the image input of an opened model, and what is said where a guess of it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from onnx_gradcam.errors import InputError, ModelError, NoGradientPath, PreprocessError, ScoreError
from onnx_gradcam.explain.network import Network
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, PreprocessLike, choose
from onnx_gradcam.targets import family_of

OTHER_SIZES = (
    "--preprocess with the size of training: 48xfree for lines of text (height 48, width in proportion to the photo), "
    "640x640, or NAME,SIZE as in imagenet,320x320"
)


def find_preprocessing(network: Network, request: PreprocessLike = "auto") -> Choice:
    """Return the preprocessing for the image input of a model, with the source of each field.

    Args:
        network: the opened model.
        request: as for ``choose``.

    Raises:
        PreprocessError: the request is unknown, or does not fit the model's input.
        InputError: the input takes no photos.
    """
    path = network.source.path
    family = _family(network)
    return choose(request, network.image_input, metadata=network.metadata, model_path=path, family=family)


def refuse_guesses(choice: Choice, spec: InputSpec, option: str = "--preprocess") -> None:
    """Raise ``PreprocessError`` where a part of a preprocessing is guessed; ``option`` is the one that settles it."""
    if choice.guessed:
        raise PreprocessError(
            f"the preprocessing is guessed: {', '.join(choice.guessed)}",
            where=f"input {spec}",
            hint=f"{option} NAME or FILE.json settles it; without --strict a guess is a warning",
            guessed=choice.guessed,
        )


def _family(network: Network) -> str:
    """Return what the model gives, by which guesses go; "" where it has no score: a photo can be prepared without."""
    try:
        score = network.score
    except (ScoreError, NoGradientPath):
        return ""
    return "undecoded" if score.dense is not None and score.dense.has_undecoded_boxes else family_of(score)


@contextmanager
def naming_a_guessed_size(choice: Choice | UserFunction | None, shape: Sequence[int]) -> Iterator[None]:
    """Add to an error of a run that the size of its input, of this shape, was guessed, and which way leads out."""
    try:
        yield
    except (InputError, ModelError) as error:
        if isinstance(choice, Choice) and "size" in choice.guessed:
            height, width = (shape[2], shape[3]) if choice.preprocess.layout == "NCHW" else (shape[1], shape[2])
            guess = f"the size of the input, {height} × {width}, was guessed: the model leaves it open"
            error.where = "; ".join(filter(None, [error.where, guess]))
            error.hint = OTHER_SIZES
        raise
