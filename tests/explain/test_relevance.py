"""Layer-wise relevance propagation against a naive version that writes out every share, on a network of all layers."""

from __future__ import annotations

from typing import Any

import naive_relevance as naive
import numpy as np
import pytest
from layered_net import SIZE, TARGETS, X, chain, network
from measures import close
from nets import BATCH, Net
from onnx import TensorProto, helper, numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.autodiff.relevance.linear import LAYER_RULES
from onnx_gradcam.errors import MethodError, UnsupportedGradient
from onnx_gradcam.methods.attribution import check_method
from onnx_gradcam.methods.relevance import COMPOSITES, OF_FIRST_LAYER, rules_of

LOW, HIGH = X.min(axis=(2, 3)).astype(np.float64), X.max(axis=(2, 3)).astype(np.float64)


@pytest.fixture(scope="module")
def explainer() -> Any:
    with ogc.Explainer(network(), providers=["cpu"]) as opened:
        yield opened


def expected(rule: Any, **numbers: Any) -> np.ndarray:
    rules, layers = rules_of(rule)._asdict(), chain()
    rows = []
    for k, target in enumerate(TARGETS):
        bounds = {"low": np.repeat(LOW[k], SIZE**2), "high": np.repeat(HIGH[k], SIZE**2)} | numbers
        rows.append(naive.relevance(layers, X[k].ravel().astype(np.float64), target, rules, **bounds))
    return np.stack(rows).reshape(X.shape)


def near(found: Any, right: np.ndarray) -> None:
    np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max(), rtol=0)


@pytest.mark.parametrize("rule", COMPOSITES)
def test_every_rule(explainer: Any, rule: str) -> None:
    found = explainer.explain(X, TARGETS, "lrp", rule=rule)
    near(found.attribution, expected(rule))
    assert found.method == "lrp"


@pytest.mark.parametrize(
    "numbers",
    [{"rule": "epsilon", "epsilon": 0.3}, {"rule": "gamma", "gamma": 2}, {"rule": "alpha-beta", "alpha": 1.5}],
)
def test_numbers_of_rules(explainer: Any, numbers: dict[str, Any]) -> None:
    near(explainer.explain(X, TARGETS, "lrp", **numbers).attribution, expected(**numbers))


@pytest.mark.parametrize("rule", ["epsilon-plus", "epsilon-gamma-box", "alpha-beta", "epsilon"])
def test_biases_that_get_nothing(explainer: Any, rule: str) -> None:
    found = explainer.explain(X, TARGETS, "lrp", rule=rule, biases="none")
    near(found.attribution, expected(rule, has_biases=False))


def test_rules_for_each_kind_of_layer(explainer: Any) -> None:
    rule = {"first": "w-square", "convolution": "gamma", "linear": "alpha-beta"}
    near(explainer.explain(X, TARGETS, "lrp", rule=rule).attribution, expected(rule))


def test_bounds_of_the_box(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "lrp", rule="epsilon-gamma-box", low=-3, high=[3, 4, 5])
    low, high = np.full(3 * SIZE**2, -3.0), np.repeat([3.0, 4, 5], SIZE**2)
    near(found.attribution, expected("epsilon-gamma-box", low=low, high=high))


def test_without_epsilon_it_is_the_input_times_its_gradient(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "lrp", rule="epsilon", epsilon=0)
    close(found.attribution, explainer.explain(X, TARGETS, "input-x-gradient").attribution)


@pytest.mark.parametrize("rule", ["z-plus", "epsilon"])
def test_a_layer_is_the_same_in_one_node_as_in_two(explainer: Any, rule: str) -> None:
    with ogc.Explainer(network(are_apart=False), providers=["cpu"]) as of_gemm:
        close(*(each.explain(X, TARGETS, "lrp", rule=rule).attribution for each in (of_gemm, explainer)))


def test_a_black_image_has_relevance_by_the_rules_of_the_first_layer(explainer: Any) -> None:
    black = explainer.explain(0 * X, TARGETS, "lrp", rule="epsilon-plus-flat").attribution
    assert np.abs(black).sum() > 0
    assert not explainer.explain(0 * X, TARGETS, "lrp").attribution.any()


