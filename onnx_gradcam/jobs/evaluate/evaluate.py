"""Metrics of the maps of a model, over labelled photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, Unpack

from onnx_gradcam.explain.default_method import resolved
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.explain.preprocessing import refuse_guesses
from onnx_gradcam.explain.probing import ImageProbe
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.jobs.data.reading import read_data
from onnx_gradcam.jobs.evaluate.chosen import choose_metrics
from onnx_gradcam.jobs.evaluate.evaluation import EvaluationResult
from onnx_gradcam.jobs.evaluate.measuring import MetricBench, measure_all
from onnx_gradcam.jobs.evaluate.networks import Networks
from onnx_gradcam.jobs.evaluate.records import EvaluatedRow
from onnx_gradcam.jobs.evaluate.subjects import classes_by_photo, classes_of_folders
from onnx_gradcam.jobs.evaluate.summary import summarise
from onnx_gradcam.jobs.plan import is_array
from onnx_gradcam.jobs.requested import for_json
from onnx_gradcam.methods import table as methods
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.inputs import input_space
from onnx_gradcam.photos.labels import LabelsLike
from onnx_gradcam.photos.preprocess.choice import PreprocessLike
from onnx_gradcam.results import notes

NO_VALUES: Mapping[str, Any] = MappingProxyType({})
OWN_CLASS = "the data name no classes: each photo is explained for the class that the model puts first"
SPACES: Mapping[str, tuple[int, ...]] = {"NCHW": (2, 3), "NHWC": (1, 2)}
NO_WEIGHTS = "the file holds no weights that could be made random: there are no figures of random weights"


@spelled_out
def evaluate(
    model: ModelLike,
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    metrics: Sequence[str] = (),
    *,
    method: str = "auto",
    target_layer: str | Sequence[str] = "auto",
    fusion: str = "mean",
    smooth: str | Sequence[str] = (),
    options: Mapping[str, Any] = NO_VALUES,
    inputs: Mapping[str, Any] = NO_VALUES,
    labels: LabelsLike = None,
    preprocess: PreprocessLike = "auto",
    strict: bool = False,
    cluster: str | None = None,
    group: str | None = None,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    start: Callable[[str], None] = lambda method: None,
    report: Callable[[EvaluatedRow | tuple[str, str], int], None] = lambda row, total: None,
    **opening: Unpack[Opening],
) -> EvaluationResult:
    """Measure whether the maps of a model may be believed.

    Every figure comes with its number of maps, an interval, the figure of chance, and that of the maps of the same
    network with random weights. A photo that cannot be measured stands in ``errors``.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        data: a table (``.csv``), COCO annotations (``.json``), or files, folders and globs of photos, where folders may
            be named after classes. See docs/evaluation.md.
        metrics: names of metrics, or "all"; none: some that are quick. The last two are those that the data allow.
        method, fusion, smooth: as for ``Explainer.explain``.
        target_layer, labels: as for ``Explainer``.
        options: options of the method, by name.
        inputs: arrays for the model's other inputs, by name.
        preprocess: as for ``explain_image``; no function.
        strict: whether a guessed preprocessing is an error.
        cluster: the column of the table, or the field of COCO's images, by which photos belong together: a patient, a
            video. Whole clusters are drawn for the intervals. None: each photo is a cluster.
        group: the column of the table, or the field of COCO's images, by which figures are told apart: every metric has
            a figure for each class, each group, and both together.
        seed: what random weights, random classes and intervals are drawn from.
        max_pixels: the largest photo that is decoded.
        start: is called with the name of the method before the first photo is measured; what it raises ends the run.
        report: is called with each row, or (photo, error), and the number of all.
        **opening: the keywords of ``Opening``.

    Returns:
        The figures of all maps, and of each metric the mean.

    Raises:
        MetricError: a metric is unknown, or no sample has what it needs.
        InputError: the data cannot be read, or no photo can be measured.
        PreprocessError: the preprocessing is unknown, or is guessed and ``strict``.
        ScoreError: the model has no classes.
        OnnxGradcamError: all else that ``Explainer`` and ``explain`` raise.
    """
    recipe = methods.recipe_of(method, False, False, fusion, smooth, options)
    methods.require_target(recipe)
    samples = read_data(data, cluster, group)
    with ExitStack() as stack:
        explainer = stack.enter_context(Explainer(model, target_layer, labels=labels, **opening))
        photos = not all(is_array(sample.path) for sample in samples)
        choice = explainer.preprocessing(preprocess) if photos else None
        if strict and choice is not None:
            refuse_guesses(choice, explainer.image_input)
        classes = classes_of_folders(samples, explainer)
        by_photo = classes_by_photo(samples, classes, explainer)
        chosen = choose_metrics(metrics, samples, by_photo)
        space = input_space(explainer.image_input) if choice is None else SPACES[choice.preprocess.layout]
        recipe, remarks = resolved(recipe, explainer.score)
        start(recipe.method)
        keywords = {"fusion": fusion, "smooth": recipe.smooth, **recipe.options}
        probe = ImageProbe(explainer, recipe.method, space, keywords, inputs)
        networks = Networks(probe, target_layer, opening, seed, stack)
        bench = MetricBench(networks, choice, classes, by_photo, chosen, max_pixels)
        measured = measure_all(bench, samples, report)
        layers = explainer.network.layer_names if measured.of_layers else ()
        versions, weights = explainer.network.versions, networks.has_weights
        guessed = notes.guessed_labels(explainer.labels_source)
        name, sha256 = explainer.source.name, explainer.network.sha256
    request = {
        "data": data,
        "metrics": [metric.name for metric in chosen],
        "method": method,
        "target_layer": target_layer,
        "fusion": fusion,
        "smooth": smooth,
        "options": options,
        "inputs": inputs,
        "labels": labels,
        "preprocess": preprocess,
        "cluster": cluster,
        "group": group,
        "seed": seed,
        "opening": opening,
    }
    return EvaluationResult(
        model=name,
        sha256=sha256,
        method=recipe.name,
        layers=layers,
        metrics=summarise(chosen, measured, seed),
        rows=measured.rows,
        errors=measured.errors,
        warnings=(
            *remarks,
            *(choice.warnings if choice else ()),
            *guessed,
            *([] if by_photo else [OWN_CLASS]),
            *([] if weights else [NO_WEIGHTS]),
        ),
        versions=versions,
        request=for_json(request),
    )
