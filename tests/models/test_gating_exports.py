"""Guided backpropagation and deconvolution of exported networks against torch, and how many rectifiers were gated."""

from __future__ import annotations

import collections
import copy
import functools
import importlib
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from deployed import Calibration, of_microsoft, saved
from measures import cosine, relative
from nets import session
from reference import evaluator

from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.autodiff.rectifiers.gating import (
    DECONVOLUTION_RULES,
    GATES,
    GUIDED_RULES,
    Gating,
    deconvolution_rules,
    guided_rules,
)
from onnx_gradcam.autodiff.registry import Rules
from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import write_score

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
token_nets = importlib.import_module("token_nets")
small_network = importlib.import_module("token_truth").small_network
quantization = importlib.import_module("onnxruntime.quantization")
nn = torch.nn

TABLES = {"guided": GUIDED_RULES, "deconvolution": DECONVOLUTION_RULES}
# torch's modules → how a count calls them.
PIECEWISE = {"ReLU": "Relu", "ReLU6": "Clip", "LeakyReLU": "LeakyRelu", "PReLU": "PRelu"}
SMOOTH = {
    "SiLU": "SiLU",
    "Hardswish": "HardSwish",
    "GELU": "Gelu",
    "Mish": "Mish",
    "ELU": "Elu",
    "SELU": "Selu",
    "CELU": "Celu",
    "Softplus": "Softplus",
}
OTHERS = {"Sigmoid": "Sigmoid", "Hardsigmoid": "HardSigmoid", "Tanh": "Tanh"}
RELU_TABLES = {"guided": guided_rules(GATES["relu"]), "deconvolution": deconvolution_rules(GATES["relu"])}
every_table = pytest.mark.parametrize("table", TABLES)


class Gate(torch.autograd.Function):  # type: ignore[misc]
    """y = x, x̄ = relu(ȳ)."""

    @staticmethod
    def forward(_context: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(_context: Any, g: Any) -> Any:
        return g.relu()


class Guided(nn.Module):  # type: ignore[misc]
    """The rectifier with Gate after it: its derivative gets what is positive of the cotangent."""

    def __init__(self, rectifier: Any) -> None:
        super().__init__()
        self.rectifier = rectifier

    def forward(self, x: Any) -> Any:
        return Gate.apply(self.rectifier(x))


class Deconvolution(Guided):
    """The rectifier's values with the derivative of Gate."""

    def forward(self, x: Any) -> Any:
        return Gate.apply(x) + (self.rectifier(x) - x).detach()


def torch_gated(
    network: Any,
    table: str,
    x: np.ndarray,
    class_index: Sequence[int],
    dtype: Any,
    gated: Collection[str] = PIECEWISE | SMOOTH,
) -> np.ndarray:
    """The gradient of the chosen logits with respect to ``x``, the modules of the ``gated`` classes gated."""
    network = copy.deepcopy(network).to(dtype)
    wrapper = {"guided": Guided, "deconvolution": Deconvolution}[table]
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child).__name__ in gated:
                setattr(module, name, wrapper(child))
    images = torch.tensor(x, dtype=dtype, requires_grad=True)
    score = network(images).gather(1, torch.tensor(class_index)[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, images)
    return gradient.numpy()


def written(model: bytes, table: Rules) -> tuple[onnx.ModelProto, Gating]:
    """The gradient graph with respect to the input, and what it gates."""
    prepared = prepare(load(model).model)
    whole = differentiate(*write_score(prepared, find_score(prepared.graph)), ["x"], table)
    return ir.to_proto(whole.model), whole.gating


def in_onnxruntime(proto: onnx.ModelProto, x: np.ndarray, class_index: Sequence[int]) -> np.ndarray:
    feeds = {"x": x, "target_index": np.array(class_index)}
    return session(proto).run(["grad/x"], feeds)[0]


def expected_gating(network: Any) -> Gating:
    """By the modules of ``network``, each of which is used once."""
    found = collections.Counter(type(m).__name__ for m in network.modules())
    return Gating(*({names[m]: found[m] for m in names if found[m]} for names in (PIECEWISE, SMOOTH, OTHERS)))


# Through the newer exporter those whose activations it may write otherwise.
BOTH = ("resnet18", "mobilenet_v2", "mobilenet_v3", "efficientnet_b0", "convnext_tiny")
PAIRS = [*((name, "torchscript") for name in exports.SMALL), *((name, "dynamo") for name in BOTH)]


@pytest.mark.parametrize(("name", "exporter"), PAIRS)
def test_architectures_in_float32(name: str, exporter: str) -> None:
    x, class_index = exports.images(name)[:2], exports.ranked(name)[:2]
    network, model = exports.small(name), exports.small_model(name, exporter)
    plain = exports.torch_gradcam(network, x, class_index, torch.float64).input_gradient
    for table, rules in TABLES.items():
        proto, gating = written(model, rules)
        assert gating == expected_gating(network)
        found = in_onnxruntime(proto, x, class_index)
        expected = torch_gated(network, table, x, class_index, torch.float64)
        assert cosine(found, expected).min() >= 0.9999
        assert relative(plain, expected).min() > 0.1  # another thing than the gradient


@pytest.mark.parametrize("name", BOTH)
@every_table
def test_architectures_in_float64(name: str, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "hardsigmoid", exports.hardsigmoid)
    x, class_index = exports.images(name)[:1].astype(np.float64), exports.ranked(name)[:1]
    proto, _ = written(exports.small_model(name, "torchscript", torch.float64), TABLES[table])
    feeds = {"x": x, "target_index": np.array(class_index)}
    (found,) = evaluator(proto).run(["grad/x"], feeds)
    expected = torch_gated(exports.small(name), table, x, class_index, torch.float64)
    assert relative(found, expected).max() <= 1e-9


class Chain(nn.Module):  # type: ignore[misc]
    """Convolutions with one activation after each, and a linear head on the pooled result."""

    def __init__(self, *activations: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = []
        for k, activation in enumerate(activations):
            layers += [nn.Conv2d(3 if k == 0 else 6, 6, 3, padding=1), activation]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(6, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.features(x).mean((2, 3)))


CHAINS = {
    "piecewise": (nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(6, 0.3), nn.ReLU()),
    "smooth": (nn.SiLU(), nn.Hardswish(), nn.GELU(), nn.GELU(approximate="tanh"), nn.Mish()),
    "exponential": (nn.ELU(0.7), nn.SELU(), nn.CELU(1.5), nn.Softplus()),
    "with others": (nn.ReLU(), nn.Tanh(), nn.GELU(), nn.Sigmoid(), nn.Hardsigmoid()),
}


@functools.cache
def chain(name: str) -> Any:
    return Chain(*CHAINS[name]).eval()


@functools.cache
def chain_model(name: str, exporter: str, opset: int | None = None) -> bytes:
    return exports.export(chain(name), torch.zeros(2, 3, 8, 8), exporter, opset=opset)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 13), ("torchscript", 17), ("dynamo", None)])
