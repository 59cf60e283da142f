"""Targets in the text of ``--target``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from onnx_gradcam.errors import TargetError
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.boxes import Box
from onnx_gradcam.targets.classes import Classes, TopK, class_index
from onnx_gradcam.targets.contrasts import Difference, Finer, LogProbability, Output, Probability
from onnx_gradcam.targets.outputs import Similar, Tokens
from onnx_gradcam.targets.regions import Region
from onnx_gradcam.targets.resolve import Each, Target
from onnx_gradcam.targets.suppression import MOST, Boxes


@dataclass(frozen=True)
class Reader:
    """What is needed to read the text of a target.

    Attributes:
        count: the number of classes.
        labels: their labels; None: not known.
    """

    count: int
    labels: Sequence[str] | None

    def index(self, text: str) -> int:
        """Return the class index that the text names."""
        return class_index(text.strip(), self.count, self.labels)

    def class_of(self, text: str) -> int | None:
        """Return the class index that the text names, or None for ``top1`` or nothing."""
        return None if text in ("", "top1") else self.index(text)


@dataclass(frozen=True)
class TargetForm:
    """A form of ``--target``.

    Attributes:
        read: makes the target of the text behind the colon.
        example: the form as a user writes it.
        meaning: what is explained, in words.
    """

    read: Callable[[Reader, str], TargetObject]
    example: str
    meaning: str


def parse(texts: Sequence[str], count: int, labels: Sequence[str] | None) -> Target:
    """Return the target of one or several ``--target`` options; several are explained for every image.

    Args:
        texts: each is ``top1``, ``top5``, ``boxes``, a class index, a label, or a form of ``READERS``.
        count: the number of classes.
        labels: their labels; None: not known.

    Raises:
        TargetError: an unknown or ambiguous label, a class out of range, or no target.
    """
    if len(texts) > 1:
        several = [_one(text, count, labels) for text in texts]
        if any(isinstance(t, TargetObject) for t in several):
            return Each(several)
        return Classes([t for t in several if not isinstance(t, TargetObject)])
    text = texts[0]
    if text == "top1":
        return None
    if text.startswith("top") and text[3:].isdecimal():
        return TopK(int(text[3:]))
    return _one(text, count, labels)


def _one(text: str, count: int, labels: Sequence[str] | None) -> int | TargetObject:
    if several := BOXES.fullmatch(text):
        return _several_boxes(*several.groups())
    name, colon, rest = text.partition(":")
    if colon and name in READERS:
        return READERS[name].read(Reader(count, labels), rest)
    return class_index(text, count, labels)


BOXES = re.compile(r"boxes(\d*)(?:@(\d*\.?\d+))?")
"""boxes, boxes5, boxes@0.4, boxes5@0.4: how many at most, and from which probability on."""


def _several_boxes(most: str | None, threshold: str | None) -> Boxes:
    return Boxes(int(most) if most else MOST, float(threshold) if threshold else None)


def _difference(reader: Reader, text: str) -> Difference:
    """Read ``A,B``; where labels have commas, at the one comma at which both sides are classes."""
    commas = [i for i, letter in enumerate(text) if letter == ","]
    pairs, reason = [], None
    for i in commas:
        try:
            pairs.append((reader.class_of(text[:i]), reader.index(text[i + 1 :])))
        except TargetError as error:
            reason = error
    if len(pairs) == 1:
        return Difference(*pairs[0])
    if reason is not None and len(commas) == 1:
        raise reason
    raise TargetError(
        f"'diff:{text}' does not name two classes", hint="diff:A,B with indices or labels: diff:281,282", target=text
    )


def _finer(reader: Reader, text: str) -> Finer:
    """Read ``A`` or ``A,B,C``; where labels have commas, cut into the fewest parts that are all classes."""
    pieces, reason = text.split(","), None
    lists: list[set[tuple[int | None, ...]]] = [*(set() for _ in pieces), {()}]  # of the text behind each comma
    for start in reversed(range(len(pieces))):
        read = reader.index if start else reader.class_of
        for end in range(start + 1, len(pieces) + 1):
            try:
                part = read(",".join(pieces[start:end]))
            except TargetError as error:
                reason = error
            else:
                lists[start] |= {(part, *others) for others in lists[end]}
    by_length = groupby(sorted(lists[0], key=len), key=len)
    for several in (list(group) for _, group in by_length):
        if len(several) == 1:
            first, *others = several[0]
            return Finer(first, against=tuple(c for c in others if c is not None))
    assert reason is not None  # the last part that was read is the whole text
    raise reason


def _class_and_place(text: str) -> tuple[str, str]:
    """Return the parts of ``CLASS@PLACE``, cut at the last @."""
    head, at, tail = text.rpartition("@")
    return (head, tail) if at else ("", text)


def numbers(text: str, count: int, form: str) -> tuple[float, ...]:
    """Return ``count`` numbers that are written with commas between them.

    Raises:
        TargetError: the text is something else; the error shows ``form``, an example.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise TargetError(f"{text!r} is not {count} numbers", hint=f"for example {form}", target=text)
    return values


