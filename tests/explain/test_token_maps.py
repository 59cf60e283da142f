"""Methods of attention maps against torch: attention taken apart by hand, gradients by autograd, block by block."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.methods.tokens import TOKEN_METHODS

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")
token_nets = pytest.importorskip("token_nets")

# network → which tokens its score reads
READ = {
    "vit": [0],
    "deit_distilled": [0],
    "vit_registers_behind": [0],
    "vit_mean": list(range(15)),
    "vit_unfold": [0],
    "vit_columns": [0],
}


def images(network: Any, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, *network.size)).astype(np.float32)


def weights_of(mixer: Any) -> tuple[Any, Any, Any]:
    """The linear layers before and behind the attention, and how many heads there are."""
    if isinstance(mixer, token_nets.TorchAttention):
        attention = mixer.attention
        before = torch.nn.Linear(*reversed(attention.in_proj_weight.shape))
        before.weight, before.bias = attention.in_proj_weight, attention.in_proj_bias
        return before, attention.out_proj, attention.num_heads
    return mixer.qkv, mixer.proj, mixer.heads


def apart(block: Any, x: Any) -> tuple[Any, Any]:
    """The attention probabilities (B, heads, T, T) of a block, and the block as a function of them."""
    before, behind, heads = weights_of(block.mixer)
    b, t, c = x.shape
    q, k, v = before(block.norm1(x)).reshape(b, t, 3, heads, c // heads).permute(2, 0, 3, 1, 4).unbind(0)
    probability = torch.softmax(q @ k.transpose(-2, -1) / (c // heads) ** 0.5, -1)

    def after(attention: Any) -> Any:
        y = x + behind((attention @ v).transpose(1, 2).reshape(b, t, c))
        return y + block.mlp(block.norm2(y))

    return probability, after


class Taken:
    """A network taken apart for some images: its tokens before each block, and its head."""

    def __init__(self, network: Any, x: np.ndarray) -> None:
        self.network, self.streams = network, []
        for block in network.blocks:
            block.register_forward_pre_hook(lambda _, inputs: self.streams.append(inputs[0].detach()))
        self.logits = network(torch.tensor(x)).detach()
        for block in network.blocks:
            block._forward_pre_hooks.clear()

    def head(self, tokens: Any, name: str) -> Any:
        read = self.network.norm(tokens)[:, READ[name]].mean(1)
        return self.network.head(read)

    def attention(self) -> list[np.ndarray]:
        return [apart(b, x)[0].detach().numpy() for b, x in zip(self.network.blocks, self.streams, strict=True)]


def gradients(taken: Taken, name: str, target: int, through: str) -> list[np.ndarray]:
    """∂s/∂A_l: of the score itself, or, for "mean" and "own", of the head behind block l."""
    network, found = taken.network, []
    for k, (block, x) in enumerate(zip(network.blocks, taken.streams, strict=True)):
        probability, after = apart(block, x)
        attention = probability.detach().requires_grad_()
        tokens = after(attention)
        if through == "score":
            for later in list(network.blocks)[k + 1 :]:
                tokens = later(tokens)
        is_mean = through == "mean"
        score = network.head(network.norm(tokens.mean(1))) if is_mean else taken.head(tokens, name)
        (slope,) = torch.autograd.grad(score[:, target].sum(), attention)
        found.append(slope.numpy())
    return found


def rollout(attention: list[np.ndarray], read: list[int], heads: Any) -> np.ndarray:
    t = attention[0].shape[-1]
    joint = np.eye(t)
    for a in attention:
        mixed = 0.5 * heads(a, axis=1) + 0.5 * np.eye(t)
        joint = mixed / mixed.sum(-1, keepdims=True) @ joint
    return joint[:, read].mean(1)


CASES = [*((name, "torchscript") for name in READ), ("vit", "dynamo")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: Any) -> Any:
    name, exporter = request.param
    network = token_nets.net(name)
    x = images(network)
    with ogc.Explainer(token_nets.model(name, exporter), providers=["cpu"]) as explainer:
        yield name, network, x, Taken(network, x), explainer


def same(found: Any, expected: np.ndarray, network: Any) -> None:
    """``expected`` (N, T), one number for each token."""
    grid = network.to_grid(expected[..., None])[:, 0]
    assert found.cam.shape == grid.shape
    assert np.abs(grid).max() > 0
    np.testing.assert_allclose(found.cam, grid, rtol=0, atol=2e-6 * np.abs(grid).max() + 1e-9)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_attention_rollout(case: Any, heads: str) -> None:
    name, network, x, taken, explainer = case
    found = explainer.explain(x, method="attention-rollout", heads=heads)
    same(found, rollout(taken.attention(), READ[name], getattr(np, heads)), network)
    np.testing.assert_array_equal(found.class_index, taken.logits.argmax(1))


def test_gradient_rollout(case: Any) -> None:
    """Chefer et al. 2021: R = I; R ← R + mean_h relu(∇A · A) R."""
    name, network, x, taken, explainer = case
    slopes, attention = gradients(taken, name, 3, "score"), taken.attention()
    relevance = np.broadcast_to(np.eye(attention[0].shape[-1]), (len(x), *attention[0].shape[-2:]))
    for a, g in zip(attention, slopes, strict=True):
        relevance = relevance + np.maximum(a * g, 0).mean(1) @ relevance
    relevance = relevance - np.eye(relevance.shape[-1])
    same(explainer.explain(x, 3, "gradient-rollout"), relevance[:, READ[name]].mean(1), network)


def test_the_least_share_can_be_taken_off(case: Any) -> None:
    name, network, x, taken, explainer = case
    shares = rollout(taken.attention(), READ[name], np.mean)
    found = explainer.explain(x, method="attention-rollout", floor="least")
    same(found, shares - shares.min(axis=1, keepdims=True), network)
    assert not any("bright everywhere" in warning for warning in found.warnings)
    whole = explainer.explain(x, method="attention-rollout")
    least = float((whole.cam.min((1, 2)) / whole.cam.max((1, 2))).min())
    assert any("bright everywhere" in warning for warning in whole.warnings) == (least >= 0.5)


@pytest.mark.parametrize("tokens", ["mean", "own"])
def test_legrad(case: Any, tokens: str) -> None:
    name, network, x, taken, explainer = case
    slopes = [np.maximum(g, 0).mean((1, 2)) for g in gradients(taken, name, 2, tokens)]
    same(explainer.explain(x, 2, "legrad", tokens=tokens), np.mean(slopes, axis=0), network)
    same(explainer.explain(x, 2, "legrad", tokens=tokens, blocks=1), slopes[-1], network)


def test_legrad_against_the_class(case: Any) -> None:
    name, network, x, taken, explainer = case
    slopes = [np.maximum(-g, 0).mean((1, 2)) for g in gradients(taken, name, 2, "mean")]
    same(explainer.explain(x, 2, "legrad", counterfactual=True), np.mean(slopes, axis=0), network)


def test_several_targets_of_several_images(case: Any) -> None:
    name, network, x, taken, explainer = case
    found = explainer.explain(x, ogc.Classes([4, 1]), "legrad")
    assert list(found.image_index) == [0, 0, 1, 1]
    for row, (image, target) in enumerate([(0, 4), (0, 1), (1, 4), (1, 1)]):
        slopes = [np.maximum(g, 0).mean((1, 2)) for g in gradients(taken, name, target, "mean")]
        expected = np.mean(slopes, axis=0)[image : image + 1]
        same(found[row : row + 1], expected, network)
        assert float(found.score[row]) == pytest.approx(float(taken.logits[image, target]), rel=1e-4)


def with_multi_head_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Attention (B, heads, T, size) as com.microsoft's, of tokens (B, T, C)."""
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Attention":
            nodes.append(node)
            continue
        packed = []
        for name in node.input[:3]:
            nodes.append(onnx.helper.make_node("Transpose", [name], [f"{name}_t"], perm=[0, 2, 1, 3]))
            nodes.append(onnx.helper.make_node("Reshape", [f"{name}_t", "side_by_side"], [f"{name}_p"]))
            packed.append(f"{name}_p")
        out = f"{node.output[0]}_p"
        nodes.append(onnx.helper.make_node("MultiHeadAttention", packed, [out], domain="com.microsoft", num_heads=2))
        nodes.append(onnx.helper.make_node("Reshape", [out, "apart"], [f"{out}_t"]))
        nodes.append(onnx.helper.make_node("Transpose", [f"{out}_t"], node.output, perm=[0, 2, 1, 3]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, shape in (("side_by_side", [0, 0, -1]), ("apart", [0, 0, 2, -1])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), name))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.fixture(scope="module")
