"""Relevance against zennit, DeepLIFT and GradientSHAP against captum, on the same weights. Run with `make oracles`."""

from __future__ import annotations

import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear"),
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export"),
]
TARGETS, SIZE = [1, 3], 16
X = np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
LEAST = 1e-12  # of zennit's Norm; ours divides sums and pools without


def sequence(*layers: Any) -> Any:
    """The layers in float64, with weights and statistics that are not those of a fresh network.

    All are numbers of float32, which the exported model has, too. The layers come with weights that no seed decided.
    """
    torch.manual_seed(0)
    module = torch.nn.Sequential(*layers).double().eval()
    for layer in module:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.2)
        for layer in module:
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.5, 0.5)
                layer.running_var.uniform_(0.5, 2)
    return module.float().double()


@pytest.fixture(scope="module")
def module() -> Any:
    nn = torch.nn
    return sequence(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    )


def explainer_of(module: Any, keeps_norms: bool = False) -> ogc.Explainer:
    """The module as an ONNX model in float32; ``keeps_norms``: BatchNormalization stays an operator of its own."""
    import copy

    file = io.BytesIO()
    training = torch.onnx.TrainingMode.PRESERVE if keeps_norms else torch.onnx.TrainingMode.EVAL
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}, "dynamo": False, "training": training}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(copy.deepcopy(module).float(), torch.from_numpy(X), file, **names)
    return ogc.Explainer(file.getvalue(), providers=["cpu"])


@pytest.fixture(scope="module", params=[False, True])
def explainer(module: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with explainer_of(module, request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def zennit() -> Any:
    """zennit, with names of torchvision in the place of a package that it needs for canonizers only."""
    for name, classes in {
        "torchvision": (),
        "torchvision.models": (),
        "torchvision.models.resnet": ("Bottleneck", "BasicBlock"),
        "torchvision.models.vgg": ("VGG",),
    }.items():
        stub = sys.modules.setdefault(name, types.ModuleType(name))
        for each in classes:
            setattr(stub, each, type(each, (torch.nn.Module,), {}))
    return pytest.importorskip("zennit", reason="zennit: not installed; run `make oracles`")


def composites() -> dict[str, tuple[Callable[[], Any], dict[str, Any]]]:
    """What zennit makes of each rule, and the options of ours."""
    from zennit import composites as c
    from zennit import rules as r
    from zennit.types import Convolution

    def of_all(rule: Any, first: Any = None) -> Any:
        layers = [*c.layer_map_base(LEAST), (Convolution, rule), (torch.nn.Linear, rule)]
        return c.LayerMapComposite(layers) if first is None else c.SpecialFirstLayerMapComposite(layers, [first])

    low, high = torch.tensor([-3.0, -4, -5]).reshape(1, 3, 1, 1), torch.full((1, 3, 1, 1), 4.0)
    norm = {"layer_map": c.layer_map_base(LEAST)}
    return {
        "epsilon": (lambda: of_all(r.Epsilon()), {"rule": "epsilon"}),
        "larger epsilon": (lambda: of_all(r.Epsilon(0.2)), {"rule": "epsilon", "epsilon": 0.2}),
        "z-plus": (lambda: of_all(r.ZPlus()), {"rule": "z-plus"}),
        "alpha-beta": (lambda: of_all(r.AlphaBeta()), {"rule": "alpha-beta"}),
        "alpha 1.5": (lambda: of_all(r.AlphaBeta(1.5, 0.5)), {"rule": "alpha-beta", "alpha": 1.5}),
        "gamma": (lambda: of_all(r.Gamma()), {"rule": "gamma"}),
        "no biases": (lambda: of_all(r.ZPlus(zero_params="bias")), {"rule": "z-plus", "biases": "none"}),
        "w-square": (
            lambda: of_all(r.Epsilon(), ((Convolution,), r.WSquare())),
            {"rule": {"first": "w-square", "convolution": "epsilon", "linear": "epsilon"}},
        ),
        "excitation": (lambda: c.ExcitationBackprop(**norm, zero_params="bias"), {"rule": "excitation"}),
        "epsilon-plus": (lambda: c.EpsilonPlus(**norm), {}),
        "epsilon-plus-flat": (lambda: c.EpsilonPlusFlat(**norm), {"rule": "epsilon-plus-flat"}),
        "epsilon-alpha-beta": (lambda: c.EpsilonAlpha2Beta1(**norm), {"rule": "epsilon-alpha-beta"}),
        "epsilon-alpha-beta-flat": (lambda: c.EpsilonAlpha2Beta1Flat(**norm), {"rule": "epsilon-alpha-beta-flat"}),
        "epsilon-gamma-box": (
            lambda: c.EpsilonGammaBox(low=low, high=high, **norm),
            {"rule": "epsilon-gamma-box", "low": [-3, -4, -5], "high": 4},
        ),
    }


RULES = (
    "epsilon|larger epsilon|z-plus|alpha-beta|alpha 1.5|gamma|no biases|w-square|excitation|epsilon-plus|"
    "epsilon-plus-flat|epsilon-alpha-beta|epsilon-alpha-beta-flat|epsilon-gamma-box"
).split("|")


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_that_of_zennit(zennit: Any, module: Any, explainer: Any, name: str) -> None:
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm

    make, options = composites()[name]
    composite = make()
    composite.canonizers = [SequentialMergeBatchNorm()]
    rows = torch.eye(5, dtype=torch.float64)[TARGETS]
    with Gradient(module, composite) as attributor:
        _, expected = attributor(torch.from_numpy(X).double(), lambda output: output * rows)
    found = explainer.explain(X, TARGETS, "lrp", **options).attribution
    right = expected.detach().numpy()
    np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max(), rtol=0)


def smooth() -> Any:
    nn = torch.nn
    return [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Sigmoid(),
        nn.Conv2d(4, 4, 3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(144, 10),
        nn.LeakyReLU(),
        nn.Linear(10, 5),
    ]


def straight() -> Any:
    nn = torch.nn
    return [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 5)]


def pooled() -> Any:
    nn = torch.nn
    return [nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 5)]


