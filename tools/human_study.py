"""Make a questionnaire about maps for people, and count their answers: the two studies of Grad-CAM's paper in small.

    python tools/human_study.py make -o study [--scenes 20] [--seed 0]
    python tools/human_study.py analyse study/key.json ANSWERS.json... [--json]

``make`` writes ``questionnaire.html``, one page that works without a network, and ``key.json``, which stays with
whoever runs the study. The page asks two questions. "Which object?" (sec. 5.1): a drawn scene holds two objects, each
method shows the map of one of them, and the rater says which one it is; where a method discriminates classes, more
than half of the answers are right. "Which model?" (sec. 5.2): two models are right about the same picture, their maps
stand side by side, and the rater says which model is more reliable; the key knows which one errs less. The page names
no method and no model, and its order and its sides are drawn from the seed.

``analyse`` gives the share of right answers by method with Wilson's interval, beside chance. No answers of people
come with this project, and none are claimed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from shapes import CLASSES, Image, Scene, single_object, two_objects

import onnx_gradcam as ogc
from onnx_gradcam.results.picture.overlay import encode_png

TEMPLATE = Path(__file__).with_suffix(".html")
MODELS = Path(__file__).resolve().parent.parent / "models"
METHODS = ("gradcam", "guided-gradcam", "guided-backprop", "deconvolution")
PAIR = ("shapes-resnet", "shapes-vgg")
OBJECT, MODEL = "object", "model"
QUESTIONS = {
    OBJECT: "Which object does the picture point at?",
    MODEL: "Both programs named this object rightly. Which one looks more reliable?",
}
WELCOME = "You will see pictures in which a program marks what it looks at. There is no time limit. If in doubt, guess."
THANKS = "Save the answers and send the file to whoever asked you."
DEGREES = ("A clearly", "A slightly", "Both alike", "B slightly", "B clearly")
TEST_SCENES = 200
LEVEL = 0.95
SHOWN = ogc.Style(photo="grey")

Item = dict[str, Any]


class StudyError(Exception):
    """Something in a key or in a file of answers that cannot be counted."""


# Making the questionnaire.


def data_uri(image: Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()


def picture_of(explainer: ogc.Explainer, scene: Scene, class_index: int, method: str) -> str:
    """Return the map of one class, without a word on it: over the grey scene, or alone where it has details."""
    explanation = explainer.explain_image(scene.image, class_index, method)
    return data_uri(explanation.detail() if explanation.has_detail else explanation.overlay(style=SHOWN))


def object_items(explainer: ogc.Explainer, scenes: int, rng: np.random.Generator) -> Iterator[Item]:
    """Yield the first question for every scene and every method."""
    for _ in range(scenes):
        scene = two_objects(rng)
        shown, other = scene.labels
        choices = sorted((CLASSES[shown], CLASSES[other]))
        for method in METHODS:
            yield {
                "question": OBJECT,
                "group": method,
                "pictures": [picture_of(explainer, scene, shown, method)],
                "names": ["Picture"],
                "choices": choices,
                "right": choices.index(CLASSES[shown]),
            }


def model_items(
    explainers: Mapping[str, ogc.Explainer], better: str, scenes: int, rng: np.random.Generator
) -> Iterator[Item]:
    """Yield the second question for scenes that both models name rightly, once for each of two methods."""
    made = 0
    while made < scenes:
        scene = single_object(rng)
        rows = [explainer.explain_image(scene.image) for explainer in explainers.values()]
        if any(int(row.class_index[0]) != scene.labels[0] for row in rows):
            continue
        made += 1
        for method in ("guided-backprop", "guided-gradcam"):
            order = [list(explainers)[k] for k in rng.permutation(2)]
            pictures = [picture_of(explainers[name], scene, scene.labels[0], method) for name in order]
            yield {
                "question": MODEL,
                "group": method,
                "pictures": pictures,
                "names": ["A", "B"],
                "choices": list(DEGREES),
                "right": order.index(better),
            }


def accuracy(explainer: ogc.Explainer, seed: int) -> float:
    """Return the share of fresh scenes with one object whose class comes first."""
    rng = np.random.default_rng([seed, 2])
    scenes = [single_object(rng) for _ in range(TEST_SCENES)]
    explanations = explainer.explain_images([scene.image for scene in scenes])
    return float(np.mean([int(e.class_index[0]) == s.labels[0] for e, s in zip(explanations, scenes, strict=True)]))


def questionnaire(scenes: int, seed: int, pair: Sequence[str] = PAIR) -> tuple[str, dict[str, Any]]:
    """Return the page, and its key."""
    explainers = {name: ogc.Explainer(MODELS / f"{name}.onnx", providers=["cpu"]) for name in pair}
    accuracies = {name: accuracy(explainer, seed) for name, explainer in explainers.items()}
    better = max(accuracies, key=accuracies.__getitem__)
    rng = np.random.default_rng([seed, 0])
    items = [*object_items(explainers[better], scenes, rng), *model_items(explainers, better, scenes, rng)]
    for explainer in explainers.values():
        explainer.close()
    for number, item in enumerate(items):
        item["id"] = hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()[:12]
    order = rng.permutation(len(items))
    study = hashlib.sha256(json.dumps([items[k]["id"] for k in order], allow_nan=False).encode()).hexdigest()[:12]
    asked = [{name: items[k][name] for name in ("id", "question", "pictures", "names", "choices")} for k in order]
    content = {
        "id": study,
        "welcome": WELCOME,
        "thanks": THANKS,
        "questions": QUESTIONS,
        "items": asked,
    }
    page = TEMPLATE.read_text(encoding="utf-8").replace("$study", embedded(content))
    key = {
        "study": study,
        "seed": seed,
        "accuracy": accuracies,
        "items": {item["id"]: {name: item[name] for name in ("question", "group", "right")} for item in items},
    }
    return page, key


def embedded(content: object) -> str:
    """Return JSON that cannot end the script element in which it stands."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


