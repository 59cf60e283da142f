"""How photos become the image input of an opened model, and what is said where a guess of it fails."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.scales import scales
from onnx_gradcam.anatomy.exporters import names, origin
from onnx_gradcam.anatomy.first_layer import first_layer
from onnx_gradcam.anatomy.grids import grids
from onnx_gradcam.errors import InputError, ModelError, NoGradientPath, PreprocessError, ScoreError
from onnx_gradcam.explain.network import Network
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, PreprocessLike, choose
from onnx_gradcam.photos.preprocess.evidence import STRIDE, TENSORFLOW, Evidence
from onnx_gradcam.targets import family_of

NAMES_READ = 50
"""How many names, from the input on, are looked through for the name of an architecture."""

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
    path, evidence = network.source.path, find_evidence(network)
    family = _family(network, evidence.framework)
    spec, metadata = network.image_input, network.metadata
    return choose(request, spec, metadata=metadata, model_path=path, family=family, evidence=evidence)


def find_evidence(network: Network) -> Evidence:
    """Return what the model file tells of the numbers in its image input."""
    graph, spec = network.prepared.graph, network.image_input
    made_by = origin(network.source.model)
    architecture = " ".join(itertools.islice(names(network.source.model.graph), NAMES_READ)).lower()
    about = Evidence(made_by.framework, made_by.reason, architecture, stride=_stride(graph))
    image = next((v for v in graph.inputs if v.name == spec.name), None)
    if image is None or len(spec.shape) != 4:
        return about
    by_length = next((k for k in (1, 3) if spec.shape[k] in (1, 3)), 1)
    told = first_layer(graph, image, spec.axes[1] if spec.axes is not None else by_length)
    fields = ("scale", "shift", "stored", "trained", "expected", "centre")
    return replace(about, **{name: getattr(told, name) for name in fields})


def refuse_guesses(choice: Choice, spec: InputSpec, option: str = "--preprocess") -> None:
    """Raise ``PreprocessError`` where a part of a preprocessing is guessed; ``option`` is the one that settles it."""
    if choice.guessed:
        raise PreprocessError(
            f"the preprocessing is guessed: {', '.join(choice.guessed)}",
            where=f"input {spec}",
            hint=f"{option} NAME or FILE.json settles it; without --strict a guess is a warning",
            guessed=choice.guessed,
        )


def _stride(graph: ir.Graph) -> int:
    """Return by how much the coarsest grid of a graph of open sizes is coarser than its input."""
    nodes = list(graph)
    cells = {v: [v.shape[k] for k in axes[2:]] for v, axes in grids(nodes).items() if v.shape is not None}
    areas = scales(nodes, cells).values()
    return max(1, round(math.sqrt(max(areas, default=STRIDE**2))))


def _family(network: Network, framework: str) -> str:
    """Return what the model gives, by which guesses go; "" where it has no score: a photo can be prepared without."""
    try:
        score = network.score
    except (ScoreError, NoGradientPath):
        return ""
    dense = score.dense
    if dense is None or not dense.detector:
        return family_of(score)
    if dense.has_undecoded_boxes:
        return "undecoded"
    is_ssd = dense.activation == "Softmax" or framework == TENSORFLOW
    return "ssd" if is_ssd and dense.objectness is None else "detector"


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