@every_table
def test_every_activation_of_torch(name: str, exporter: str, opset: int | None, table: str) -> None:
    x, class_index = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32), (4, 0, 2)
    model = chain_model(name, exporter, opset)
    proto, gating = written(model, TABLES[table])
    assert gating == expected_gating(chain(name))
    found = in_onnxruntime(proto, x, class_index)
    expected = torch_gated(chain(name), table, x, class_index, torch.float64)
    assert relative(found, expected).max() <= 1e-5


def relu_gating(network: Any) -> Gating:
    """By the modules: torch's ReLU is gated, all else left alone."""
    counts = collections.Counter(type(m).__name__ for m in network.modules())
    left = {name: counts[m] for m, name in (PIECEWISE | SMOOTH | OTHERS).items() if counts[m] and m != "ReLU"}
    return Gating({"Relu": counts["ReLU"]} if counts["ReLU"] else {}, {}, dict(sorted(left.items())))


@every_table
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "efficientnet_b0"])
def test_relu_alone_in_mobile_networks(name: str, exporter: str, table: str) -> None:
    """ReLU6, SiLU, HardSwish and the gates of squeeze and excitation keep their gradient, as in libraries of torch."""
    x, class_index, network = exports.images(name)[:2], exports.ranked(name)[:2], exports.small(name)
    proto, gating = written(exports.small_model(name, exporter), RELU_TABLES[table])
    assert gating == relu_gating(network)
    expected, of_all = (
        torch_gated(network, table, x, class_index, torch.float64, g) for g in (["ReLU"], PIECEWISE | SMOOTH)
    )
    assert cosine(in_onnxruntime(proto, x, class_index), expected).min() >= 0.9999
    assert relative(of_all, expected).min() > 0.1  # gating all is another thing


@pytest.mark.parametrize("name", CHAINS)
@every_table
def test_relu_alone_among_every_activation(name: str, table: str) -> None:
    x, class_index = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32), (4, 0, 2)
    proto, gating = written(chain_model(name, "torchscript", 17), RELU_TABLES[table])
    assert gating == relu_gating(chain(name))
    expected = torch_gated(chain(name), table, x, class_index, torch.float64, ["ReLU"])
    assert relative(in_onnxruntime(proto, x, class_index), expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "exporter"),
    [("vit", "torchscript"), ("vit", "dynamo"), ("swin", "torchscript"), ("mobilevit", "torchscript")],
)
def test_networks_of_tokens(name: str, exporter: str) -> None:
    """The Softmax of attention is left alone; GELU and SiLU are found in what the exporters write."""
    _, gating = written(token_nets.model(name, exporter), GUIDED_RULES)
    expected = expected_gating(token_nets.net(name))
    assert (gating.piecewise, gating.smooth) == (expected.piecewise, expected.smooth)
    assert set(gating.left_alone) == {"Softmax"}


@pytest.mark.parametrize("name", ["mobilenet_v3", "efficientnet_b0", "convnext_tiny", "mobilevit"])
def test_networks_as_optimisers_save_them(name: str, tmp_path: Path) -> None:
    """FusedConv, QuickGelu and BiasGelu hold what the exporter wrote."""
    model, _ = small_network(name, "torchscript")
    optimised = saved(model, tmp_path / "saved.onnx")
    assert of_microsoft(optimised) & {"FusedConv", "QuickGelu", "BiasGelu"}
    assert written(optimised.SerializeToString(), GUIDED_RULES)[1] == written(model, GUIDED_RULES)[1]


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("name", ["mobilenet_v3", "efficientnet_b0"])
def test_quantized_networks_with_gates(name: str, form: str, tmp_path: Path) -> None:
    """Every activation of the float model is found, in the format or in pieces, and no gate or mean is one."""
    model, x = small_network(name, "torchscript")
    (tmp_path / "float.onnx").write_bytes(model)
    with exports.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(
            tmp_path / "float.onnx",
            tmp_path / "quantized.onnx",
            Calibration("x", x),
            quant_format=quantization.QuantFormat[form],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    expected, found = (
        written(model, GUIDED_RULES)[1],
        written((tmp_path / "quantized.onnx").read_bytes(), GUIDED_RULES)[1],
    )
    assert sum(found.piecewise.values()) == sum(expected.piecewise.values())
    assert (found.smooth, found.left_alone) == (expected.smooth, expected.left_alone)
