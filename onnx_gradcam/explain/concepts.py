"""The concepts that several photos share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.photo import prepare_photo
from onnx_gradcam.photos.preprocess.choice import PreprocessLike
from onnx_gradcam.results.drawing import draw
from onnx_gradcam.results.explanation import Explanation

METHOD = "dff"


def concepts(
    explainer: Explainer, photos: Iterable[Any], count: int = 5, *, preprocess: PreprocessLike = "auto"
) -> tuple[Explanation, ...]:
    """Return the concepts that several photos share: an explanation for each photo, with a row for each concept.

    Concept k is the same in all of them: its vector, ``explanation.weights[k]``, its class and its name. Where it is in
    a photo says the map. ``contact_sheet`` draws all on one page. Method "dff" of ``explain`` does the same for arrays,
    and of ``explain_image`` for one photo.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> photos = [demo / "images" / name for name in ("cross.png", "drop.png")]
    >>> cross, drop = ogc.concepts(explainer, photos, 3)
    >>> cross.target(0), bool((cross.weights == drop.weights).all())
    ('concept:1', True)

    Args:
        explainer: the model.
        photos: at least one, each as ``Explainer.explain_image`` takes it.
        count: how many concepts are sought.
        preprocess: as in ``Explainer.explain_image``.

    Returns:
        One explanation for each photo, in their order; its maps are 1 where a concept has its peak in that photo, and
        ``scale`` says how high that is beside its peak in all photos.

    Raises:
        InputError: there is no photo, or the photos become tensors of different shapes.
        OnnxGradcamError: as ``Explainer.explain_image``.
    """
    several = list(photos)
    if not several:
        raise InputError("there are no photos to find concepts in", hint="at least one photo")
    how = explainer.preprocessing(preprocess)
    alone = [explainer.explain_image(photo, method=METHOD, preprocess=how, concepts=count) for photo in several]
    tensors = [prepare_photo(photo, how, explainer.image_input, explainer.preprocessing)[0] for photo in several]
    shapes = {tensor.shape for tensor in tensors}
    if len(shapes) > 1:
        raise InputError(
            f"the photos become tensors of different shapes: {', '.join(map(str, sorted(shapes)))}",
            hint="a preprocessing with one size: --preprocess, or photos of one size",
            shapes=tuple(sorted(shapes)),
        )
    together = explainer.explain(np.concatenate(tensors), method=METHOD, concepts=count)
    return tuple(_in_photo(own, together[np.flatnonzero(together.image_index == k)]) for k, own in enumerate(alone))


def _in_photo(own: Explanation, shared: Explanation) -> Explanation:
    """Return the explanation of a photo with the concepts of all in the place of its own."""
    heatmap, scale, blank = draw(own.frame, [layer.cam for layer in shared.layers])
    named = zip(own.words, shared.words, strict=True)
    return replace(
        own,
        class_index=shared.class_index,
        score=shared.score,
        probability=shared.probability,
        words=tuple(replace(words, text=other.text, title=other.title) for words, other in named),
        layers=shared.layers,
        heatmap=heatmap,
        scale=scale,
        is_blank=blank,
    )
