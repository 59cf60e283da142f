"""Record what the package computes, and compare two recordings bit by bit: for work that must not change a result.

    python tools/same_results.py record FOLDER                 # the demo models and those of $ONNX_GRADCAM_ZOO
    python tools/same_results.py compare A B [--drawn 0.02]    # exit status 1 if a result differs

``record`` takes minutes; it uses the public API with one thread, and the command line. FOLDER/MODEL/CASE.npz has the
arrays of a case, CASE.json its facts (labels, files, exit statuses) and texts. What the package refuses is recorded by
the class and the text of its error; any other exception stops the recording. Texts may differ, and so may heatmaps of
photos by less than ``--drawn``; with ``--drawn 0`` they must be identical.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from PIL import Image
from same_cases import DEMO, Model, commands, models, requests, zoo_folder
from same_recording import FACT, TEXT, Array, Fields, compare, save

import onnx_gradcam as ogc

Case = Callable[[], Fields]
ROWS = tuple("image_index class_index score probability cell box heatmap is_blank scale seen attribution".split())
FACTS = {
    "method": "method",
    "score_name": "provenance.score",
    "score_activation": "provenance.score_activation",
    "attributed": "attributed",
}
LAYER = ("activation", "gradient", "weights", "cam")
INFO = ("name", "shape", "op_type", "chosen", "module")
SIDE = 32
"""Edge of the volumes that models of volumes are given."""


def record(folder: Path) -> None:
    """Record all models and all commands into a new folder, on all cores, one case of commands or one model each."""
    folder.mkdir(parents=True)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with get_context("spawn").Pool() as pool:
        tasks = [pool.apply_async(record_model, (folder, model)) for model in models()]
        tasks += [pool.apply_async(record_commands, (folder, *case)) for case in commands().items()]
        for task in tasks:
            task.get()
    print(f"{Path(ogc.__file__).parent}: {len(list(folder.rglob('*.json')))} cases")


def record_model(folder: Path, model: Model) -> None:
    """Record all cases of a model; one that the package refuses by its error."""
    layers = [layer.name for layer in ogc.layers(model.path)][:2]
    with open_model(model) as explainer, open_model(model, layers) as fused:
        for name, case in {**plain_cases(model, explainer), **other_cases(model, explainer, fused)}.items():
            try:
                fields = case()
            except ogc.OnnxGradcamError as error:
                fields = {f"{FACT}error": type(error).__name__, f"{TEXT}error": str(error)}
            save(folder / model.path.stem / name, fields)


def open_model(model: Model, layers: str | Sequence[str] = "auto") -> ogc.Explainer:
    """Return an explainer with one thread, whose input is small if it is a volume."""
    proto = onnx.load(model.path)
    for value in (*proto.graph.input, *proto.graph.output) if model.is_volume else ():
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = SIDE
    return ogc.Explainer(proto, layers, providers=["cpu"], session_options=one_thread())


def one_thread() -> ort.SessionOptions:
    """Return options with which the runtime computes the same bits at every run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return options


def plain_cases(model: Model, explainer: ogc.Explainer) -> dict[str, Case]:
    """Return the calls of ``explain`` and ``explain_image``, by the name of the case."""
    x, cases = tensor(model), dict[str, Case]()
    explain_image = partial(explainer.explain_image, preprocess=model.preprocess)
    for name, request in requests(model).items():
        cases[name] = partial(explanation_fields, explainer.explain, x[: request.images], request.keywords)
        if request.with_photo:
            cases[f"photo/{name}"] = partial(explanation_fields, explain_image, model.photo, request.keywords)
    return cases


def other_cases(model: Model, explainer: ogc.Explainer, fused: ogc.Explainer) -> dict[str, Case]:
    """Return the calls of ``explain`` with two layers, and those of other functions; none for heavy models."""
    if model.is_heavy:
        return {}
    x = tensor(model)[:1]
    fusions = {
        how: partial(explanation_fields, fused.explain, x, {"fusion": how}) for how in ("mean", "max", "product")
    }
    return {
        **{f"fused-{how}": case for how, case in fusions.items()},
        "others": lambda: {**side_by_side(explainer, x), **layer_facts(model), **gradients(model, explainer, x)},
    }


def tensor(model: Model) -> Array:
    """Return the photo and its mirror image as the model's input, made without the package; for volumes noise."""
    form = model.preprocess
    if model.is_volume:
        return np.random.default_rng(0).random((1, 1, SIDE, SIDE, SIDE), np.float32)
    image = Image.open(model.photo).convert(form["channels"].replace("BGR", "RGB")).resize(form["size"][::-1])
    pixels = np.atleast_3d(np.asarray(image, np.float64))[..., :: -1 if form["channels"] == "BGR" else 1]
    values = (pixels * form["scale"] - form["mean"]) / form["std"]
    both: Array = np.stack([values, values[:, ::-1]]).astype(form["dtype"])
    return both if form["layout"] == "NHWC" else np.ascontiguousarray(both.transpose(0, 3, 1, 2))


