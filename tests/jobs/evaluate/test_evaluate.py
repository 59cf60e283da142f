"""The figures of an evaluation: against naive metrics of maps that are made here, and over all photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import metric_oracles
import numpy as np
import onnx_ir as ir
import pytest
from labelled import LABELS, SIDE, network, photo, pixels_of, table
from nets import run
from repository import DOCS

import onnx_gradcam as ogc
from onnx_gradcam.copies.baselines import blurred, mean_colour
from onnx_gradcam.copies.covering import occlude
from onnx_gradcam.explain.probing import ImageProbe
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.randomised import weighted_layers, with_random_weights
from onnx_gradcam.metrics.interval import bootstrap
from onnx_gradcam.metrics.table import METRICS

SCHEMA = json.loads((DOCS / "evaluation.schema.json").read_text("utf-8"))
MODEL = network()
HOW: dict[str, Any] = {"labels": LABELS, "preprocess": "zero-one,stretch", "providers": ["cpu"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed in range(3):
        photo(folder / f"{seed}.png", seed)
    sky = np.zeros((SIDE, SIDE), np.uint8)
    sky[:5] = 255
    cv2.imwrite(str(folder / "sky.png"), sky)
    return table(
        folder,
        "0.png,star,2 3 9 12,,a,1 1 7 9,sky.png",
        "0.png,moon,10 1 15 7,,a",
        "1.png,heart,0 0 16 16,,b",
        "2.png,2,4 4 12 10,,b",
    )


@pytest.fixture(scope="module")
def evaluation(data: Path) -> ogc.EvaluationResult:
    return ogc.evaluate(MODEL, data, "all".split(), cluster="group", **HOW)


class Own:
    """What metrics need of one row, made with the public API and onnxruntime alone."""

    def __init__(self, model: Any, x: np.ndarray, index: int) -> None:
        self.explainer = ogc.Explainer(model, labels=LABELS, providers=["cpu"])
        self.x, self.index = x, index

    def maps(self, copies: np.ndarray, index: int | None = None) -> np.ndarray:
        index = self.index if index is None else index
        return self.explainer.explain(copies.astype(np.float32), [index] * len(copies)).heatmap

    def gradient(self, copies: np.ndarray) -> np.ndarray:
        attribution = self.explainer.explain(copies.astype(np.float32), self.index, "saliency", signed=True).attribution
        assert attribution is not None
        return attribution


def scores(copies: np.ndarray, index: int) -> np.ndarray:
    return run(MODEL, {"image": copies.astype(np.float32)})["logits"][:, index]


def probability(copies: np.ndarray, index: int) -> np.ndarray:
    logits = run(MODEL, {"image": copies.astype(np.float32)})["logits"].astype(np.float64)
    return np.exp(logits[:, index]) / np.exp(logits).sum(axis=1)


def proto(layers: Any) -> Any:
    return ir.to_proto(with_random_weights(load(MODEL), layers).model)


@pytest.fixture(scope="module")
def have() -> dict[str, Any]:
    """What the first row of the table needs."""
    x = pixels_of(0).transpose(2, 0, 1).astype(np.float32) / 255
    own, layers = Own(MODEL, x, 1), weighted_layers(load(MODEL))
    region = np.zeros((SIDE, SIDE), bool)
    region[3:12, 2:9] = True
    rest = [c for c in range(3) if c != 1]
    logits = run(MODEL, {"image": x[None]})["logits"][0]
    from_top = [Own(proto(layers[: k + 1]), x, 1).maps(x[None])[0] for k in range(len(layers))]
    alone = [Own(proto([layer]), x, 1).maps(x[None])[0] for layer in layers]
    badge = np.zeros((SIDE, SIDE), bool)
    badge[1:9, 1:7] = True
    return {
        "x": x,
        "heatmap": own.maps(x[None])[0],
        "probability": lambda copies: probability(copies, 1),
        "baseline": mean_colour(x),
        "blurred": blurred(x),
        "occluded": occlude(x, lambda copies: scores(copies, 1), mean_colour(x)),
        "explain": own.maps,
        "gradient": own.gradient,
        "region": region,
        "regions": {"badge": badge, "sky": np.arange(SIDE)[:, None] * np.ones(SIDE) < 5},
        "region_name": "badge",
        "boxes": np.array([[2.0, 3, 9, 12]]),
        "rank": int((logits > logits[1]).sum()),
        "maps_of_others": own.maps(x[None], 2),
        "map_of_random_class": own.maps(x[None], int(np.random.default_rng([0, 0]).choice(rest)))[0],
        "randomised_from_top": np.array(from_top),
        "randomised_alone": np.array(alone),
        "random_map": Own(proto(layers), x, 1).maps(x[None])[0],
    }


@pytest.mark.parametrize("name", METRICS)
def test_a_figure_is_that_of_the_naive_metric_on_the_map(
    evaluation: ogc.EvaluationResult, have: dict[str, Any], name: str
) -> None:
    expected = metric_oracles.ORACLES[name](**{need: have[need] for need in METRICS[name].needs})
    found = evaluation.rows[0].figures[f"{name}:badge" if name == "evidence-share" else name]
    assert found == pytest.approx(expected, rel=2e-3 if name == "road" else 1e-4, abs=1e-5)


PERTURBING = ["deletion", "insertion", "average-drop", "infidelity", "energy", "pointing", "sparseness"]


@pytest.mark.parametrize("name", PERTURBING)
def test_random_weights_draw_the_map_and_the_deployed_network_judges_it(
    evaluation: ogc.EvaluationResult, have: dict[str, Any], name: str
) -> None:
    beside = {**have, "heatmap": have["random_map"]}
    expected = metric_oracles.ORACLES[name](**{need: beside[need] for need in METRICS[name].needs})
    assert evaluation.rows[0].random_weights[name] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", PERTURBING)
def test_chance_is_a_map_that_is_flat_or_a_bell(
    evaluation: ogc.EvaluationResult, have: dict[str, Any], name: str
) -> None:
    at = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    bell = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 0.25**2))
    beside = {**have, "heatmap": np.ones((SIDE, SIDE)) if METRICS[name].chance == "flat" else bell}
    expected = metric_oracles.ORACLES[name](**{need: beside[need] for need in METRICS[name].needs})
    assert evaluation.rows[0].chance[name] == pytest.approx(expected, rel=1e-4, abs=1e-5)


PLACES = (
    "energy",
    "pointing",
    "iou",
    "centroid-distance",
    "boundary-distance",
    "localisation-error",
    "localisation-error-30",
    "localisation-error-50",
    "localisation-error-top1",
    "localisation-error-top5",
)


def test_the_ceiling_is_a_map_that_knows_the_region(evaluation: ogc.EvaluationResult, have: dict[str, Any]) -> None:
    """The cells of the last layer are 2 × 2 pixels; each holds the share of the region in it."""
    cells = have["region"].reshape(8, 2, 8, 2).mean(axis=(1, 3)).astype(np.float32)
    enlarged = cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    beside = {**have, "heatmap": enlarged / enlarged.max()}
    expected = {n: metric_oracles.ORACLES[n](**{need: beside[need] for need in METRICS[n].needs}) for n in PLACES}
    assert evaluation.rows[0].ceiling == pytest.approx(expected, rel=1e-5)
    assert {result.name for result in evaluation.metrics if result.ceiling} == set(PLACES)
    assert evaluation["energy"].ceiling == bootstrap([row.ceiling["energy"] for row in evaluation.rows], list("aabb"))


def test_how_often_the_model_is_right(evaluation: ogc.EvaluationResult) -> None:
    first = [
        run(MODEL, {"image": pixels_of(seed).transpose(2, 0, 1)[None].astype(np.float32) / 255}) for seed in range(3)
    ]
    top = [int(outputs["logits"].argmax()) for outputs in first]
    right = [top[0] == 1, top[0] == 2, top[1] == 0, top[2] == 2]
    assert evaluation.accuracy == sum(right) / 4
    assert [row.rank == 0 for row in evaluation.rows] == right


def test_the_mean_of_a_metric_draws_whole_clusters(evaluation: ogc.EvaluationResult) -> None:
    values = [row.figures["energy"] for row in evaluation.rows]
    assert evaluation["energy"].map == bootstrap(values, ["a", "a", "b", "b"])
    assert evaluation["energy"].chance == bootstrap([row.chance["energy"] for row in evaluation.rows], list("aabb"))
    assert [row.cluster for row in evaluation.rows] == ["a", "a", "b", "b"]


def test_discrimination_is_measured_where_a_photo_has_several_classes(evaluation: ogc.EvaluationResult) -> None:
    assert [row.figures["discrimination"] is None for row in evaluation.rows] == [False, False, True, True]
    assert evaluation["discrimination"].map.n == 2
    assert evaluation["discrimination"].chance == bootstrap([0.5, 0.5], ["a", "a"])


def test_evidence_is_shared_out_among_named_regions(evaluation: ogc.EvaluationResult, have: dict[str, Any]) -> None:
    badge, sky = have["regions"].values()
    figures = evaluation.rows[0].figures
    evidence = np.maximum(have["heatmap"], 0) / np.maximum(have["heatmap"], 0).sum()
    expected = {"badge": evidence[badge].sum(), "sky": evidence[sky].sum(), "elsewhere": evidence[~badge & ~sky].sum()}
    for name, share in expected.items():
        assert figures[f"evidence-share:{name}"] == pytest.approx(share, rel=1e-5)
        assert evaluation.rows[0].chance[f"evidence-share:{name}"] == pytest.approx(
            {"badge": 48 / 256, "sky": 80 / 256, "elsewhere": (256 - 48 - 80 + 24) / 256}[name]
        )
        assert evaluation.rows[3].figures[f"evidence-share:{name}"] is None
    result = evaluation["evidence-share:badge"]
    assert (result.better, result.map.n) == ("neither", 1)
    assert [(part.label, part.group) for part in result.parts] == [("star", None)]
    assert evaluation["energy"].parts == ()


def test_figures_by_class_and_by_group(data: Path) -> None:
    evaluation = ogc.evaluate(MODEL, data, ["energy"], group="group", cluster="path", **HOW)
    values = [row.figures["energy"] for row in evaluation.rows]
    assert [row.group for row in evaluation.rows] == ["a", "a", "b", "b"]
    parts = {(part.label, part.group): part.map for part in evaluation["energy"].parts}
    assert list(parts) == [
        ("star", None), ("moon", None), ("heart", None), (None, "a"), (None, "b"), ("star", "a"), ("moon", "a"),
        ("moon", "b"), ("heart", "b"),
    ]  # fmt: skip
    assert parts[None, "b"] == bootstrap(values[2:], ["1.png", "2.png"])
    assert parts["moon", None] == bootstrap([values[1], values[3]])
    assert parts["moon", None].value == pytest.approx((values[1] + values[3]) / 2)
    random = next(part.random_weights for part in evaluation["energy"].parts if part.group == "a" and not part.label)
    assert random == bootstrap([row.random_weights["energy"] for row in evaluation.rows[:2]], ["0.png", "0.png"])


def test_a_curve_is_the_mean_of_all(evaluation: ogc.EvaluationResult) -> None:
    curves = evaluation["deletion"].curves
    assert curves.keys() == {"shares", "map", "chance", "random_weights"}
    probabilities = [row.probability for row in evaluation.rows]
    assert curves["map"][0] == curves["chance"][0] == pytest.approx(np.mean(probabilities), rel=1e-5)
    area = np.mean((np.array(curves["map"])[1:] + np.array(curves["map"])[:-1]) / 2)
    assert area == pytest.approx(evaluation["deletion"].map.value, rel=1e-5)
    assert evaluation["energy"].curves == {}


def test_equal_seeds_give_equal_figures(data: Path) -> None:
    names = ["deletion", "random-class"]
    first, again, other = (ogc.evaluate(MODEL, data, names, seed=seed, **HOW) for seed in (0, 0, 1))
    assert first == again
    assert first.rows[0].figures["deletion"] == other.rows[0].figures["deletion"]
    assert first.rows[0].random_weights != other.rows[0].random_weights


def test_only_what_the_metrics_need_is_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = {"scores": 0, "maps_and_grid": 0}
    for name in images:
        original = getattr(ImageProbe, name)

        def counting(
            self: ImageProbe, copies: np.ndarray, *more: Any, _name: str = name, _original: Any = original
        ) -> Any:
            images[_name] += len(copies)
            return _original(self, copies, *more)

        monkeypatch.setattr(ImageProbe, name, counting)
    ogc.evaluate(MODEL, data, ["pointing", "energy"], **HOW)
    assert images == {"scores": 4, "maps_and_grid": 8}  # of 4 samples: the ranks; the map, and that of random weights
    images.update(scores=0, maps_and_grid=0)
    ogc.evaluate(MODEL, data, ["occlusion-correlation", "infidelity"], **HOW)
    assert images == {"scores": 4 + 4 * 257, "maps_and_grid": 8}  # every patch once, for all maps and both metrics


def test_channels_may_come_last(data: Path) -> None:
    names = ["deletion", "insertion", "fgsm-stability", "average-drop"]
    first, last = (ogc.evaluate(network(layout), data, names, **HOW) for layout in ("NCHW", "NHWC"))
    for a, b in zip(first.rows, last.rows, strict=True):
        assert a.figures == pytest.approx(b.figures, rel=1e-4, abs=1e-6)


def test_a_method_of_the_input(data: Path) -> None:
    evaluation = ogc.evaluate(MODEL, data, ["deletion", "cascading-randomisation"], method="saliency", **HOW)
    assert evaluation.layers == ()
    assert evaluation.method == "saliency"
    assert all(row.figures["deletion"] is not None for row in evaluation.rows)


def test_json_follows_its_schema(evaluation: ogc.EvaluationResult, tmp_path: Path) -> None:
    jsonschema.validate(evaluation.as_dict(), SCHEMA)
    path = evaluation.save(tmp_path / "out")
    content = json.loads(path.read_text("utf-8"))
    jsonschema.validate(content, SCHEMA)
    pictures = {metric["picture"] for metric in content["metrics"]}
    assert pictures == set(content["files"]) == {file.name for file in path.parent.iterdir()} - {path.name}


def test_an_earlier_evaluation_stays(evaluation: ogc.EvaluationResult, data: Path, tmp_path: Path) -> None:
    evaluation.save(tmp_path)
    smaller = ogc.evaluate(MODEL, data, ["energy"], **HOW)
    with pytest.raises(ogc.OutputError, match="already holds an evaluation"):
        smaller.save(tmp_path)
    smaller.save(tmp_path, overwrite=True)
    assert {file.name for file in tmp_path.iterdir()} == {"energy.png", "evaluation.json"}
