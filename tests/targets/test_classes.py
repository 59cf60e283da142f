from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import run

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import TargetError
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.photos.labels import label_of
from onnx_gradcam.targets import TOP1, Classes, TopK, WrittenScore, class_index, class_score, parse, resolve

BIRDS = ["crane", "tabby, tabby cat", "Crane", "lynx, catamount", "cat, tabby"]


# ------------------------------------------------------------------------------------- the score as a graph


def explained(
    y: np.ndarray, index: Any, axis: int | None, activation: str = "", batch: int | str = "N"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score (N,), class (N,), ∂Σscore/∂y) for a score tensor y."""
    value = ir.val("y", dtype=ir.DataType.from_numpy(y.dtype), shape=[batch, *y.shape[1:]])
    chosen = ir.val("index", dtype=ir.DataType.INT64, shape=[batch])
    graph = ir.Graph([value, chosen], [], nodes=[], opset_imports={"": 18}, name="g")
    op = Builder(graph)
    count = 2 if activation == "Sigmoid" and axis is None else 1 if axis is None else y.shape[axis]
    outputs = class_score(op, WrittenScore(Score(value, axis, activation, count, "y"), value), chosen)
    nodes = list(graph)
    assert outputs[0].shape is not None
    assert len(outputs[0].shape) == len(outputs[1].shape or ()) == 1
    (gradient,) = pull_back(op, nodes, {outputs[0]: op.expand(op.const([1], outputs[0]), outputs[0])}, [value])
    graph.outputs.extend([*outputs, gradient])
    model = ir.to_proto(ir.Model(graph, ir_version=8))
    score, class_, slope = run(model, {"y": y, "index": np.array(index, np.int64)}).values()
    assert score.dtype == slope.dtype == y.dtype
    return score, class_, slope


@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 6), 1), ((4, 6, 1, 1), 1), ((4, 1, 1, 6), 3), ((4, 1, 6), 2), ((4, 1, 6, 1), 2)]
)
@pytest.mark.parametrize("batch", ["N", 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_entry_of_several(shape: tuple[int, ...], axis: int, batch: int | str, dtype: Any) -> None:
    y = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    rows = y.reshape(4, 6)
    wanted = [5, TOP1, 0, TOP1]
    expected = np.where(np.array(wanted) < 0, rows.argmax(axis=1), wanted)
    score, chosen, slope = explained(y, wanted, axis, "Softmax", batch)
    np.testing.assert_array_equal(chosen, expected)
    np.testing.assert_array_equal(score, rows[np.arange(4), expected])
    np.testing.assert_array_equal(slope.reshape(4, 6), np.eye(6)[expected])


def test_of_equal_scores_the_first_is_the_top() -> None:
    y = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [-1, -5, -1, -9]], np.float32)
    score, chosen, _ = explained(y, [TOP1] * 3, 1)
    np.testing.assert_array_equal(chosen, [1, 0, 0])
    np.testing.assert_array_equal(score, [3, 2, -1])


def test_classes_that_the_model_masks() -> None:
    score, chosen, slope = explained(np.array([[-np.inf, 3, -np.inf]], np.float32), [TOP1], 1)
    assert (score[0], chosen[0]) == (3, 1)
    np.testing.assert_array_equal(slope, [[0, 1, 0]])


def test_halves() -> None:
    y = np.array([[1, 3, 2]], np.float16)
    score, chosen, slope = explained(y, [TOP1], 1)
    assert (score[0], chosen[0]) == (3, 1)
    np.testing.assert_array_equal(slope, [[0, 1, 0]])


@pytest.mark.parametrize("shape", [(6, 1), (6,), (6, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_sigmoid_logit_has_two_classes(shape: tuple[int, ...], dtype: Any) -> None:
    """Class 1: the logit, class 0: its negative; the top-1 is class 1 where the logit is positive."""
    z = np.array([2, -3, 0, 2, -3, 0], dtype)
    score, chosen, slope = explained(z.reshape(shape), [TOP1, TOP1, TOP1, 0, 1, 1], None, "Sigmoid")
    np.testing.assert_array_equal(chosen, [1, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(score, [2, 3, 0, -2, -3, 0])
    np.testing.assert_array_equal(slope.ravel(), [1, -1, -1, -1, 1, 1])


@pytest.mark.parametrize("shape", [(3, 1), (3,)])
def test_a_regression_is_its_own_score(shape: tuple[int, ...]) -> None:
    y = np.array([2, -3, 0], np.float32)
    score, chosen, slope = explained(y.reshape(shape), [TOP1, 0, 0], None)
    np.testing.assert_array_equal(score, y)
    np.testing.assert_array_equal(chosen, [0, 0, 0])
    np.testing.assert_array_equal(slope.ravel(), [1, 1, 1])


# ------------------------------------------------------------------------------------------- what users name


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [(TOP1,), (TOP1,)]),
        (3, [(3,), (3,)]),
        (np.int32(3), [(3,), (3,)]),
        ("3", [(3,), (3,)]),
        ("Lynx", [(3,), (3,)]),
        ([3, "tabby cat"], [(3,), (1,)]),
        ((0, 4), [(0,), (4,)]),
        (np.array([4, 2]), [(4,), (2,)]),
        (Classes([1, 3, 0]), [(1, 3, 0), (1, 3, 0)]),
        (Classes(np.array([1, 3])), [(1, 3), (1, 3)]),
        (Classes(["lynx", 0]), [(3, 0), (3, 0)]),
        (TopK(5), TopK(5)),
        (TopK(1), TopK(1)),
    ],
)
def test_resolve(target: Any, expected: Any) -> None:
    found = resolve(target, 2, 5, BIRDS)
    assert found == expected
    if isinstance(found, list):
        assert {type(i) for row in found for i in row} == {int}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (np.int64(3), [(3,), (3,)]),
        (np.array(3, np.uint8), [(3,), (3,)]),
        (np.array([3, 1]), [(3,), (1,)]),
        ([np.array(3), np.int32(1)], [(3,), (1,)]),
        (Classes(np.array([3, 1])), [(3, 1)] * 2),  # type: ignore[arg-type]
        (TopK(np.array(2)), TopK(2)),  # type: ignore[arg-type]
        (np.array(["lynx", "tabby cat"]), [(3,), (1,)]),
    ],
)
def test_what_is_like_an_integer(target: Any, expected: Any) -> None:
    assert resolve(target, 2, 5, BIRDS) == expected


def test_scalars_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    assert resolve(torch.tensor(3), 2, 5, None) == [(3,), (3,)]
    assert resolve(torch.tensor([3, 1]), 2, 5, None) == [(3,), (1,)]
    assert resolve([torch.tensor(3), 1], 2, 5, None) == [(3,), (1,)]
    assert resolve(Classes(torch.tensor([3, 1])), 1, 5, None) == [(3, 1)]
    with pytest.raises(TargetError, match=r"3\.0 is not a target"):
        resolve(torch.tensor(3.0), 2, 5, None)


def test_an_unknown_label_names_those_that_hold_it() -> None:
    """As a word first, then inside of words; nearest() alone would name none of the cats."""
    labels = ["catamount", "tiger cat", "dog", "Egyptian cat, cats of Egypt", "car"]
    with pytest.raises(TargetError, match="no label 'cat'") as error:
        resolve("cat", 1, 5, labels)
    assert error.value.hint == "one of 'tiger cat', 'Egyptian cat, cats of Egypt', 'catamount'"
    with pytest.raises(TargetError) as error:
        resolve("label:owl", 1, 20, [f"owl {k}" for k in range(20)])
    assert error.value.hint.endswith("'owl 7' and 12 more that hold it")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ([1], "1 targets for 2 images"),
        ([1, 2, 3], "3 targets for 2 images"),
        (5, "class 5 is out of range: the score has 5 classes"),
        (-1, "class -1 is out of range"),
        ("-1", "class -1 is out of range"),
        ([0, 7], "class 7 is out of range"),
        (Classes([0, 9]), "class 9 is out of range"),
        (Classes([]), "names no class"),
        (TopK(6), "top-6 of 5 classes"),
        (TopK(0), "top-0 of 5 classes"),
        (TopK(2.5), "top-2.5 of 5 classes"),  # type: ignore[arg-type]
        (True, "True is not a target"),
        (2.5, "2.5 is not a target"),
        ([1.5, 2], "1.5 is not a target"),
        ([None, 2], "None is not a target"),
        ([[1], [2, 3]], "[1] is not a target"),
        ({1: 2}, "{1: 2} is not a target"),
        (np.array([[1], [2]]), "[1] is not a target"),
        (np.array(2.0), "2.0 is not a target"),
        (np.bool_(True), "True is not a target"),
        ("dog", "no label 'dog'"),
        ("", "no label ''"),
        ("²", "no label '²'"),
        ("label:3", "no label '3'"),
    ],
)
def test_what_is_no_target(target: Any, words: str) -> None:
    with pytest.raises(TargetError) as error:
        resolve(target, 2, 5, BIRDS)
    assert words in error.value.what
    assert error.value.hint


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("lynx", 3),
        ("LYNX", 3),
        ("catamount", 3),
        ("lynx, catamount", 3),
        ("label:lynx", 3),
        ("tabby cat", 1),
        ("tabby, tabby cat", 1),
        ("cat", 4),
        ("0", 0),
        ("04", 4),
        (np.int64(2), 2),
    ],
)
def test_class_index(target: Any, index: int) -> None:
    found = class_index(target, 5, BIRDS)
    assert found == index
    assert type(found) is int


def test_digits_are_an_index_unless_called_a_label() -> None:
    labels = ["7", "180", "x"]
    assert class_index("1", 3, labels) == 1
    assert class_index("label:180", 3, labels) == 1
    with pytest.raises(TargetError, match="class 180 is out of range"):
        class_index("180", 3, labels)


def test_an_ambiguous_label_lists_its_classes() -> None:
    with pytest.raises(TargetError, match="'crane' is ambiguous: classes 0, 2") as error:
        class_index("crane", 5, BIRDS)
    assert "0 (crane), 2 (Crane)" in error.value.hint
    assert error.value.indices == (0, 2)
    with pytest.raises(TargetError, match="'tabby' is ambiguous: classes 1, 4"):
        class_index("tabby", 5, BIRDS)


def test_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(TargetError) as error:
        class_index("linx", 5, BIRDS)
    assert "'lynx'" in error.value.hint
    assert error.value.target == "linx"


def test_a_label_where_none_are_known() -> None:
    with pytest.raises(TargetError, match="'lynx' cannot be looked up") as error:
        class_index("lynx", 5, None)
    assert "--labels FILE" in error.value.hint
    assert class_index("4", 5, None) == 4


def test_label_of() -> None:
    assert label_of(1, BIRDS) == "tabby, tabby cat"
    assert label_of(7, BIRDS) == "7"
    assert label_of(1, None) == "1"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["top1"], None),
        (["top3"], TopK(3)),
        (["top10"], TopK(10)),
        (["2"], 2),
        (["lynx"], 3),
        (["label:lynx"], 3),
        (["2", "lynx"], Classes([2, 3])),
    ],
)
def test_parse(texts: list[str], expected: Any) -> None:
    assert parse(texts, 5, BIRDS) == expected


def test_a_label_that_looks_like_a_form() -> None:
    labels = ["top", "top1", "topaz"]
    assert parse(["topaz"], 3, labels) == 2
    assert parse(["top"], 3, labels) == 0
    assert parse(["label:top1"], 3, labels) == 1


@pytest.mark.parametrize("texts", [["linx"], ["5"], ["2", "5"], ["2", "top3"], ["top²"]])
def test_what_cannot_be_parsed(texts: list[str]) -> None:
    with pytest.raises(TargetError, match=r"no label|out of range"):
        parse(texts, 5, BIRDS)