def fused() -> onnx.ModelProto:
    """A ViT whose attention is one operator of ONNX, as torch exports it for opset 23."""
    network = token_nets.net("vit")
    data = exports.export(copy.deepcopy(network), torch.zeros(2, 3, *network.size), "dynamo", opset=23)
    model = onnx.load_from_string(data)
    assert sum(node.op_type == "Attention" for node in model.graph.node) == 2
    return model


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["ai.onnx", "com.microsoft"])
def test_fused_attention_is_written_out(fused: onnx.ModelProto, domain: str) -> None:
    x = images(token_nets.net("vit"))
    model = with_multi_head_attention(copy.deepcopy(fused)) if domain == "com.microsoft" else fused
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        found = {method: explainer.explain(x, 2, method) for method in TOKEN_METHODS}
    with ogc.Explainer(token_nets.model("vit", "torchscript"), providers=["cpu"]) as explainer:
        expected = {method: explainer.explain(x, 2, method) for method in TOKEN_METHODS}
    for method, each in expected.items():
        np.testing.assert_allclose(found[method].cam, each.cam, rtol=0, atol=2e-6 * each.cam.max())
        np.testing.assert_allclose(*(next(iter(e.outputs.values())) for e in (found[method], each)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("swin", "keep the axes of the image: they look at each other in windows"),
        ("swin_flat", "different tokens"),
        ("padded", "different tokens"),
        ("mixer", "has no attention map over all 15 tokens"),
    ],
)
def test_networks_without_attention_over_all_tokens_have_a_way_out(name: str, what: str) -> None:
    with ogc.Explainer(token_nets.model(name, "torchscript"), providers=["cpu"]) as explainer:
        with pytest.raises(ogc.LayerError, match=what) as error:
            explainer.explain(images(token_nets.net(name)), method="legrad")
        assert "'gradcam'" in (error.value.hint or "")
        assert explainer.explain(images(token_nets.net(name)), method="gradcam").cam.max() > 0


