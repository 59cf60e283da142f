from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.labels import Labels, find_labels
from onnx_gradcam.photos.preprocess.choice import LABELS_KEY


def found(given: Any, count: int = 5, kind: str = "classes", **metadata: str) -> Labels:
    return find_labels(given, metadata, count, kind)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("l.txt", "cat\ndog\n", ("cat", "dog")),
        ("l.txt", "cat\r\ndog", ("cat", "dog")),
        ("l.txt", "\ufeffcat\ndog", ("cat", "dog")),
        ("l.txt", "  cat \n\tdog, hound\n\n\n", ("cat", "dog, hound")),
        ("l.txt", "cat\n\ndog\n", ("cat", "1", "dog")),
        ("l.txt", "Käfer\nčáp", ("Käfer", "čáp")),
        ("l.names", "cat\ndog", ("cat", "dog")),
        ("l.json", '["cat", "dog"]', ("cat", "dog")),
        ("l.JSON", '\ufeff["cat", "dog"]', ("cat", "dog")),
        ("l.json", '{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ("l.json", '{"0": "cat", "3": "dog"}', ("cat", "1", "2", "dog")),
        ("l.txt", "", ()),
    ],
)
def test_a_file(name: str, content: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    assert found(path) == Labels(names, f"declared: {path}")
    assert found(str(path)) == Labels(names, f"declared: {path}")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (("cat",), ("cat",)),
        ({0: "cat", 2: "dog"}, ("cat", "1", "dog")),
        ({"0": "cat", "1": "dog"}, ("cat", "dog")),
        ([], ()),
    ],
)
def test_labels_as_they_are(given: Any, names: tuple[str, ...]) -> None:
    assert found(given) == Labels(names, "chosen: user")


def test_the_labels_of_the_model() -> None:
    metadata = {LABELS_KEY: json.dumps(["circle", "square"])}
    assert found(None, **metadata) == Labels(("circle", "square"), "declared: model metadata")
    assert found(None, names="{0: 'bus', 1: 'car'}") == Labels(("bus", "car"), "declared: model metadata")
    assert found(["cat"], **metadata) == Labels(("cat",), "chosen: user"), "the user's go first"


def test_a_thousand_classes_are_guessed_to_be_those_of_imagenet() -> None:
    guessed = found(None, 1000)
    assert guessed.source == "guessed: 1000 classes are taken for ImageNet's"
    assert guessed.names is not None
    assert len(guessed.names) == 1000
    assert (guessed.names[0], guessed.names[281], guessed.names[999]) == (
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "toilet tissue, toilet paper, bathroom tissue",
    )
    assert found("imagenet", 1000) == Labels(guessed.names, "chosen: imagenet")


def test_eighty_classes_of_a_detector_are_guessed_to_be_those_of_coco() -> None:
    guessed = found(None, 80, "detector")
    assert guessed.source == "guessed: 80 classes of a detector are taken for COCO's"
    assert guessed.names is not None
    assert len(guessed.names) == 80
    assert [guessed.names[i] for i in (0, 1, 2, 16, 22, 23, 79)] == [
        "person", "bicycle", "car", "dog", "zebra", "giraffe", "toothbrush",
    ]  # fmt: skip
    assert found("coco", 80, "detector") == Labels(guessed.names, "chosen: coco")
    assert found(None, 80, "classes") == found(None, 80, "map") == Labels(None, "not known")


@pytest.mark.parametrize(
    ("name", "count", "index", "label"),
    [
        ("coco", 81, 0, "background"),
        ("coco", 81, 17, "dog"),
        ("coco", 90, 17, "dog"),  # its id is 18
        ("coco", 91, 18, "dog"),
        ("coco", 91, 90, "toothbrush"),
        ("coco", 91, 12, "12"),
        ("imagenet", 1001, 0, "background"),
        ("imagenet", 1001, 282, "tabby, tabby cat"),
    ],
)
def test_bundled_labels_as_models_count_them(name: str, count: int, index: int, label: str) -> None:
    names = found(name, count, "detector").names
    assert names is not None
    assert (len(names), names[index]) == (count, label)


@pytest.mark.parametrize(("name", "count"), [("coco", 365), ("coco", 85), ("imagenet", 1002)])
def test_bundled_labels_for_other_models_are_refused(name: str, count: int) -> None:
    with pytest.raises(TargetError, match=f"labels for a score of {count} classes"):
        found(name, count, "detector")


@pytest.mark.parametrize(("count", "kind"), [(999, "classes"), (1001, "classes"), (2, "binary"), (1, "regression")])
def test_other_models_have_none(count: int, kind: str) -> None:
    assert found(None, count, kind) == Labels(None, "not known")


def test_one_label_of_a_sigmoid_logit_names_class_1() -> None:
    assert found(["cat"], 2, "binary").names == ("not cat", "cat")
    assert found(["dog", "cat"], 2, "binary").names == ("dog", "cat")
    assert found(["cat"], 2, "classes").names == ("cat",)


def test_too_many_labels(tmp_path: Path) -> None:
    path = written(tmp_path, "l.txt", "a\nb\nc")
    for given, source in ((path, str(path)), (["a", "b", "c"], "user")):
        with pytest.raises(TargetError, match="3 labels for a score of 2 classes") as error:
            found(given, 2)
        assert source in error.value.where
    with pytest.raises(TargetError, match="1000 labels for a score of 10 classes"):
        found("imagenet", 10)
    with pytest.raises(TargetError, match="model metadata"):
        found(None, 1, "classes", **{LABELS_KEY: '["a", "b"]'})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.txt", b"\xff\xfe\x00cat", "cannot read the labels"),
        ("l.json", b"cat\ndog", "does not hold labels"),
        ("l.json", b'"cat"', "neither a list nor an object"),
        ("l.json", b"5", "neither a list nor an object"),
        ("l.json", b'{"cat": 0}', "'cat'"),
    ],
)
def test_a_file_that_holds_no_labels(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(TargetError) as error:
        found(path)
    assert words in error.value.what
    assert repr(str(path)) in error.value.what
    assert error.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(TargetError, match="cannot read the labels") as error:
            found(path)
        assert str(path) in str(error.value)


def test_an_object_with_other_keys() -> None:
    with pytest.raises(TargetError, match="these are not labels"):
        found({"cat": 0})
