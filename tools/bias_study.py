"""Measures which part of a scene two networks look at, and writes docs/bias.md: a cue that goes with the class, or not.

    python tools/bias_study.py [--scenes 600]
    python tools/bias_study.py --table FOLDER --scenes 60    # the scenes as `onnx-gradcam evaluate` takes them

Figures come from fresh scenes in which the cap says nothing of the sign. Accuracy, the share of the evidence by region,
and the cause: the same scenes with the cap of the other colour.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx_ir as ir
from bias_scenes import CAPS, GOES_WITH, REGIONS, SIGNS, Worker, draw_worker, workers
from measured import digest, kept, with_interval, write_section
from numpy.typing import NDArray

import onnx_gradcam as ogc
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.randomised import weighted_layers, with_random_weights
from onnx_gradcam.metrics.interval import Mean, bootstrap

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"biased": ROOT / "models" / "shapes-biased.onnx", "debiased": ROOT / "models" / "shapes-debiased.onnx"}
PAGE = ROOT / "docs" / "bias.md"
PHOTOS = ROOT / "models" / "images-bias"
SCENES, TRAINING_LIKE_SEED, UNBIASED_SEED, WEIGHTS_SEED = 600, 31, 32, 33
PHOTO_SEEDS = (5, 6)
"""Of one scene for each sign; chosen since the biased model changes its answer with the cap."""
TOGETHER = 50
GROUPS = ("goes with the sign", "goes against it")
CUE, THING = "cap", "sign"
Figures = dict[str, Any]


def pairs(seed: int, count: int) -> list[tuple[Worker, Worker]]:
    """Draw scenes in which the cap says nothing of the sign, each with its twin: the same with the other cap."""
    rng = np.random.default_rng(seed)
    scenes = []
    for number in range(count):
        sign, cap = number % len(SIGNS), int(rng.integers(len(CAPS)))
        own = [int(rng.integers(2**63))]
        scenes.append(tuple(draw_worker(np.random.default_rng(own), sign, each) for each in (cap, 1 - cap)))
    return [(a, b) for a, b in scenes]


def tensors(explainer: ogc.Explainer, scenes: Sequence[Worker]) -> NDArray[np.float32]:
    """Return the scenes as the model takes them: they have its size."""
    spec = explainer.preprocessing().preprocess
    images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (spec.mean, spec.std))
    return np.asarray((images * spec.scale - mean) / std, np.float32)


def explained(explainer: ogc.Explainer, scenes: Sequence[Worker]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the maps of the class that the model puts first, (N, H, W), and these classes, (N,)."""
    maps, classes = [], []
    for start in range(0, len(scenes), TOGETHER):
        explanation = explainer.explain(tensors(explainer, scenes[start : start + TOGETHER]), method="gradcam")
        maps.append(explanation.heatmap)
        classes.append(explanation.class_index)
    return np.concatenate(maps), np.concatenate(classes)


def regions_of(scenes: Sequence[Worker]) -> dict[str, NDArray[np.bool_]]:
    return {name: np.stack([scene.mask(name) for scene in scenes]) for name in REGIONS}


def measure(model: Path, count: int) -> Figures:
    """Return accuracy, evidence and flips of one model, ready for JSON."""
    scenes = pairs(UNBIASED_SEED, count)
    first, twins = ([pair[k] for pair in scenes] for k in (0, 1))
    like_training = list(workers(TRAINING_LIKE_SEED, count, GOES_WITH))
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        maps, top = explained(explainer, first)
        _, top_of_twins = explained(explainer, twins)
        _, top_of_training = explained(explainer, like_training)
    source = load(str(model))
    random = with_random_weights(source, weighted_layers(source), WEIGHTS_SEED)
    with ogc.Explainer(ir.to_proto(random.model), providers=["cpu"], check_forward=False) as explainer:
        random_maps, _ = explained(explainer, first)
    sign, cap = (np.array([getattr(scene, name) for scene in first]) for name in ("sign", "cap"))
    answers = [SIGNS[k] for k in top]
    groups = [GROUPS[int(a != b)] for a, b in zip(sign, cap, strict=True)]
    regions = regions_of(first)
    return {
        "accuracy": {
            "cap goes with the sign in 95 %": asdict(
                bootstrap([float(k == s.sign) for k, s in zip(top_of_training, like_training, strict=True)])
            ),
            "cap says nothing": asdict(bootstrap((top == sign).astype(float).tolist())),
            "of these: cap goes with the sign": asdict(bootstrap((top == sign)[sign == cap].astype(float).tolist())),
            "of these: cap goes against it": asdict(bootstrap((top == sign)[sign != cap].astype(float).tolist())),
        },
        "flips": asdict(bootstrap((top != top_of_twins).astype(float).tolist())),
        "shares": [asdict(each) for each in ogc.evidence_share(maps, regions, classes=answers, groups=groups)],
        "random": [asdict(each) for each in ogc.evidence_share(random_maps, regions)],
        "blank": int((maps.reshape(len(maps), -1).max(axis=1) == 0).sum()),
    }


def share(
    figures: Figures, region: str, label: str | None = None, group: str | None = None, kind: str = "shares"
) -> Any:
    """Return the entry of a region, of all maps or of some."""
    return next(
        each for each in figures[kind] if (each["region"], each["label"], each["group"]) == (region, label, group)
    )


def mean(entry: Mapping[str, Any]) -> Mean:
    return Mean(**entry)


