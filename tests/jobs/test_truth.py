"""The prediction against the true class: which two classes, and in how many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import Net
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.jobs.truth import FOLDER, against_truth, true_classes
from onnx_gradcam.photos.listing import find_images, of_file

HEAD = np.array([[4, -4], [-8, 8], [4, 4]], np.float32)
FIRST, SECOND = (1, 0.5), (0, 1)  # brightness of two channels; best, then second: moon, star; heart, moon


def model(classes: int = 3) -> Any:
    net = Net()
    x = net.op("Relu", net.input("image", ["N", 2, 2, 2]), out="cells")
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.model({net.op("Gemm", x, net.array(HEAD[:classes]), transB=1, out="logits"): ["N", classes]})


def images(*brightness: tuple[float, float]) -> np.ndarray:
    return np.array(brightness, np.float32)[:, :, None, None] * np.ones((1, 1, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("brightness", "true", "classes", "part", "runs"),
    [
        ((FIRST,), 2, [(2, 0)], "runner-up", 1),
        ((FIRST,), 0, [(2, 0)], "true", 1),
        ((FIRST,), 1, [(2, 1)], "true", 2),
        ((SECOND,), 0, [(1, 0)], "true", 2),
        ((FIRST, SECOND), 2, [(2, 0), (1, 2)], "other", 1),
        ((FIRST, SECOND), 1, [(2, 1), (1, 2)], "other", 2),
        ((FIRST, SECOND), 0, [(2, 0), (1, 0)], "true", 2),
    ],
    ids=str,
)
def test_the_two_classes(
    brightness: tuple[Any, ...], true: int, classes: list[tuple[int, int]], part: str, runs: int
) -> None:
    """A second run where the true class is not among the best two."""
    asked = []
    with ogc.Explainer(model(), target_layer="cells", labels=["star", "heart", "moon"]) as explainer:

        def explain(target: Any) -> ogc.Explanation:
            asked.append(target)
            return explainer.explain(images(*brightness), target)

        found = against_truth(explain, true)
    assert len(asked) == runs
    assert list(found.parts) == ["predicted", part, "difference"]
    first, second, difference = found.parts.values()
    assert list(zip(first.class_index.tolist(), second.class_index.tolist(), strict=True)) == classes
    assert first.image_index.tolist() == second.image_index.tolist() == list(range(len(brightness)))
    for row, (a, b) in enumerate(classes):
        logits = HEAD @ np.array(brightness[row], np.float32)
        assert difference.score[row] == logits[a] - logits[b]
        evidence = (HEAD[a] - HEAD[b]) @ np.array(brightness[row], np.float32) / 4
        np.testing.assert_allclose(difference.cam[row], np.full((2, 2), evidence), rtol=1e-6)
    right = sum(a == true for a, _ in classes)
    assert (found.remark != "") == (right > 0)
    assert found.warnings == ((found.remark,) if right else ())


def test_a_value_has_no_true_class() -> None:
    with (
        ogc.Explainer(model(classes=1), target_layer="cells") as explainer,
        pytest.raises(ogc.TargetError, match="has no classes of which one could be the true one"),
    ):
        true_classes("0", [of_file(Path("a.png"))], explainer)


def test_labels_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "true.CSV"
    table.write_text('\ufeffa.png, star\nsub/b.png,"moon"\nc.png,2\nelsewhere.png,no such label\n', "utf-8")
    paths = [Path("a.png"), Path("sub/b.png"), Path("other/c.png"), Path("d.png")]
    with ogc.Explainer(model(), target_layer="cells", labels=["star", "heart", "moon"]) as explainer:
        found = true_classes(str(table), list(map(of_file, paths)), explainer)
        assert found == {paths[0]: 0, paths[1]: 2, paths[2]: 2}
        with pytest.raises(ogc.TargetError, match="no such label"):
            true_classes(str(table), [of_file(Path("elsewhere.png"))], explainer)


def test_classes_from_folders(tmp_path: Path) -> None:
    """The innermost folder with the name of a class says it, up to the folder that was named."""
    images = ("star/1.png", "heart/day2/1.png", "2/x.png", "Moon/y.png", "others/z.png")
    for name in images:
        (tmp_path / "heart" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "heart" / name).touch()
    folder = tmp_path / "heart"
    with ogc.Explainer(model(), target_layer="cells", labels=["star", "heart", "moon"]) as explainer:
        listed = find_images([folder]).images
        expected = {"star/1.png": 0, "heart/day2/1.png": 1, "2/x.png": 2, "others/z.png": 1}
        found = true_classes(FOLDER, listed, explainer)
        assert {
            str(path.relative_to(folder)): index for path, index in found.items() if "Moon" not in str(path)
        } == expected
        below = find_images([folder / "others", folder / "star"]).images
        assert true_classes(FOLDER, below, explainer) == {folder / "star" / "1.png": 0}
        with pytest.raises(ogc.InputError, match="no folder of the images has the name of a class") as error:
            true_classes(FOLDER, find_images([folder / "others"]).images, explainer)
        assert "'others'" in error.value.where


def test_on_a_photo_with_both_objects() -> None:
    """The star speaks for star and the heart for heart: in the difference with opposite signs, at their places."""
    with ogc.Explainer(MODELS / "shapes-resnet.onnx") as explainer:
        photo = MODELS / "images" / "star-and-heart.png"
        found = against_truth(lambda target: explainer.explain_image(photo, target), 5)
    difference = found.parts["difference"].heatmap[0]
    height, width = difference.shape
    assert [found.parts[name].label(0) for name in ("predicted", "true")] == ["star", "heart"]
    (y, x), (v, u) = (np.unravel_index(k, difference.shape) for k in (difference.argmax(), difference.argmin()))
    assert (height * 0.25 < y < height * 0.65, x < width * 0.4) == (True, True), "on the star"
    assert (v < height * 0.45, u > width * 0.65) == (True, True), "on the heart"
    for side, sign in ((np.s_[:, : width // 2], 1), (np.s_[:, width // 2 :], -1)):
        evidence = np.maximum(sign * difference, 0)
        assert evidence[side].sum() > 0.9 * evidence.sum()
