"""Where the maps of the tasks' models lie: answers, captions, boxes and class maps on drawn scenes, into docs/tasks.md.

    python tools/task_pointing.py [--scenes 500] [--print]

In each scene two or three objects stand, and the map of what is said of an object should have its maximum on it. Beside
the share of maps that do stand the chance, the share of the scene that the objects cover, and the same network with
random weights. Questions are answered with the right answer, captions are the right sentence: how often the model says
that by itself is measured, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measured import ROOT, digest, kept, with_interval, write_section
from shapes import CLASSES
from task_quality import Tensors, answers_right, captions_right, objects_found, pixels_right
from task_scenes import (
    ANSWERS,
    CAPTION_WORDS,
    QUESTION_WORDS,
    START,
    NamedScene,
    about_objects,
    describe,
    draw_named,
)

import onnx_gradcam as ogc
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.randomised import weighted_layers, with_random_weights
from onnx_gradcam.metrics.interval import Mean, bootstrap
from onnx_gradcam.metrics.regions import pointing_game
from onnx_gradcam.photos.tensor import to_tensor

MODELS, PAGE = ROOT / "models", ROOT / "docs" / "tasks.md"
SCENES, SEED, PIECE = 500, 31, 50
Hits = dict[str, list[tuple[int, float]]]
Target = int | str | ogc.TargetObject


@dataclass(frozen=True, eq=False)
class Case:
    """A map that is judged: ``scene`` is its number, ``region`` where its maximum should lie, ``text`` the words."""

    group: str
    scene: int
    target: Target
    region: NDArray[np.bool_]
    text: tuple[str, ...] = ()


# What is explained of a scene.


def of_questions(scene: NamedScene, number: int) -> Iterator[Case]:
    """One question of each kind whose answer is about an object."""
    for kind, asked in about_objects(np.random.default_rng([SEED, number]), scene.things).items():
        region = scene.masks[list(asked.about)].any(axis=0)
        yield Case(kind, number, ANSWERS.index(asked.answer), np.asarray(region), asked.words)


def of_caption(scene: NamedScene, number: int) -> Iterator[Case]:
    """The words that name an object, and the sentence, which names both."""
    sentence = describe(scene.things)
    tokens = [CAPTION_WORDS.index(word) for word in sentence.words]
    text = (START, *sentence.words[:-1])
    for step, about in enumerate(sentence.about):
        if about is not None:
            group = "outline" if sentence.words[step] in CLASSES else "colour"
            yield Case(group, number, ogc.Tokens([tokens[step]], [step], logits=True), scene.masks[about], text)
    yield Case("sentence", number, ogc.Tokens(tokens, logits=True), np.asarray(scene.masks.any(axis=0)), text)


def of_objects(scene: NamedScene, number: int) -> Iterator[Case]:
    """The class of each object."""
    for thing, mask in zip(scene.things, scene.masks, strict=True):
        yield Case("object", number, CLASSES[thing.outline], mask)


@dataclass(frozen=True)
class Judged:
    """A model: what is explained of it, by which methods, of how many objects its scenes are, and how good it is.

    ``text`` is the name of the input for words, and ``words`` the vocabulary. The groups in ``pooled`` stand together
    as "word", too.
    """

    cases: Callable[[NamedScene, int], Iterator[Case]]
    methods: tuple[str, ...]
    objects: int
    quality: Callable[[ogc.Explainer, Sequence[NamedScene], Tensors], dict[str, float]]
    text: str = ""
    words: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()


TASKS: Mapping[str, Judged] = {
    "shapes-vqa": Judged(of_questions, ("gradcam",), 3, answers_right, "question", QUESTION_WORDS),
    "shapes-caption": Judged(
        of_caption,
        ("gradcam", "layercam", "hirescam"),
        2,
        captions_right,
        "caption",
        CAPTION_WORDS,
        ("colour", "outline"),
    ),
    "shapes-detector": Judged(of_objects, ("hirescam", "gradcam"), 3, objects_found),
    "shapes-segmenter": Judged(of_objects, ("hirescam", "gradcam"), 3, pixels_right),
}
"""The first method is the default."""


# Measuring.


def draw(count: int, objects: int) -> list[NamedScene]:
    rng = np.random.default_rng([SEED, objects])
    return [draw_named(rng, objects) for _ in range(count)]


def tensors(explainer: ogc.Explainer, scenes: Sequence[NamedScene]) -> Tensors:
    spec = explainer.preprocessing().preprocess
    return np.concatenate([to_tensor(scene.image, spec)[0] for scene in scenes])


def rows_of_tokens(texts: Sequence[Sequence[str]], words: Sequence[str], length: int) -> NDArray[np.int64]:
    """Texts as rows of tokens, padded with 0."""
    rows = [[*map(words.index, text), *[0] * (length - len(text))] for text in texts]
    return np.array(rows, np.int64)


def hits(explainer: ogc.Explainer, task: Judged, scenes: Sequence[NamedScene], x: Tensors, method: str) -> Hits:
    """For each group of cases the scene of each map, and whether its maximum lies in its region."""
    cases = [case for number, scene in enumerate(scenes) for case in task.cases(scene, number)]
    found: Hits = {group: [] for group in groups_of(task, cases)}
    for start in range(0, len(cases), PIECE):
        piece = cases[start : start + PIECE]
        feeds: dict[str, NDArray[Any]] = {"image": x[[case.scene for case in piece]]}
        if task.text:
            length = explainer.inputs[task.text].shape[1] or 0
            feeds[task.text] = rows_of_tokens([case.text for case in piece], task.words, length)
        explanation = explainer.explain(feeds, [case.target for case in piece], method)
        for case, heatmap in zip(piece, explanation.heatmap, strict=True):
            hit = case.scene, pointing_game(heatmap, case.region)
            for group in groups_of(task, [case]):
                found[group].append(hit)
    return found


def groups_of(task: Judged, cases: Sequence[Case]) -> list[str]:
    """The groups in which cases are counted."""
    together = ["word"] if any(case.group in task.pooled for case in cases) else []
    return [*dict.fromkeys(case.group for case in cases), *together]


def mean_of(hits_of_group: Sequence[tuple[int, float]]) -> Mean:
    """The rate of a group, with an interval in which the maps of a scene are drawn together."""
    return bootstrap([hit for _, hit in hits_of_group], [scene for scene, _ in hits_of_group])


def chance(task: Judged, scenes: Sequence[NamedScene]) -> dict[str, float]:
    """For each group the mean share of the scene that a region covers."""
    shares: dict[str, list[float]] = {}
    for number, scene in enumerate(scenes):
        for case in task.cases(scene, number):
            for group in groups_of(task, [case]):
                shares.setdefault(group, []).append(float(case.region.mean()))
    return {group: float(np.mean(values)) for group, values in shares.items()}


def shuffled(path: Path) -> ogc.Network:
    """The network in which the values of each weight stand in a random order."""
    source = load(path)
    return ogc.Network(with_random_weights(source, weighted_layers(source)), options=ogc.Options(("cpu",)))


def measure(name: str, count: int) -> dict[str, Any]:
    """The figures of a model, ready for JSON."""
    task, path = TASKS[name], MODELS / f"{name}.onnx"
    scenes = draw(count, task.objects)
    with ogc.Explainer(path, providers=["cpu"]) as trained:
        x = tensors(trained, scenes)
        maps = {method: hits(trained, task, scenes, x, method) for method in task.methods}
        quality = task.quality(trained, scenes, x)
    with ogc.Explainer(shuffled(path)) as untrained:
        others = hits(untrained, task, scenes, x, task.methods[0])
    return {
        "maps": {method: {g: asdict(mean_of(v)) for g, v in groups.items()} for method, groups in maps.items()},
        "random": {group: mean_of(values).value for group, values in others.items()},
        "chance": chance(task, scenes),
        "quality": quality,
    }


# The page.


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the maps lie, one line for each model, what is explained and method."""
    lines = ["| model | the map of | method | on the object | n | chance | random weights |", "| --- " * 7 + "|"]
    for name, of in figures.items():
        for method, groups in of["maps"].items():
            for group, mean in groups.items():
                other = f"{of['random'][group]:.2f}" if method == TASKS[name].methods[0] else "-"
                rate = with_interval(Mean(**mean))
                lines.append(
                    f"| `{name}` | {group} | {method} | {rate} | {mean['n']} | {of['chance'][group]:.2f} | {other} |"
                )
    return "\n".join(lines)


def qualities(figures: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| model | measured | value |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {what} | {v:.3f} |" for name, of in figures.items() for what, v in of["quality"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--only", action="append", choices=TASKS, metavar="NAME")
    parser.add_argument("--print", action="store_true", help="print the tables, and write no page")
    options = parser.parse_args()
    figures = {}
    for name in options.only or TASKS:
        files = digest(MODELS / f"{name}.onnx", *sorted(Path(__file__).parent.glob("task_*.py")))
        question = {"what": "pointing of tasks", "model": name, "scenes": options.scenes, "sha256": files}
        figures[name] = kept(question, partial(measure, name, options.scenes))
    if options.print:
        print(table(figures), qualities(figures), sep="\n\n")
        return
    write_section(PAGE, "pointing", table(figures))
    write_section(PAGE, "quality", qualities(figures))


if __name__ == "__main__":
    main()
