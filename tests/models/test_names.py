"""Models whose names are ours, or as odd as the format allows: the same numbers, called by the names in the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from nets import BATCH, Net, feeds, run
from quick import quick_first
from renaming import RESERVED, SCHEMES, Scheme, graphs, renamed, reserved, shadowed
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.cli import main
from onnx_gradcam.verify import sample

Say = Callable[..., tuple[int, str, str]]
ALL = {**builders.ARCHITECTURES, **builders.HABITS}
DEMOS = sorted(MODELS.glob("*.onnx"))
ZOO = (
    "deeplab-dm05", "fastestdet", "geometric-shapes", "mesonet", "nanodet-m-320", "ppocr-cls-v3", "shufflenetv2-int8",
    "sinet-softmax", "squeezenet-fp16", "squeezenet-fp32-from-fp16", "stm-mobilenetv2-035-tfs", "ultraface-320",
    "winml-mnist", "yolox-nano",
)  # fmt: skip
WORDS = 20  # fewer than any demo model knows
X = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


def check_same(plain: ogc.Explanation, found: ogc.Explanation, new: Mapping[str, str]) -> None:
    """Bit for bit, and each name is that of the file."""
    for field in ("class_index", "score", "probability", "cell", "box", "heatmap", "is_blank", "attribution"):
        np.testing.assert_array_equal(getattr(found, field), getattr(plain, field), err_msg=field)
    assert [layer.name for layer in found.layers] == [new[layer.name] for layer in plain.layers]
    for a, b in zip(found.layers, plain.layers, strict=True):
        for field in ("activation", "gradient", "weights", "cam"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)
    assert list(found.outputs) == [new[name] for name in plain.outputs]
    for name, array in plain.outputs.items():
        np.testing.assert_array_equal(np.asarray(found.outputs[new[name]]), np.asarray(array), err_msg=name)
    if plain.score_name in new:
        assert found.score_name == new[plain.score_name]
    assert len(found.warnings) == len(plain.warnings)


def check_explained(proto: onnx.ModelProto, scheme: Scheme, x: Mapping[str, np.ndarray], *requests: Any) -> None:
    other, new = renamed(proto, scheme)
    with ogc.Explainer(proto, providers=["cpu"]) as plain, ogc.Explainer(other, providers=["cpu"]) as renamed_one:
        assert list(renamed_one.inputs) == [new[name] for name in plain.inputs]
        for request in requests:
            expected = plain.explain(x, **request)
            check_same(expected, renamed_one.explain({new[k]: v for k, v in x.items()}, **request), new)


# --- the same whatever the names --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [reserved, shadowed], ids=lambda s: s.__name__)
@pytest.mark.parametrize("name", quick_first(ALL, 8))
def test_networks_of_every_form(name: str, scheme: Scheme) -> None:
    proto = ALL[name]()
    several = {} if name in ("sigmoid", "regression") else {"target": ogc.TopK(2)}
    check_explained(proto, scheme, feeds(proto, 2), {}, several)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
@pytest.mark.parametrize("name", quick_first(["residual", "decided_if_clash", "two_inputs"]))
def test_names_of_every_form(name: str, scheme: Scheme) -> None:
    proto = ALL[name]()
    requests = [
        {"method": "integrated-gradients", "steps": 3},
        {"method": "gradcam++", "smooth": "noise", "samples": 2},
        {"target": ogc.Difference(0, 1)},
        {"target": [ogc.Probability(1), 2], "method": "hirescam"},
    ]
    check_explained(proto, scheme, feeds(proto, 2), *requests)


@pytest.mark.parametrize("name", ["residual", "decided_if_clash", "with_function", "zipmap"])
def test_nodes_without_names(name: str) -> None:
    proto = ALL[name]()
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for graph in graphs(bare.graph):
        for node in graph.node:
            node.name = ""
    x = feeds(proto, 2)
    with ogc.Explainer(proto) as plain, ogc.Explainer(bare) as found:
        values = {name: name for node in proto.graph.node for name in node.output}
        check_same(plain.explain(x), found.explain(x), values)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
def test_a_segmenter(scheme: Scheme) -> None:
    proto = segmenter("logits")
    requests = [{}, {"target": ogc.Region(1, box=(2, 3, 9, 9))}, {"target": ogc.Difference(0, 3)}]
    check_explained(proto, scheme, {"x": X}, *requests)


@pytest.mark.parametrize("path", quick_first(DEMOS, 3), ids=lambda p: p.stem)
def test_a_demo_model(path: Path) -> None:
    model = onnx.load(path)
    check_explained(
        model, reserved, feeds(model, below=WORDS), {}, {"target": ogc.TopK(2)}, {"method": "guided-gradcam"}
    )


@pytest.mark.parametrize("name", ZOO)
def test_a_deployed_model(name: str, zoo: Path, zoo_index: dict[str, Any]) -> None:
    proto = onnx.load(zoo / zoo_index[name]["file"])
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        inputs, size = explainer.inputs, explainer.image_input.shape[0] or 1
        detector = explainer.score.dense is not None and explainer.score.dense.detector
    x = next(iter(sample.noise(inputs, size, 0)))
    check_explained(proto, reserved, x, {}, {"target": ogc.Box(5) if detector else 1, "method": "gradcam"})


@pytest.mark.parametrize("scheme", quick_first(SCHEMES), ids=lambda s: s.__name__)
def test_verify_says_the_same(scheme: Scheme) -> None:
    proto = builders.residual("N")
    other, new = renamed(proto, scheme)
    plain, found = ogc.verify(proto), ogc.verify(other)
    assert [(c.status, c.error) for c in found.checks] == [(c.status, c.error) for c in plain.checks]
    assert [(c.op_type, c.error) for c in found.nodes] == [(c.op_type, c.error) for c in plain.nodes]
    assert found.layers == tuple(new[layer] for layer in plain.layers)
    assert found.score == new[plain.score]
    assert [c.name for c in found.checks[2:]] == [f"gradient at {new[v]!r}" for v in (*plain.layers, "x")]


# --- names as they are asked for and told -----------------------------------------------------------------------


def segmenter(logits: str) -> onnx.ModelProto:
    net = Net()
    features = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 16, 16]), (3, 6)), out="features")
    net.op("Softmax", net.conv(features, (6, 4), out=logits), out="p", axis=1)
    return net.model({"p": [BATCH, 4, 16, 16]})


@pytest.mark.parametrize("name", quick_first(RESERVED, 12))
def test_any_value_may_be_called_as_ours_are(name: str) -> None:
    """Before, the score of ``score/logits`` was another one, ``score/cell`` a ValueError, ``grad/score`` no model."""
    with ogc.Explainer(segmenter("logits")) as plain, ogc.Explainer(segmenter(name)) as found:
        expected, explanation = plain.explain(X, target=1), found.explain(X, target=1)
        np.testing.assert_array_equal(explanation.score, expected.score)
        np.testing.assert_array_equal(explanation.cam, expected.cam)
        logits = run(segmenter("logits"), {"x": X}, ["p"])
        assert found.score.name == explanation.score_name == name
        assert explanation.score.shape == (2,)
        np.testing.assert_allclose(explanation.outputs["p"], logits["p"], rtol=1e-6)


@pytest.mark.parametrize("name", ["target_index", "grad_scale", "target/mask", "grad/score"])
def test_an_input_called_as_ours_are(name: str) -> None:
    proto, _ = renamed(builders.two_inputs(), lambda k, old: name if k == 0 else old)
    fed = feeds(proto, 2)
    assert name in fed
    with ogc.Explainer(proto) as explainer:
        found = explainer.explain(fed, target=[ogc.Probability(1), 2])
        assert set(explainer.inputs) == set(fed)
        with pytest.raises(ogc.InputError, match="no value for the model's input"):
            explainer.explain({k: v for k, v in fed.items() if k != name})
    assert set(found.outputs) == {"logits"}
    assert np.abs(found.heatmap).max() > 0


def test_layers_and_scores_are_asked_for_by_the_names_in_the_file() -> None:
    proto, new = renamed(builders.residual("N"), reserved)
    names = {layer.name for layer in ogc.layers(proto)}
    assert names == {new[layer.name] for layer in ogc.layers(builders.residual("N"))}
    x = feeds(builders.residual("N"), 2)["x"]
    with (
        ogc.Explainer(proto, target_layer=new["stage1"], score=new["logits"]) as explainer,
        ogc.Explainer(builders.residual("N"), target_layer="stage1", score="logits") as plain,
    ):
        check_same(plain.explain(x), explainer.explain(x), new)
    with pytest.raises(ogc.LayerError, match=f"no value, node or module '{new['stage1']}x'") as caught:
        ogc.Explainer(proto, target_layer=f"{new['stage1']}x")
    assert repr(new["stage1"]) in caught.value.hint


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """The command line: exit status, standard output, standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnx-gradcam", *map(str, arguments)])
        with pytest.raises(SystemExit) as status:
            main()
        printed = capsys.readouterr()
        return int(status.value.code or 0), printed.out, printed.err

    return call