def test_a_network_of_convolutions_has_no_tokens() -> None:
    model = exports.small_model("resnet18", "torchscript")
    with (
        ogc.Explainer(model, providers=["cpu"]) as explainer,
        pytest.raises(ogc.LayerError, match="no block of tokens"),
    ):
        explainer.explain(np.zeros((1, 3, 64, 64), np.float32), method="attention-rollout")


@pytest.mark.parametrize(
    ("method", "variant", "what"),
    [
        ("attention-rollout", {"counterfactual": True}, "has no counterfactual variant: the score plays no part"),
        ("legrad", {"signed": True}, "has no signed variant"),
        ("legrad", {"smooth": "noise"}, "reads attention maps"),
        ("attention-rollout", {"heads": "sum"}, "option 'heads' is 'sum'"),
        ("legrad", {"blocks": 3}, "blocks 3"),
    ],
)
def test_variants_that_methods_lack(method: str, variant: dict[str, Any], what: str) -> None:
    model = token_nets.model("vit", "torchscript")
    with ogc.Explainer(model, providers=["cpu"]) as explainer, pytest.raises(ogc.MethodError, match=what):
        explainer.explain(images(token_nets.net("vit")), 0, method, **variant)


def test_the_layer_is_the_attention_of_the_last_block(case: Any) -> None:
    """Its activation: what each head takes of each token for those that are read."""
    name, network, x, taken, explainer = case
    found = explainer.explain(x, method="attention-rollout")
    expected = taken.attention()[-1][:, :, READ[name]].mean(2)
    grid = network.to_grid(np.moveaxis(expected, 1, 2))
    np.testing.assert_allclose(found.activation, grid, atol=1e-6)