# Counting the answers.


@dataclass(frozen=True)
class Share:
    """The right answers to one question about one method.

    ``low`` and ``high`` are the ends of Wilson's interval of 95 %. ``score`` is the mean degree in which raters prefer
    the better model, from −2 to 2; None for the question that has no degrees. Answers that prefer neither are not in
    ``n``.
    """

    question: str
    group: str
    right: int
    n: int
    low: float
    high: float
    raters: int
    score: float | None = None

    @property
    def value(self) -> float:
        return self.right / self.n if self.n else math.nan


def wilson(right: int, n: int) -> tuple[float, float]:
    """(p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n), p = right / n.   Wilson 1927.

    Nothing is known of no answers: (0, 1).
    """
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    p = right / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def read_answers(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers of one rater. Raises ``StudyError`` for answers that are not this study's."""
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))
        study, rater, chosen = answers["study"], str(answers["rater"]), dict(answers["answers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} holds no answers: {error!r}; the page saves them as answers-CODE.json") from error
    if study != key["study"]:
        raise StudyError(f"{path} answers study {study!r}, and the key is that of {key['study']!r}: take its own key")
    for name, choice in chosen.items():
        known = key["items"].get(name)
        if known is None or choice not in range(len(DEGREES) if known["question"] == MODEL else 2):
            raise StudyError(f"{path}: {name!r} was answered by {choice!r}, which the questionnaire does not offer")
    return {"rater": rater, "answers": chosen}


def one_each(answered: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the answers. Raises ``StudyError`` where two files are those of one rater: they would count twice."""
    raters = [of_rater["rater"] for of_rater in answered]
    twice = sorted({rater for rater in raters if raters.count(rater) > 1})
    if twice:
        raise StudyError(f"two files of answers come from {', '.join(twice)}: give each rater a code of their own")
    return answered


def preference(choice: int, right: int) -> int:
    """Return how much a choice among ``DEGREES`` prefers the better model, which stands at ``right``: from −2 to 2."""
    to_b = choice - len(DEGREES) // 2
    return to_b if right else -to_b


def analyse(key: Mapping[str, Any], answered: Iterable[Mapping[str, Any]]) -> list[Share]:
    """Return the share of right answers for each question and each method."""
    votes: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for of_rater in answered:
        for name, choice in of_rater["answers"].items():
            item = key["items"][name]
            asks_object = item["question"] == OBJECT
            vote = (1 if choice == item["right"] else -1) if asks_object else preference(choice, item["right"])
            votes.setdefault((item["question"], item["group"]), []).append((of_rater["rater"], vote))
    return [_share(question, group, votes[question, group]) for question, group in sorted(votes)]


def _share(question: str, group: str, votes: Sequence[tuple[str, int]]) -> Share:
    decided = [vote for _, vote in votes if vote]
    right, n = sum(vote > 0 for vote in decided), len(decided)
    score = float(np.mean([vote for _, vote in votes])) if question == MODEL else None
    return Share(question, group, right, n, *wilson(right, n), len({rater for rater, _ in votes}), score)


def table(shares: Sequence[Share]) -> str:
    lines = ["question  method            right       95 %          n  raters  mean preference"]
    for share in shares:
        score = "" if share.score is None else f"{share.score:+.2f}"
        start = f"{share.question:<8}  {share.group:<16}  {share.value:.3f}  {share.low:.3f}–{share.high:.3f}"
        lines.append(f"{start}  {share.n:>6}  {share.raters:>6}  {score}".rstrip())
    lines.append("Chance is 0.5. The interval takes all answers as independent; those of one rater are not quite.")
    return "\n".join(lines)


# The program.


def make(folder: Path, scenes: int, seed: int) -> None:
    page, key = questionnaire(scenes, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "questionnaire.html").write_text(page, encoding="utf-8")
    (folder / "key.json").write_text(json.dumps(key, indent=1, allow_nan=False), encoding="utf-8")
    print(f"{folder / 'questionnaire.html'}: {len(key['items'])} questions, {len(page) / 1e6:.1f} MB")
    print(f"{folder / 'key.json'}: the right answers; raters must not see them")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write the questionnaire and its key")
    making.add_argument("-o", dest="folder", type=Path, default=Path("human-study"))
    making.add_argument("--scenes", type=int, default=20, help="for each question (20)")
    making.add_argument("--seed", type=int, default=0)
    counting = commands.add_parser("analyse", help="count the answers")
    counting.add_argument("key", type=Path)
    counting.add_argument("answers", type=Path, nargs="+")
    counting.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.command == "make":
        make(options.folder, options.scenes, options.seed)
        return 0
    try:
        key = json.loads(options.key.read_text(encoding="utf-8"))
        shares = analyse(key, one_each([read_answers(path, key) for path in options.answers]))
    except (StudyError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [{**asdict(share), "value": share.value if share.n else None} for share in shares]
    print(json.dumps(rows, indent=1, allow_nan=False) if options.json else table(shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())
