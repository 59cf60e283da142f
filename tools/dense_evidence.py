"""Which method serves dense scores: deletion, insertion, correlation with occlusion, beside random weights and a bump.

    python tools/dense_evidence.py [--only yolox-nano …] [--steps 8] [--json FILE]

The models and photos are those of the zoo (ONNX_GRADCAM_ZOO names its folder). What is explained is the model's own
top-1 in its most probable cell. A map of one cell shows above all where the cell is; so each method stands beside its
map with random weights, at the same cell and layer, and beside a bump about the cell, which knows nothing of the photo.
"last" is the layer that the last convolution before the cell reads, "default" the one that the tool takes. The table
stands in docs/decisions/0027.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.dense.tensors import sources
from onnx_gradcam.copies.baselines import blurred, mean_colour
from onnx_gradcam.copies.covering import Occluded, occlude
from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.session import Session
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.operators import CONVOLUTIONS
from onnx_gradcam.graph.randomised import weighted_layers, with_random_weights
from onnx_gradcam.metrics.occlusion import occlusion_correlation
from onnx_gradcam.metrics.removal import deletion, insertion
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.tensor import to_tensor

Array = NDArray[Any]
METHODS = ("gradcam", "hirescam", "layercam")
STEPS = 8
BUMP = 0.1  # standard deviation of the bump, as a share of the sides
CASES = (
    ("nanodet-m-320", "both.png"),
    ("fastestdet", "both.png"),
    ("ultraface-320", "mesonet/real00240.jpg"),
    ("sinet-softmax", "mesonet/real00240.jpg"),
    ("yolox-nano", "both.png"),
    ("deeplab-dm05", "mesonet/real00772.jpg"),
)
# SINet divides by 255 after its mean and standard deviation.
SINET: Mapping[str, Any] = {
    "scale": 1.0,
    "mean": (102.890434, 111.25247, 126.91212),
    "std": (16047.8946, 15994.4391, 16920.7535),
}


@dataclass(frozen=True)
class Line:
    """What was measured of one map.

    ``deletion`` and ``insertion`` are areas under curves of the probability, as shares of the probability itself: lower
    and higher are better. ``correlation`` is Spearman's with occlusion of the logit. ``spread`` is the share of pixels
    that would carry the map if they were equal.
    """

    model: str
    photo: str
    layer: str
    weights: str
    method: str
    deletion: float
    insertion: float
    correlation: float
    spread: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A photo as a model takes it, the cell of its top-1 that is explained, and the model's scores for copies of it."""

    x: Array
    target: ogc.TargetObject
    centre: tuple[float, float]
    level: int
    logit: Callable[[Array], Array]

    def probability(self, copies: Array) -> Array:
        """Return the probability of the class in the cell, (B,)."""
        return np.asarray(1 / (1 + np.exp(-self.logit(copies))))


def main() -> None:
    """Measure the maps, and print the means over all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="some of the models")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the curves of deletion and insertion")
    parser.add_argument("--json", type=Path, help="where each measured map is written as well")
    arguments = parser.parse_args()
    zoo = Path(os.environ.get("ONNX_GRADCAM_ZOO", ""))
    if not (zoo / "zoo.json").is_file():
        sys.exit("ONNX_GRADCAM_ZOO names no zoo")
    index = json.loads((zoo / "zoo.json").read_text("utf-8"))
    lines: list[Line] = []
    for name, photo in CASES:
        if arguments.only is None or name in arguments.only:
            spec = preprocessing(name, index[name])
            lines += measured(zoo / index[name]["file"], zoo / "images" / photo, spec, arguments.steps)
            print(f"measured {name} on {photo}", file=sys.stderr)
            if arguments.json:
                arguments.json.write_text(
                    json.dumps([asdict(line) for line in lines], indent=1, allow_nan=False), "utf-8"
                )
    print(table(lines))


def preprocessing(name: str, entry: Mapping[str, Any]) -> ogc.Preprocess:
    """Return what the zoo says of a model's input; YOLOX is letterboxed, all others are stretched."""
    form: Mapping[str, Any] = SINET if name == "sinet-softmax" else entry
    mean, std = (tuple(map(float, form[key])) for key in ("mean", "std"))
    how = "letterbox" if "letterbox" in entry.get("resize", "") else "stretch"
    size, channels = tuple(entry["size"]), entry["channels"]
    return ogc.Preprocess(size, how, None, form["scale"], mean, std, channels, "NCHW", "float32", pad=114.0)


def measured(model: Path, photo: Path, spec: ogc.Preprocess, steps: int) -> Iterator[Line]:
    """Yield a line for each map of one photo."""
    x, _ = to_tensor(decode(photo), spec)
    network = ogc.Network(model, options=ogc.Options(providers=["cpu"]))
    scene = scene_of(network, x)
    image, whole = scene.x[0], float(scene.probability(scene.x)[0])
    grey, blur = mean_colour(image), blurred(image)
    covered = occlude(image, scene.logit, grey)
    for (layer, weights, method), heatmap in maps(network, scene, covered):
        yield Line(
            model.stem,
            photo.name,
            layer,
            weights,
            method,
            deletion(image, heatmap, scene.probability, grey, steps=steps).area / whole,
            insertion(image, heatmap, scene.probability, blur, steps=steps).area / whole,
            occlusion_correlation(heatmap, covered),
            float(heatmap.sum() ** 2 / max(float((heatmap**2).sum()), 1e-12) / heatmap.size),
        )