@pytest.mark.parametrize(("layers", "tolerance"), [(straight, 1e-5), (pooled, 1e-5), (smooth, 1e-5)])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_deeplift_is_that_of_captum(layers: Callable[[], Any], tolerance: float, baseline: float) -> None:
    """Quotients of differences of smooth functions lose a digit in float32."""
    library = pytest.importorskip("captum.attr", reason="captum: not installed; run `make oracles`")
    module = sequence(*layers())
    tensor = torch.from_numpy(X).double().requires_grad_()
    expected = (
        library.DeepLift(module)
        .attribute(tensor, torch.full_like(tensor, baseline, requires_grad=False), TARGETS)
        .detach()
        .numpy()
    )
    with explainer_of(module) as explainer:
        found = explainer.explain(X, TARGETS, "deeplift", baseline=baseline)
    np.testing.assert_allclose(found.attribution, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def test_captum_does_not_add_up_where_a_rectifier_stands_before_a_max_pool() -> None:
    """So it is no judge there; ours does."""
    library = pytest.importorskip("captum.attr", reason="captum: not installed; run `make oracles`")
    nn = torch.nn
    module = sequence(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 5))
    tensor = torch.from_numpy(X).double().requires_grad_()
    baseline = torch.full_like(tensor, 0.3)
    _, delta = library.DeepLift(module).attribute(tensor, baseline, TARGETS, return_convergence_delta=True)
    assert delta.abs().max() > 1e-3
    with explainer_of(module) as explainer:
        found = explainer.explain(X, TARGETS, "deeplift", baseline=0.3)
    np.testing.assert_allclose(found.completeness.error, 0, atol=1e-5)


def test_gradient_shap_is_that_of_captum(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same random places between the baseline and the input."""
    library = pytest.importorskip("captum.attr", reason="captum: not installed; run `make oracles`")
    samples = 6
    places = np.array([np.random.default_rng([0, number]).random() for number in range(samples)])
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: np.tile(places, 2)[:size])
    tensor = torch.from_numpy(X).double().requires_grad_()
    baseline = torch.full((1, 3, SIZE, SIZE), 0.3, dtype=torch.float64)
    expected = library.GradientShap(module).attribute(tensor, baseline, samples, 0.0, TARGETS).detach().numpy()
    with explainer_of(module) as explainer:
        found = explainer.explain(X, TARGETS, "gradient-shap", samples=samples, baseline=0.3).attribution
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