@pytest.mark.parametrize("rule", ["epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box"])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_network_that_standardises_its_input(explainer: Any, rule: str, is_last: bool) -> None:
    """It is explained as the same network without: relevance of the mean colour would be that of a bias."""
    model = network()
    mean = np.array([0.5, 0.25, 0.125], np.float32).reshape([1, 1, 1, 3] if is_last else [1, 3, 1, 1])
    names = ["raw", "shifted", "scaled", *(["turned"] if is_last else [])]
    steps = [("Sub", ["raw", "colour"], {}), ("Div", ["shifted", "deviation"], {})]
    steps += [("Transpose", ["scaled"], {"perm": [0, 3, 1, 2]})] if is_last else []
    nodes = [
        helper.make_node(op_type, inputs, [output], **attributes)
        for (op_type, inputs, attributes), output in zip(steps, names[1:], strict=True)
    ]
    for name, array in (("colour", mean), ("deviation", np.array(0.25, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.input[:] = [names[-1] if name == "x" else name for name in node.input]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    dims = [BATCH, SIZE, SIZE, 3] if is_last else [BATCH, 3, SIZE, SIZE]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("raw", TensorProto.FLOAT, dims))
    raw = (X.transpose(0, 2, 3, 1) if is_last else X) * np.float32(0.25) + mean
    with ogc.Explainer(model, providers=["cpu"]) as scaling:
        found = scaling.explain(np.ascontiguousarray(raw), TARGETS, "lrp", rule=rule)
    expected = explainer.explain(X, TARGETS, "lrp", rule=rule).attribution
    near(found.attribution, expected.transpose(0, 2, 3, 1) if is_last else expected)
    assert "relevance is that of 'scaled'" in " ".join(found.warnings)


def test_a_first_layer_that_reads_more_than_the_input_has_no_rule_of_the_input() -> None:
    net = Net()
    net.input("x", [BATCH, 3, SIZE, SIZE])
    net.head(net.op("Relu", net.conv(net.op("Tanh", "x"), (3, 4))), 4)
    with ogc.Explainer(net.model({"logits": [BATCH, 5]}), providers=["cpu"]) as explainer:
        assert explainer.explain(X, TARGETS, "lrp").attribution.any()
        with pytest.raises(UnsupportedGradient, match="the rule 'flat' of the first layer"):
            explainer.explain(X, TARGETS, "lrp", rule="epsilon-plus-flat")


@pytest.mark.parametrize("rule", ["epsilon-plus", "epsilon-gamma-box", "epsilon-plus-flat"])
def test_relevance_adds_up_to_the_score_where_no_bias_takes_its_share(rule: str) -> None:
    with ogc.Explainer(network(has_biases=False), providers=["cpu"]) as explainer:
        found = explainer.explain(X, TARGETS, "lrp", rule=rule)
    np.testing.assert_allclose(found.completeness.total, found.score, rtol=1e-4)
    np.testing.assert_array_equal(found.completeness.difference, found.score)
    assert not found.warnings


def test_the_share_of_biases_is_told(explainer: Any) -> None:
    found = explainer.explain(X[:1], TARGETS[:1], "lrp")
    total = expected("epsilon-plus")[0].sum()
    np.testing.assert_allclose(found.completeness.total, total, rtol=1e-4)
    assert f"adds up to {total:.3g} of a score of {found.score[0]:.3g}" in " ".join(found.warnings)


def test_several_targets_and_signed_maps(explainer: Any) -> None:
    several = explainer.explain(X, ogc.Classes([0, 2]), "lrp", signed=True)
    for row, (image, target) in enumerate([(0, 0), (0, 2), (1, 0), (1, 2)]):
        alone = explainer.explain(X[image : image + 1], target, "lrp").attribution
        close(several.attribution[row], alone[0])
        summed = alone[0].sum(axis=0)
        close(several.heatmap[row], summed / np.abs(summed).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "epsilon-pluss"}, "epsilon-plus"),
        ({"rule": {"convolutions": "gamma"}}, "convolution"),
        ({"rule": {"linear": "flat"}}, "'rule' is 'flat'"),
        ({"epsilon": -1}, "a number from 0"),
        ({"alpha": 0.5}, "a number from 1"),
        ({"gamma": "much"}, "a number"),
        ({"low": [[1.0]]}, "one for each channel"),
        ({"biases": "some"}, "try    'none'"),
        ({"beta": 1}, "no option 'beta'"),
    ],
)
def test_options_out_of_range(explainer: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MethodError, match=words):
        explainer.explain(X, TARGETS, "lrp", **options)


def test_there_is_no_counterfactual() -> None:
    with pytest.raises(MethodError, match="no counterfactual variant"):
        check_method("lrp", counterfactual=True)


def test_every_rule_of_a_layer_can_be_chosen() -> None:
    assert set(OF_FIRST_LAYER) == set(LAYER_RULES)


def test_recurrent_layers_have_no_rule() -> None:
    net = Net()
    net.input("x", [BATCH, 3, 4])
    w, r = net.random(1, 8, 3), net.random(1, 8, 2)
    steps = net.op("Transpose", "x", perm=[2, 0, 1])
    y, _, _ = net.ops("LSTM", steps, w, r, out=["y", "h", "c"], hidden_size=2)
    last = net.op("Squeeze", net.op("ReduceMean", y, net.ints(0), keepdims=0), net.ints(0))
    net.linear(last, 2, 5, out="logits")
    explainer = ogc.Explainer(net.model({"logits": [BATCH, 5]}), providers=["cpu"])
    with pytest.raises(UnsupportedGradient, match="relevance has no rule for LSTM"):
        explainer.explain(np.ones((2, 3, 4), np.float32), 0, "lrp")