def scene_of(network: ogc.Network, x: Array) -> Scene:
    """Return what is explained of an image: the top-1 in its most probable cell."""
    with ogc.Explainer(network) as explainer:
        top = explainer.explain(x, method="eigencam")
    dense, written = network.score.dense, network.written_score.dense
    assert dense is not None
    assert written is not None
    index, level = int(top.class_index[0]), int(top.frame.level[0]) if top.frame.level is not None else 0
    logits, number = written.logits.name or "", written.cell_number.name or ""
    session = Session(forward_only(network.scored_model, [logits, number]), network.options)
    name = network.image_input.name
    cell = int(session.run([number], {name: x})[number][0, index, 0])
    others = np.arange(dense.count) != index

    def logit(copies: Array) -> Array:
        y = np.stack([session.run([logits], {name: copy[None]})[logits][0, :, cell] for copy in copies])
        own = y[:, index].astype(np.float64)
        return own - np.logaddexp.reduce(y[:, others], axis=1) if dense.activation != "Sigmoid" else own

    target, centre = target_of(network, top, index, cell, level)
    return Scene(x, target, centre, level, logit)


def target_of(
    network: ogc.Network, top: ogc.Explanation, index: int, cell: int, level: int
) -> tuple[ogc.TargetObject, tuple[float, float]]:
    """Return the target for one cell, and its centre (y, x) as shares of the input."""
    dense = network.score.dense
    assert dense is not None
    height, width = top.frame.size
    if not dense.detector:
        assert top.cell is not None
        row, column = map(int, top.cell[0])
        box = (float(column), float(row), column + 1.0, row + 1.0)
        return ogc.Region(index, box=box), ((row + 0.5) / height, (column + 0.5) / width)
    target = ogc.Box(cell, label=index)
    with ogc.Explainer(network) as explainer:
        found = explainer.explain(top.frame.x, target, "hirescam")
    place = np.abs(found.layers[level].gradient[0]).sum(axis=0)  # type: ignore[index]  # hirescam has a gradient
    y, x = (
        float((place.sum(axis=1 - k) * (np.arange(n) + 0.5)).sum() / place.sum() / n) for k, n in enumerate(place.shape)
    )
    return target, (y, x)


def maps(network: ogc.Network, scene: Scene, covered: Occluded) -> Iterator[tuple[tuple[str, str, str], Array]]:
    """Yield layer, weights and method of each map, and the map."""
    random = with_random_weights(network.source, weighted_layers(network.source))
    default = network.layers[scene.level if len(network.layers) > 1 and network.is_by_level else 0].name
    for label, layer in (("last", read_by_the_last(network, scene.level)), ("default", default)):
        for weights, source in (("trained", network.source), ("random", random)):
            proto = ir.to_proto(source.model)
            with ogc.Explainer(proto, layer, providers=["cpu"], check_forward=False) as explainer:
                for method in METHODS:
                    yield (label, weights, method), explainer.explain(scene.x, scene.target, method).heatmap[0]
    height, width = scene.x.shape[2:]
    y, x = np.mgrid[:height, :width]
    apart = ((y + 0.5) / height - scene.centre[0]) ** 2 + ((x + 0.5) / width - scene.centre[1]) ** 2
    yield ("-", "-", "a bump"), np.exp(-apart / (2 * BUMP**2))
    yield ("-", "-", "flat (chance)"), np.zeros((height, width))
    total, count = np.zeros((2, height, width))
    for place, drop in zip(covered.places, covered.drops, strict=True):
        total[place] += drop
        count[place] += 1
    yield ("-", "-", "occlusion itself"), total / count


def read_by_the_last(network: ogc.Network, level: int) -> str:
    """Return the name of what the last convolution before the cells of a level reads."""
    dense = network.score.dense
    assert dense is not None
    value: Value | None = sources(dense.levels[level].origin())[0]
    while value is not None and (node := value.producer()) is not None:
        value = node.inputs[0]
        if node.op_type in CONVOLUTIONS and value is not None:
            return value.name or ""
    raise LookupError("no convolution lies before the cells")


def table(lines: Sequence[Line]) -> str:
    """Return the means over all cases as a table."""
    rows = dict.fromkeys((line.layer, line.weights, line.method) for line in lines)
    figures = ("deletion", "insertion", "correlation", "spread")
    text = [
        "| layer | weights | map | deletion ↓ | insertion ↑ | occlusion ρ ↑ | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        same = [line for line in lines if (line.layer, line.weights, line.method) == row]
        means = (f"{np.mean([getattr(line, figure) for line in same]):.3f}" for figure in figures)
        text.append(f"| {' | '.join([*row, *means])} |")
    return "\n".join(text)


if __name__ == "__main__":
    main()
