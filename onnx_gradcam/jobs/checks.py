"""What can be judged of a request before the model is read: a wrong word costs no minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_gradcam.engine.session import check_providers
from onnx_gradcam.errors import InputError, ModelError
from onnx_gradcam.graph.load import Source
from onnx_gradcam.jobs.arguments import read_arrays, read_options
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.jobs.truth import TABLE, read_table
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.methods.table import recipe_of, require_target
from onnx_gradcam.photos.labels import BUNDLED, read_label_file
from onnx_gradcam.photos.listing import ARRAYS, is_readable, suffix_of
from onnx_gradcam.photos.preprocess.form import read_request
from onnx_gradcam.photos.preprocess.metadata import BESIDE
from onnx_gradcam.photos.preprocess.short import AUTO, read_short
from onnx_gradcam.photos.preprocess.values import names_file
from onnx_gradcam.photos.tiles import Tiling
from onnx_gradcam.photos.vocabulary import Vocabulary, read_vocabulary
from onnx_gradcam.results.journal import sha256


@dataclass(frozen=True)
class Values:
    """What a request gives as texts, read.

    Attributes:
        recipe: the method with its variants and options.
        inputs: arrays for the model's other inputs, by name.
        vocabulary: the words of tokens; None where no file names them.
        tiling: how photos are cut into tiles; None: they are explained as a whole.
    """

    recipe: Recipe
    inputs: Mapping[str, np.ndarray]
    vocabulary: Vocabulary | None = None
    tiling: Tiling | None = None


def check_request(request: Request) -> Values:
    """Check all words and files of a request that mean something without the model, and return what was read.

    Raises:
        ModelError: model and images have changed places.
        MethodError: the method, a variant, a fusion, an option or the scale is unknown; or the prediction is to be
            compared with the true class, and the method explains no class.
        OutputError: a colour map or another word about pictures is unknown.
        ProviderError: a provider is unknown, or the installed runtime does not have it.
        TargetError: the labels cannot be read.
        PreprocessError: the preprocessing is unknown or cannot be read.
        InputError: an array for another input, the table of true labels or the vocabulary cannot be read; a question
            and a caption stand together, or a caption beside targets.
    """
    _check_places(request)
    _check_text(request)
    request.pictures.check()
    options = read_options(request.options)
    variants = request.counterfactual, request.signed, request.fusion, request.smooth
    recipe = recipe_of(request.method, *variants, options, request.levels)
    if request.true is not None:
        require_target(recipe)
    check_providers(opening_of(request.model_options).get("providers"))
    inputs = read_arrays(request.inputs)
    if request.labels is not None and request.labels not in BUNDLED:
        read_label_file(Path(request.labels))
    if request.preprocess != AUTO and read_short(request.preprocess) is None:
        read_request(request.preprocess)
    if request.true is not None and request.true.lower().endswith(TABLE):
        read_table(Path(request.true))
    vocabulary = read_vocabulary(request.vocabulary) if request.vocabulary else None
    return Values(recipe, inputs, vocabulary, _tiling(request))


def _tiling(request: Request) -> Tiling | None:
    """Return how photos are cut into tiles. Raises ``InputError`` where something else is wanted of each photo."""
    if request.tile is None:
        return None
    if request.both or request.true or request.question or request.sentence:
        raise InputError(
            "tiles have one map of one target", hint="--tile without --both, --true, --question and --caption"
        )
    return Tiling.read(request.tile)


def _check_places(request: Request) -> None:
    """Raise ``ModelError`` where the first argument is an image and one of the others a model."""
    model = next((image for image in request.images if image.lower().endswith(".onnx")), None)
    is_image = is_readable(suffix_of(Path(request.model))) or Path(request.model).is_dir()
    if model is None or not is_image:
        return
    raise ModelError(
        f"{request.model!r} stands in the place of the model, and the model {model!r} among the images",
        hint=f"MODEL comes first: {model} {request.model}",
        model=request.model,
    )


def _check_text(request: Request) -> None:
    """Raise ``InputError`` where a caption is explained beside something else."""
    others = {
        "--question": request.question is not None,
        "--target": request.targets != ("top1",),
        "--true": request.true is not None,
        "--both": request.both,
    }
    beside = [name for name, is_there in others.items() if is_there]
    if request.sentence is not None and beside:
        raise InputError(
            f"--caption explains each word of a sentence, and {beside[0]} something else",
            hint=f"--caption without {beside[0]}, or two runs",
        )


def files_read(request: Request, source: Source) -> dict[str, str]:
    """Return the sha256 of every file beside model and images on which the results depend, by its path.

    These are the weights of the model that lie in other files, labels, preprocessing (with the file beside the model
    that "auto" reads), the table of true labels, and arrays for other inputs and for options.
    """
    named = [request.labels if request.labels not in BUNDLED else None]
    named += [request.true] if (request.true or "").lower().endswith(TABLE) else []
    named += [str(Path(request.model).parent / BESIDE), request.preprocess, request.vocabulary]
    named += [text.partition("=")[2] for text in request.inputs]
    named += [text.partition("=")[2] for text in request.options if text.endswith(ARRAYS)]
    folder, read = Path(request.model).parent, [file for file, _ in source.files if file != source.path]
    named += [str(folder / file.relative_to(source.path.parent)) for file in read if source.path is not None]
    return {name: sha256(Path(name)) for name in named if name and names_file(name)}