def test_the_command_line_and_the_manifest_use_the_names_in_the_file(tmp_path: Path, say: Say) -> None:
    proto, new = renamed(onnx.load(DEMOS[0]), reserved)
    onnx.save(proto, tmp_path / "odd.onnx")
    plain, odd = (json.loads(say("inspect", path, "--json")[1]) for path in (DEMOS[0], tmp_path / "odd.onnx"))
    assert odd["score"] == new[plain["score"]]
    assert [each["name"] for each in odd["layers"]] == [new[each["name"]] for each in plain["layers"]]
    assert [each["name"] for each in odd["inputs"]] == [new[each["name"]] for each in plain["inputs"]]
    assert odd["operators"] == plain["operators"]
    image = sorted((MODELS / "images").iterdir())[0]
    layer, score = new[plain["layers"][1]["name"]], new[plain["score"]]
    out = tmp_path / "out"
    assert say("explain", tmp_path / "odd.onnx", image, "-o", out, "--layer", layer, "--score", score)[0] == 0
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["layers"] == [layer]
    assert manifest["score"] == score


# --- files that we hand out -------------------------------------------------------------------------------------


def test_in_a_file_that_we_hand_out_inputs_and_outputs_keep_their_names() -> None:
    plain = builders.residual("N")
    proto, _ = renamed(plain, lambda k, old: {"x": "target_index", "logits": "grad/score"}.get(old, old))
    made = ogc.gradient_model(proto, ["stage1", "target_index"])
    told = json.loads({p.key: p.value for p in made.metadata_props}["onnx_gradcam.names"])
    assert told == {
        "score": "ogc/grad/score",
        "class_index": "grad/class_index",
        "inputs": {"target_index": "ogc/target_index"},
        "gradients": {"stage1": "grad/stage1", "target_index": "grad/target_index"},
        "curvatures": {},
    }
    assert [v.name for v in made.graph.input] == ["target_index", "ogc/target_index"]
    assert made.graph.output[0].name == "grad/score"
    x = feeds(plain, 3)["x"]
    wanted = np.array([1, -1, 3])
    expected = run(ogc.gradient_model(plain, ["stage1", "x"]), {"x": x, "target_index": wanted})
    found = run(made, {"target_index": x, "ogc/target_index": wanted})
    for theirs, ours in (("grad/stage1", "grad/stage1"), ("grad/x", "grad/target_index"), ("logits", "grad/score")):
        np.testing.assert_array_equal(found[ours], expected[theirs])
    np.testing.assert_array_equal(found["ogc/grad/score"], expected["grad/score"])
    report = ogc.verify(made)
    assert report.ok
    assert [check.name for check in report.checks] == ["gradient at 'stage1'", "gradient at 'target_index'"]


def test_a_file_that_holds_our_gradients_is_refused_by_name(tmp_path: Path, say: Say) -> None:
    made = ogc.gradient_model(builders.residual("N"), ["stage1"])
    path = tmp_path / "gradients.onnx"
    onnx.save(made, path)
    for use in (ogc.Explainer, ogc.layers, lambda model: ogc.gradient_model(model, ["stage1"])):
        with pytest.raises(ogc.ModelError, match="a gradient graph that onnx-gradcam wrote") as caught:
            use(made)
        assert "the model that it was made from" in caught.value.hint
        assert "verify" in caught.value.hint
    status, _, err = say("inspect", path)
    assert status == 2
    assert "a gradient graph that onnx-gradcam wrote" in err
    assert ogc.verify(path).ok
