"""Every kind of target and every option of ``explain``, for two models, in any form that a model can have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, brightness_model
from nets import Net
from onnx import numpy_helper
from quick import quick_first
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.cli import app
from onnx_gradcam.explain import explainer
from onnx_gradcam.jobs.compare import compare
from onnx_gradcam.jobs.compare.agreement import peak_distance, pearson, top_iou

FORM = {**PREPROCESS, "resize": "stretch"}
RESNET, VGG = (MODELS / f"shapes-{name}.onnx" for name in ("resnet", "vgg"))
PHOTO = MODELS / "images" / "star-and-heart.png"


def turned() -> onnx.ModelProto:
    """The brightness model with its classes exchanged: it puts class 1 first where the other puts class 0."""
    model = brightness_model()
    (head,) = (w for w in model.graph.initializer if w.name == "head")
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "head"))
    return model


def expected(first: Any, second: Any) -> tuple[float, float, float]:
    """Of two heatmaps."""
    return pearson(first, second), top_iou(first, second), peak_distance(first, second)


@pytest.mark.parametrize(
    ("target", "of_b", "targets"),
    quick_first(
        [
            ("prob:star", [ogc.Probability(3)], ["prob:3"]),
            ("diff:star,heart", [ogc.Difference(3, 5)], ["diff:3,5"]),
            (ogc.Difference("star", "heart"), [ogc.Difference(3, 5)], ["diff:3,5"]),
            ("finer:heart", [ogc.Finer(5)], ["finer:5"]),
            ("-output:3", [ogc.Output(3, -1)], ["-output:3"]),
            (["heart", "star"], [5, 3], ["5", "3"]),
            (ogc.Classes([5, 0]), [5, 0], ["5", "0"]),
            (["logprob:5", "0"], [ogc.LogProbability(5), 0], ["logprob:5", "0"]),
            (ogc.Each([ogc.LogProbability(5), "star"]), [ogc.LogProbability(5), 3], ["logprob:5", "3"]),
            ("heart", [5], ["5"]),
        ],
        quick=3,
    ),
    ids=str,
)
def test_both_explain_the_target(target: Any, of_b: list[Any], targets: list[str]) -> None:
    """The labels are A's: B is asked by number."""
    found = compare(RESNET, VGG, [PHOTO], target=target)
    assert [pair.target for pair in found.pairs] == targets
    with ogc.Explainer(RESNET) as a, ogc.Explainer(VGG) as b:
        tops = [int(e.explain_image(PHOTO).class_index[0]) for e in (a, b)]
        for pair, one in zip(found.pairs, of_b, strict=True):
            first, second = (e.explain_image(PHOTO, target=one) for e in (a, b))
            assert (pair.pearson, pair.iou, pair.distance_px) == expected(first.heatmap[0], second.heatmap[0])
            assert (pair.label, pair.class_index) == (first.label(0), first.class_index[0])
            assert [pair.top1_a, pair.top1_b] == tops


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("top1", "0"),
        (ogc.Probability(), "prob:0"),
        ("logprob:top1", "logprob:0"),
        (ogc.Difference(None, 1), "diff:0,1"),
    ],
    ids=str,
)
def test_a_class_that_is_left_open_is_the_one_that_a_takes(target: Any, text: str) -> None:
    photo = np.full((120, 160, 3), 30, np.uint8)
    photo[30:50, 30:50] = 255
    (pair,) = compare(brightness_model(), turned(), [photo], preprocess=FORM, target=target).pairs
    assert (pair.target, pair.class_index, pair.top1_a, pair.top1_b) == (text, 0, 0, 1)
    assert (pair.pearson, pair.note) == (0, "the map of B is blank")


def test_the_best_classes_of_each_image_of_an_array(tmp_path: Path) -> None:
    """Of each image its own two: B is asked for those of A, in A's order."""
    net, rng = Net(), np.random.default_rng(0)
    x = net.op("Relu", net.input("image", ["N", 2, 4, 4]), out="cells")
    head = net.array(np.array([[4, -4], [-8, 8], [4, 4]], np.float32))
    y = net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", x)), head, transB=1, out="logits")
    model = net.model({y: ["N", 3]})
    images = rng.random((2, 2, 4, 4), np.float32) * np.array([[1, 0.5], [0, 1]], np.float32)[:, :, None, None]
    np.save(tmp_path / "x.npy", images)
    with ogc.Explainer(model, "cells") as one:
        tops = one.explain(images, ogc.TopK(2))
        assert tops.class_index.tolist() == [2, 0, 1, 2]
        found = compare(one, ogc.Network(model, "cells"), tmp_path / "x.npy", target="top2")
    assert [(p.image_index, p.class_index) for p in found.pairs] == [(0, 2), (0, 0), (1, 1), (1, 2)]
    for pair in found.pairs:
        assert pair.pearson is None or pair.pearson == pytest.approx(1, abs=1e-12)
    assert found.agreement == 1


def test_one_target_for_each_image_is_refused() -> None:
    with pytest.raises(ogc.TargetError, match="is not one target for all images"):
        compare(RESNET, VGG, [PHOTO], target=[1, ogc.Probability()])