def _mask(reader: Reader, text: str) -> Region:
    name, file = _class_and_place(text)
    return Region(reader.class_of(name), mask=file)


def _box(reader: Reader, text: str) -> Region:
    name, corners = _class_and_place(text)
    x1, y1, x2, y2 = numbers(corners, 4, READERS["box"].example)
    return Region(reader.class_of(name), box=(x1, y1, x2, y2))


def _cell(reader: Reader, text: str) -> Box:
    name, number = _class_and_place(text)
    return Box(_number(number, "cell:1234"), label=reader.class_of(name))


def _point(reader: Reader, text: str) -> Box:
    name, point = _class_and_place(text)
    x, y = numbers(point, 2, READERS["point"].example)
    return Box(point=(x, y), label=reader.class_of(name))


def _objectness(reader: Reader, text: str) -> Box:
    if text.isdecimal():
        return Box(int(text), what="objectness")
    x, y = numbers(text, 2, READERS["objectness"].example)
    return Box(point=(x, y), what="objectness")


def _iou(reader: Reader, text: str) -> Box:
    which, corners = _class_and_place(text)
    x1, y1, x2, y2 = numbers(corners, 4, READERS["iou"].example)
    box = (x1, y1, x2, y2)
    if not which or which.isdecimal():
        return Box(int(which) if which else None, what="iou", box=box)
    x, y = numbers(which, 2, "iou:320,200@10,20,110,90")
    return Box(point=(x, y), what="iou", box=box)


def _tokens(reader: Reader, text: str, logits: bool = False) -> Tokens:
    parts = [part.partition("@") for part in text.split(",")]
    tokens = [reader.index(token) for token, _, _ in parts]
    steps = [step for _, _, step in parts]
    if not any(steps):
        return Tokens(tokens, logits=logits)
    if not all(step.isdecimal() for step in steps):
        raise TargetError(f"'tokens:{text}' has steps that are no numbers", hint="tokens:3@5,17@9", target=text)
    return Tokens(tokens, [int(step) for step in steps], logits)


def _number(text: str, form: str) -> int:
    if not text.isdecimal():
        raise TargetError(f"{text!r} is no number", hint=f"for example {form}", target=text)
    return int(text)


READERS: Mapping[str, TargetForm] = {
    "prob": TargetForm(lambda r, t: Probability(r.class_of(t)), "prob:tabby", "the probability of a class"),
    "logprob": TargetForm(lambda r, t: LogProbability(r.class_of(t)), "logprob:281", "its logarithm"),
    "diff": TargetForm(_difference, "diff:tabby,tiger cat", "one class against another"),
    "finer": TargetForm(
        _finer, "finer:tabby", "a class against the 3 that are most like it, or against others: finer:tabby,lynx,tiger"
    ),
    "mask": TargetForm(_mask, "mask:car@mask.png", "a class of a dense map, within a mask"),
    "box": TargetForm(_box, "box:car@10,20,110,90", "the same within a box x1,y1,x2,y2"),
    "argmax": TargetForm(
        lambda r, t: Region(r.class_of(t)), "argmax:car", "the same at the pixels where the class wins"
    ),
    "cell": TargetForm(_cell, "cell:1234", "a detector's box by number; of a class: cell:dog@1234"),
    "point": TargetForm(_point, "point:dog@320,200", "its most probable box at a point x,y"),
    "objectness": TargetForm(
        _objectness, "objectness:320,200", "the objectness of that box, or by number: objectness:1234"
    ),
    "iou": TargetForm(_iou, "iou:10,20,110,90", "overlap of the box that fits best with a given one"),
    "tokens": TargetForm(
        _tokens, "tokens:3,17,4", "log-probability of tokens, one per step, or at steps: tokens:3@5,17@9"
    ),
    "logits": TargetForm(lambda r, t: _tokens(r, t, True), "logits:3,17,4", "the sum of their logits"),
    "similar": TargetForm(lambda r, t: Similar(t), "similar:emb.npy", "cosine of the embedding with another"),
    "output": TargetForm(lambda r, t: Output(_number(t, "output:0")), "output:0", "a number of a regression"),
    "-output": TargetForm(lambda r, t: Output(_number(t, "-output:0"), -1), "-output:0", "its negative"),
}


def help_text() -> str:
    """Return the help of ``--target``: all forms, one example each."""
    forms = "; ".join(f"{form.example} ({form.meaning})" for form in READERS.values())
    return (
        "top1, top5, boxes (all that a detector finds; boxes5, boxes@0.4), "
        "a class index (281) or a label (tabby; label:180 for one of digits or with a colon); "
        f"{forms}. Places are in the photo's pixels. Several: each of them."
    )
