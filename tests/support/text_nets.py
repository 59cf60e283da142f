"""Two models of image and words that can be computed by hand: one answers, one tells.

Their image is 8×8, red, green and blue between 0 and 1; a map is right where the colour of the word is.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from nets import BATCH, Net
from onnx import helper

COLOURS = ("red", "green", "blue")
QUESTION_WORDS = ("<pad>", "how", "strong", "is", *COLOURS)
CAPTION_WORDS = ("<pad>", "<start>", "<end>", *COLOURS)
SIDE, CLEAR = 8, 3.0
"""How large the image is; how much more probable the next word is than others."""
PREPROCESS = {
    "size": [SIDE, SIDE], "resize": "stretch", "scale": 1 / 255, "mean": [0.0] * 3, "std": [1.0] * 3,
    "channels": "RGB", "layout": "NCHW", "dtype": "float32",
}  # fmt: skip


def _with_metadata(model: onnx.ModelProto, **lists: object) -> onnx.ModelProto:
    properties = {"preprocess": PREPROCESS, **lists}
    helper.set_model_props(model, {f"onnx_gradcam.{key}": json.dumps(value) for key, value in properties.items()})
    return model


def _colours(net: Net) -> str:
    """relu(x · identity): a channel for each colour, (N, 3, 8, 8)."""
    kernel = net.array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    return net.op("Relu", net.op("Conv", net.input("image", [BATCH, 3, SIDE, SIDE]), kernel), out="colours")


def answering(length: int | str = 6, vocabulary: bool = True) -> onnx.ModelProto:
    """logit_c = mean of colour c · (how often the question names c): "how strong is red" → red."""
    net = Net()
    colours = _colours(net)
    names = np.zeros((len(QUESTION_WORDS), 3), np.float32)
    names[-3:] = np.eye(3)
    named = net.op("Gather", net.array(names), net.input("question", [BATCH, length], np.int64))
    gate = net.op("Unsqueeze", net.op("ReduceSum", named, net.ints(1), keepdims=0), net.ints(2, 3))
    x = net.op("Relu", net.op("Mul", colours, gate), out="asked")
    identity = net.array(np.eye(3, dtype=np.float32))
    net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", x)), identity, out="answer")
    words = {"vocabulary": QUESTION_WORDS} if vocabulary else {}
    return _with_metadata(net.model({"answer": [BATCH, 3]}), labels=COLOURS, **words)


def next_words() -> np.ndarray:
    """The score of the next word (V) after each word (V): start, red, green, end."""
    follows = np.zeros((len(CAPTION_WORDS),) * 2, np.float32)
    for before, after in (("<start>", "red"), ("red", "green"), ("green", "<end>")):
        follows[CAPTION_WORDS.index(before), CAPTION_WORDS.index(after)] = CLEAR
    return follows


def telling(length: int | str = 5) -> onnx.ModelProto:
    """softmax over v of next_words[word t, v] + (the sum of colour v), for words that are colours: (N, T, V)."""
    net = Net()
    colours = _colours(net)
    count = len(CAPTION_WORDS)
    words = np.eye(count, count + 3, dtype=np.float32)
    said = net.op("Gather", net.array(words), net.input("caption", [BATCH, length], np.int64))
    sums = net.op("ReduceSum", net.op("Mul", colours, net.array(np.float32(0.1))), net.ints(2, 3), keepdims=0)
    seen = net.op("MatMul", sums, net.array(np.eye(3, count + 3, count, dtype=np.float32)))
    state = net.op("Add", said, net.op("Unsqueeze", seen, net.ints(1)), out="state")
    last = np.concatenate([next_words(), np.eye(3, count, count - 3, dtype=np.float32)])
    net.op("Softmax", net.op("MatMul", state, net.array(last)), axis=-1, out="next_word")
    model = net.model({"next_word": [BATCH, length, count]})
    return _with_metadata(model, labels=CAPTION_WORDS, vocabulary=CAPTION_WORDS)


def photo() -> np.ndarray:
    """Red in the upper left corner, green in the lower right one: uint8 (8, 8, 3)."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[1:3, 1:3, 0] = 255
    image[5:7, 5:7, 1] = 255
    return image


def log_probabilities(words: tuple[str, ...]) -> np.ndarray:
    """log P of each word of a sentence about ``photo``, after the words before it, by hand."""
    sums = 0.1 * photo().reshape(-1, 3).sum(axis=0) / 255
    before = ("<start>", *words)
    result = []
    for known, word in zip(before, words, strict=False):
        logits = next_words()[CAPTION_WORDS.index(known)].astype(np.float64) + np.concatenate([np.zeros(3), sums])
        result.append(logits[CAPTION_WORDS.index(word)] - np.log(np.exp(logits).sum()))
    return np.array(result)
