"""What the names in a file say of its numbers: those of an output, and of the linear layer that makes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.graph.names import dense_score, target_parameter

WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
CLASS_WORDS = frozenset(
    "categories category class classes classification classifier cls label labels logit logits prob probabilities "
    "probability probs score scores softmax".split()
)
POINT_WORDS = frozenset(
    "bbox bboxes box boxes coord coordinates coords corners joints keypoint keypoints kpt kpts landmark landmarks lmk "
    "lmks offset offsets points vertices".split()
)
VALUE_WORDS = frozenset(
    "angles arousal bpm deltas distance euler gaze pitch pose quaternion regression regressor roll rot rotmat steer "
    "steering theta throttle translation valence yaw".split()
)
EMBEDDING_WORDS = frozenset(
    "descriptor descriptors emb embed embedding embeddings embeds latent representation".split()
)
FEATURE_WORDS = frozenset("feat feats feature features".split())
OWN = (target_parameter(""), dense_score(""))
"""Names that begin so are of our making, or look like it: they say nothing of a model."""
FEW = 16
"""So many angles or the like are values; more are the bins of one, which are classes."""


class Said(NamedTuple):
    """A word in a name, and the name; both "" where no name has one."""

    word: str = ""
    name: str = ""


def word_in(names: Iterable[str], words: frozenset[str]) -> Said:
    """Return the first word of a list that stands in one of the names, as a word of its own."""
    for name in (n for n in names if not n.startswith(OWN)):
        for word in WORDS.findall(name):
            if word.lower() in words:
                return Said(word.lower(), name)
    return Said()


def names_of(output: str, linear: ir.Node | None) -> Mapping[str, tuple[str, ...]]:
    """Return the names that say something: under "output" that of an output, under "layer" those of a linear layer."""
    if linear is None:
        return {"output": (output,), "layer": ()}
    weights = [v.name or "" for v in linear.inputs[1:] if v is not None]
    return {"output": (output,), "layer": (linear.name or "", *weights)}