def verdicts(figures_of: Mapping[str, Figures]) -> dict[str, bool]:
    """Return for each thing that the study is made to show whether it does."""
    biased, debiased = (share(figures_of[name], CUE)["share"] for name in MODELS)
    accuracy = {name: figures_of[name]["accuracy"]["cap says nothing"] for name in MODELS}
    return {
        "at least twice as much evidence on the cap": biased["value"] >= 2 * debiased["value"],
        "intervals apart": biased["low"] > debiased["high"],
        "at least 5 points less accurate": accuracy["debiased"]["value"] - accuracy["biased"]["value"] >= 0.05,
        "the cap is the cause": figures_of["biased"]["flips"]["low"] > figures_of["debiased"]["flips"]["high"],
    }


def accuracy_table(figures_of: Mapping[str, Figures]) -> str:
    rows = ["| scenes | biased | debiased |", "| --- | --- | --- |"]
    for name in figures_of["biased"]["accuracy"]:
        rows.append(
            f"| {name} | {' | '.join(with_interval(mean(f['accuracy'][name]), 3) for f in figures_of.values())} |"
        )
    rows.append(
        f"| share of answers that change with the colour of the cap alone | "
        f"{' | '.join(with_interval(mean(f['flips']), 3) for f in figures_of.values())} |"
    )
    return "\n".join(rows)


def share_table(figures_of: Mapping[str, Figures]) -> str:
    rows = ["| region | biased | debiased | biased, random weights | debiased, random weights | area |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for region in REGIONS:
        cells = [with_interval(mean(share(f, region)["share"])) for f in figures_of.values()]
        cells += [with_interval(mean(share(f, region, kind="random")["share"])) for f in figures_of.values()]
        rows.append(f"| {region} | {' | '.join(cells)} | {share(figures_of['biased'], region)['area']['value']:.2f} |")
    return "\n".join(rows)


def part_table(figures_of: Mapping[str, Figures]) -> str:
    rows = ["| maps | biased: cap | biased: sign | debiased: cap | debiased: sign |", "| --- | --- | --- | --- | --- |"]
    parts: list[tuple[str | None, str | None]] = [
        *((label, None) for label in SIGNS),
        *((None, group) for group in GROUPS),
    ]
    parts += [(label, group) for label in SIGNS for group in GROUPS]
    for label, group in parts:
        words = ", ".join(filter(None, (label and f"answer {label}", group and f"cap {group}")))
        cells = [
            with_interval(mean(next(
                (e["share"] for e in f["shares"] if (e["region"], e["label"], e["group"]) == (region, label, group)),
                asdict(Mean(None, None, None, 0, 0)),
            )))
            for f in figures_of.values()
            for region in (CUE, THING)
        ]  # fmt: skip
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def write_table(folder: Path, scenes: Sequence[Worker]) -> Path:
    """Write scenes, the masks of their regions, and the table that names them."""
    lines = [",".join(["path", "label", *(f"region:{name}" for name in REGIONS), "cap"])]
    for name in ("photos", *REGIONS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        cv2.imwrite(str(folder / "photos" / f"{number:03}.png"), scene.image[..., ::-1])
        for name in REGIONS:
            cv2.imwrite(str(folder / name / f"{number:03}.png"), scene.mask(name).astype(np.uint8) * 255)
        masks = (f"{name}/{number:03}.png" for name in REGIONS)
        lines.append(",".join([f"photos/{number:03}.png", SIGNS[scene.sign], *masks, scene.group]))
    table = folder / "scenes.csv"
    table.write_text("\n".join(lines) + "\n", "utf-8")
    return table


def photo_of(number: int) -> tuple[str, NDArray[np.uint8]]:
    """Return a demo photo with its name: one scene for each sign, with both caps, at three times the size."""
    sign, cap = number // 2, number % 2
    scene = draw_worker(np.random.default_rng(PHOTO_SEEDS[sign]), sign, cap, (288, 288))
    return f"{SIGNS[sign]}-with-{CAPS[cap]}-cap", scene.image


def write_photos() -> None:
    """Write the four demo photos."""
    PHOTOS.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        name, image = photo_of(number)
        cv2.imwrite(str(PHOTOS / f"{name}.png"), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def study(count: int) -> dict[str, Figures]:
    """Return the figures of both models; those that were measured before are not measured again."""
    programs = digest(Path(__file__), Path(__file__).with_name("bias_scenes.py"), Path(__file__).with_name("shapes.py"))
    return {
        name: kept(
            {"page": "bias", "model": digest(path), "program": programs, "scenes": count},
            partial(measure, path, count),
        )
        for name, path in MODELS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--json", action="store_true", help="print the figures and write nothing")
    parser.add_argument(
        "--table", type=Path, metavar="FOLDER", help="write scenes and a table of them, and nothing else"
    )
    options = parser.parse_args()
    if options.table is not None:
        print(write_table(options.table, [scene for scene, _ in pairs(UNBIASED_SEED, options.scenes)]))
        return
    figures_of = study(options.scenes)
    if options.json:
        print(json.dumps({"figures": figures_of, "verdicts": verdicts(figures_of)}, indent=1, allow_nan=False))
        return
    write_section(PAGE, "bias-accuracy", accuracy_table(figures_of))
    write_section(PAGE, "bias-evidence", share_table(figures_of))
    write_section(PAGE, "bias-parts", part_table(figures_of))
    write_photos()
    for name, holds in verdicts(figures_of).items():
        print(f"{'yes' if holds else 'NO '}  {name}")


if __name__ == "__main__":
    main()