@pytest.mark.parametrize("target", ["cell:9", "point:16@220,380", "objectness:220,380"])
def test_a_box_of_a_detector(zoo: Path, target: str) -> None:
    detector, photo = zoo / "models" / "yolox-nano.onnx", zoo / "images" / "darknet-dog.jpg"
    (pair,) = compare(detector, detector, [photo], preprocess="raw", target=target).pairs
    assert pair.pearson == pytest.approx(1)
    assert pair.target.partition(":")[0] == target.partition(":")[0]
    assert pair.note == ""


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keywords",
    [
        {"counterfactual": True},
        {"signed": True},
        {"smooth": "noise", "options": {"samples": 2, "seed": 3}},
        {"method": "integrated-gradients", "options": {"steps": 2}},
    ],
    ids=lambda keywords: "-".join(keywords),
)
def test_the_options_of_explain(keywords: dict[str, Any]) -> None:
    (pair,) = compare(RESNET, VGG, [PHOTO], target=0, **keywords).pairs
    plain = {**{k: v for k, v in keywords.items() if k != "options"}, **keywords.get("options", {})}
    with ogc.Explainer(RESNET) as a, ogc.Explainer(VGG) as b:
        first, second = (e.explain_image(PHOTO, target=0, **plain) for e in (a, b))
    assert (pair.pearson, pair.iou, pair.distance_px) == expected(first.heatmap[0], second.heatmap[0])


def two_images() -> onnx.ModelProto:
    """The score is the mean of the right image plus three times that of the left one."""
    net = Net()
    left, right = (net.input(name, ["N", 1, 4, 6]) for name in ("left", "right"))
    maps = [net.op("Relu", v, out=f"{name}_map") for v, name in ((left, "left"), (right, "right"))]
    pooled = [net.op("Flatten", net.op("GlobalAveragePool", v)) for v in maps]
    head = net.array(np.array([[3, 1], [1, 0]], np.float32))
    y = net.op("Gemm", net.op("Concat", *pooled, axis=1), head, transB=1, out="logits")
    return net.model({y: ["N", 2]})


def test_the_command_line_has_them_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(two_images().SerializeToString())
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        np.save(tmp_path / f"{name}.npy", rng.random((2, 1, 4, 6), np.float32))
    options = ["--image-input", "right", "--input", f"left={tmp_path / 'left.npy'}", "--layer", "right_map"]
    options += ["--smooth", "noise", "--option", "samples=2", "--target", "prob:0", "--threads", "1", "--signed"]
    app(["compare", str(path), f"{path}@cpu", str(tmp_path / "right.npy"), *options, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "gradcam signed noise"
    assert found["a"]["layers"] == ["right_map"]
    assert [pair["target"] for pair in found["pairs"]] == ["prob:0", "prob:0"]
    assert all(pair["pearson"] == pytest.approx(1) for pair in found["pairs"])


def test_three_photos_are_prepared_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen for A, fitted to B and settled for B: three times in all."""
    calls: Counter[str] = Counter()
    choose: Callable[..., Any] = explainer.find_preprocessing

    def counted(*given: Any, **keywords: Any) -> Any:
        calls["choose"] += 1
        return choose(*given, **keywords)

    monkeypatch.setattr(explainer, "find_preprocessing", counted)
    compare(RESNET, VGG, [MODELS / "images" / f"{name}.png" for name in ("cross", "drop", "star-and-heart")])
    assert calls == {"choose": 3}


# --- what a model can be ----------------------------------------------------------------------------------------


def test_what_is_open_is_used_and_stays_open() -> None:
    plain = compare(RESNET, VGG, [PHOTO])
    with ogc.Explainer(RESNET) as a:
        b = ogc.Network(VGG)
        a.warm_up()
        session = a.network.at_layers.whole_session
        found = compare(a, b, [PHOTO])
        assert a.network.at_layers.whole_session is session
        assert found.pairs == plain.pairs
        b.close()


@pytest.mark.parametrize("keywords", [{"providers": ["cpu"]}, {"layer_a": "cells"}, {"score_a": "logits"}], ids=str)
@pytest.mark.parametrize("make", [ogc.Network, ogc.Explainer], ids=["network", "explainer"])
def test_what_is_open_cannot_be_changed(make: Callable[..., Any], keywords: dict[str, Any]) -> None:
    with pytest.raises(ogc.InputError, match="is open already"):
        compare(make(brightness_model()), brightness_model(), [PHOTO], **keywords)


def test_an_explainer_keeps_its_labels() -> None:
    with pytest.raises(ogc.InputError, match="its labels cannot be changed"):
        compare(ogc.Explainer(brightness_model()), brightness_model(), [PHOTO], labels=["bright", "dark"])


def test_a_provider_in_the_name_comes_before_those_for_both() -> None:
    with pytest.raises(ogc.ProviderError, match="unknown execution provider 'abacus'"):
        compare(RESNET, f"{RESNET}@cpu", [PHOTO], providers=["abacus"])
    found = compare(f"{RESNET}@cpu", f"{RESNET}@cpu", [PHOTO], providers=["abacus"])
    assert found.a.providers == ("CPUExecutionProvider",)