def explanation_fields(explain: Callable[..., ogc.Explanation], image: object, keywords: Mapping[str, Any]) -> Fields:
    """Return all that an explanation holds."""
    e = explain(image, **keywords)
    fields = row_arrays(e)
    for layer in e.layers:
        fields |= {f"{name} of {layer.name}": getattr(layer, name) for name in LAYER}
    for name, value in e.outputs.items():
        fields[f"output {name}"] = value if isinstance(value, np.ndarray) else np.array(repr(value))
    fields |= {f"{FACT}{name}": attrgetter(path)(e) for name, path in FACTS.items()}
    fields |= {f"{FACT}{name}": [getattr(e, name)(row) for row in range(len(e))] for name in ("label", "target")}
    fields |= {f"{TEXT}title": [e.title(row) for row in range(len(e))]}
    fields |= {f"{TEXT}{name}": getattr(e, name) for name in ("warnings", "rectifiers")}
    return {name: value for name, value in fields.items() if value is not None}


def row_arrays(explanation: ogc.Explanation) -> Fields:
    """Return the arrays of an explanation with one entry a row; those that it has."""
    arrays = {name: getattr(explanation, name) for name in ROWS}
    return {name: array for name, array in arrays.items() if array is not None}


def side_by_side(explainer: ogc.Explainer, x: Array) -> Fields:
    """Return the maps of ``both`` and of ``contrast`` for the first two classes of an image."""
    e = explainer.explain(x, ogc.TopK(2))
    parts = {**ogc.both(e).parts, **ogc.contrast(e[0:1], e[1:2]).parts}
    return {f"{name} of {title}": array for title, part in parts.items() for name, array in row_arrays(part).items()}


def layer_facts(model: Model) -> Fields:
    """Return what ``layers`` tells of the candidates."""
    described = [{name: getattr(layer, name) for name in INFO} for layer in ogc.layers(model.path)]
    return {f"{FACT}layers": [{k: v for k, v in layer.items() if v is not None} for layer in described]}


def gradients(model: Model, explainer: ogc.Explainer, x: Array) -> Fields:
    """Return the outputs of ``gradient_model``, run outside of the package."""
    proto = ogc.gradient_model(model.path, [explainer.target_layers[0], explainer.image_input.name])
    session = ort.InferenceSession(proto.SerializeToString(), one_thread(), providers=["CPUExecutionProvider"])
    extra = {"target_index": np.array([-1]), "grad_scale": np.array(1024, np.float32)}
    names = [output.name for output in session.get_outputs() if output.type.startswith("tensor")]
    values = session.run(names, {feed.name: extra.get(feed.name, x) for feed in session.get_inputs()})
    return dict(zip(names, values, strict=True))


def record_commands(folder: Path, case: str, lines: Sequence[Sequence[str]]) -> None:
    """Record a case of commands: run them one after the other in a folder of their own, and keep what they wrote."""
    fields: Fields = {f"{FACT}statuses": []}
    environment = {**os.environ, "PYTHONPATH": str(Path(ogc.__file__).resolve().parent.parent)}
    with tempfile.TemporaryDirectory() as home:
        for number, line in enumerate(lines):
            command = [sys.executable, "-m", "onnx_gradcam", *line]
            process = subprocess.run(command, cwd=home, env=environment, capture_output=True)
            fields[f"{FACT}statuses"].append(process.returncode)
            fields[f"{TEXT}said {number}"] = printed((process.stdout + process.stderr).decode())
        files = {path.relative_to(home).as_posix(): path for path in sorted(Path(home).rglob("*.*"))}
        fields |= {f"heatmap {name}": np.load(path) for name, path in files.items() if path.suffix == ".npy"}
    save(folder / "commands" / case, {**fields, f"{FACT}files": list(files)})


def printed(text: str) -> list[str]:
    """Return the lines that a command printed, without folders, and without the runtime's log, which has the time."""
    for folder in (DEMO, zoo_folder()):
        text = text.replace(str(folder), "") if folder else text
    return [line for line in text.splitlines() if "onnxruntime:" not in line]


def main() -> int:
    """Read the command line, and record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record", help="record what the package computes now")
    recording.add_argument("folder", type=Path, help="a folder that does not exist yet")
    comparison = verbs.add_parser("compare", help="compare two recordings")
    comparison.add_argument("a", type=Path)
    comparison.add_argument("b", type=Path)
    comparison.add_argument("--drawn", type=float, default=0.02, help="limit for heatmaps of photos (default 0.02)")
    options = parser.parse_args()
    if options.verb == "compare":
        return int(not compare(options.a, options.b, options.drawn))
    record(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
