"""Networks of parallel parts: their ends are the layers, and the map is the sum of what each holds of the score."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import BATCH, Net, run

import onnx_gradcam as ogc
from onnx_gradcam.methods.heatmap import upsample


def tower(net: Net, x: str, k: int, stride: int = 1) -> str:
    y = net.op("Relu", net.conv(x, (3, 4), out=f"conv{k}"))
    y = net.op("Relu", net.conv(y, (4, 6), stride=stride), out=f"end{k}")
    return net.linear(net.op("Flatten", net.op("GlobalAveragePool", y)), 6, 5, out=f"logits{k}")


def ensemble(parts: int = 2, join: str = "Mean") -> onnx.ModelProto:
    """The mean, or another function, of the logits of some CNNs of one image; the grids differ."""
    net = Net()
    x = net.input("x", [BATCH, 3, 8, 8])
    each = [tower(net, x, k, 1 + k % 2) for k in range(parts)]
    if join == "Gemm":
        net.linear(net.op("Concat", *each, axis=1), 5 * parts, 5, out="logits")
    else:
        net.op(join, *each, out="logits")
    return net.model({"logits": [BATCH, 5]})


X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("join", ["Mean", "Sum", "Gemm", "Max"])
@pytest.mark.parametrize("parts", [2, 3])
def test_the_ends_of_all_parts_are_the_layers(parts: int, join: str) -> None:
    with ogc.Explainer(ensemble(parts, join), providers=["cpu"]) as explainer:
        assert sorted(explainer.target_layers) == [f"end{k}" for k in range(parts)]
    taken = [layer for layer in ogc.layers(ensemble(parts, join)) if layer.chosen]
    assert {layer.reason for layer in taken} == {
        "the end of one of several parallel parts; all paths to the score go through one of these"
    }


def test_the_map_is_the_sum_of_the_parts() -> None:
    """The cam of each part is half of that of the part alone, since the score is the mean of both."""
    whole = ensemble()
    with ogc.Explainer(whole, providers=["cpu"]) as explainer:
        found = explainer.explain(X, 3)
    total = np.zeros((2, 8, 8), np.float64)
    for k in range(2):
        part = onnx.ModelProto()
        part.CopyFrom(whole)
        part.graph.output[0].name = f"logits{k}"
        del part.graph.node[-1]
        with ogc.Explainer(part, f"end{k}", score=f"logits{k}", providers=["cpu"]) as explainer:
            total += upsample(explainer.explain(X, 3).cam, (8, 8)) / 2
    np.testing.assert_allclose(found.heatmap * found.scale[:, None, None], total, atol=1e-6)
    np.testing.assert_allclose(found.scale, total.max((1, 2)), rtol=1e-5)
    assert found.provenance.fusion == "the sum of parallel parts"


def two_views(axis: int, channels_last: bool) -> onnx.ModelProto:
    """The sum of what one network says of the image and of its mirror image."""
    net = Net()
    x = net.input("x", [BATCH, 8, 8, 3] if channels_last else [BATCH, 3, 8, 8])
    steps = [net.ints(-1), net.ints(-(2**31)), net.ints((1 if channels_last else 2) + axis), net.ints(-1)]
    views = [x, net.op("Slice", x, *steps)]
    weights = [net.random(4, 3, 3, 3), net.random(6, 4, 3, 3), net.random(5, 6)]
    logits = []
    for k, view in enumerate(views):
        y = net.op("Transpose", view, perm=[0, 3, 1, 2]) if channels_last else view
        y = net.op("Relu", net.op("Conv", y, weights[0], pads=[1] * 4))
        y = net.op("Relu", net.op("Conv", y, weights[1], pads=[1] * 4), out=f"end{k}")
        logits.append(net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", y)), weights[2], transB=1))
    net.op("Add", *logits, out="logits")
    return net.model({"logits": [BATCH, 5]})


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_part_that_sees_the_image_mirrored_is_turned_back(axis: int, channels_last: bool) -> None:
    """The sum over an image and its mirror image: the map of a mirrored image is the mirrored map."""
    x, mirrored = X, np.flip(X, 2 + axis)
    if channels_last:
        x, mirrored = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, mirrored))
    with ogc.Explainer(two_views(axis, channels_last), providers=["cpu"]) as explainer:
        found, turned = explainer.explain(x, 3), explainer.explain(np.ascontiguousarray(mirrored), 3)
        assert explainer.target_layers == ("end1", "end0")
    np.testing.assert_allclose(turned.heatmap, np.flip(found.heatmap, 1 + axis), atol=1e-5)
    first, second = (layer.cam for layer in found.layers)
    np.testing.assert_allclose(
        found.heatmap * found.scale[:, None, None], first + second, atol=1e-5 * float(found.scale.max())
    )
    assert np.abs(found.heatmap - np.flip(found.heatmap, 1 + axis)).max() > 0.1, "the map itself is not symmetric"


def test_layers_by_name_are_fused_as_before() -> None:
    with ogc.Explainer(ensemble(), ["end0", "end1"], providers=["cpu"]) as explainer:
        found = explainer.explain(X, 3, fusion="max")
    assert found.provenance.fusion == "max"
    assert np.isnan(found.scale).all()


def test_one_value_for_all_paths_goes_before_parallel_ends() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 3)), out="stem")
    net.op("Mean", tower(net, x, 0), tower(net, x, 1), out="logits")
    with ogc.Explainer(net.model({"logits": [BATCH, 5]}), providers=["cpu"]) as explainer:
        assert explainer.target_layers == ("stem",)


def test_parts_behind_a_shared_value_are_named() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 3)), out="stem")
    net.op("Mean", tower(net, x, 0), tower(net, x, 1), out="logits")
    proto = net.model({"logits": [BATCH, 5]})
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
        (sentence,) = (w for w in found.warnings if "meet last" in w)
        assert not any("meet last" in w for w in explainer.explain(X, method="saliency").warnings)
    assert sentence == (
        "'stem' is where all paths meet last; the parts behind it end in layers of their own: --layer end0 --layer end1"
    )
    assert "this map does not show where parts behind its layer look" in found.cautions(0)
    (taken,) = (layer for layer in ogc.layers(proto) if layer.chosen)
    assert sentence in taken.reason


def test_a_coarse_map_names_the_next_finer_layer() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="fine")
    net.head(net.op("Relu", net.conv(net.op("Relu", net.conv(x, (4, 4), stride=2)), (4, 4), stride=2), out="coarse"), 4)
    with ogc.Explainer(net.model({"logits": [BATCH, 5]}), providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    (sentence,) = (w for w in found.warnings if "coarse" in w)
    assert sentence == (
        "the map of 'coarse' has 2×2 positions only, so that it is coarse; the next finer layer: --layer v3"
    )


@pytest.mark.parametrize("how", ["Mean", "Add then Div", "Mul each", "stacked"])
def test_a_mean_of_probabilities_is_a_probability(how: str) -> None:
    """p is the number itself; its logarithm is differentiated, too."""
    net = Net()
    x = net.input("x", [BATCH, 3, 8, 8])
    p = [net.op("Softmax", tower(net, x, k), axis=1, out=f"p{k}") for k in range(2)]
    half, two = net.array(np.float32(0.5)), net.array(np.float32(2))
    if how == "Mean":
        net.op("Mean", *p, out="out")
    elif how == "Mul each":
        net.op("Add", *(net.op("Mul", each, half) for each in p), out="out")
    elif how == "stacked":
        both = net.op("Concat", *(net.op("Unsqueeze", each, net.ints(0)) for each in p), axis=0)
        net.op("ReduceMean", both, net.ints(0), keepdims=0, out="out")
    else:
        net.op("Div", net.op("Add", *p), two, out="out")
    proto = net.model({"out": [BATCH, 5]})
    out = run(proto, {"x": X})["out"]
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
        logs = explainer.explain(X, ogc.LogProbability(2))
    np.testing.assert_allclose(found.probability, out.max(1), rtol=1e-5)
    np.testing.assert_allclose(found.score, out.max(1), rtol=1e-5)
    np.testing.assert_allclose(logs.score, np.log(out[:, 2]), rtol=1e-5)


def test_a_path_around_every_layer_is_named_with_the_layers_that_are_there() -> None:
    net = Net()
    x = net.input("x", [BATCH, 3, 8, 8])
    beside = net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 3, 5)
    net.op("Add", tower(net, x, 0), beside, out="logits")
    explainer = ogc.Explainer(net.model({"logits": [BATCH, 5]}), providers=["cpu"])
    with pytest.raises(ogc.LayerError, match="some paths to the score go around every layer") as error:
        explainer.explain(X)
    assert "--layer end0" in error.value.hint
