"""The same small nets in torch: captum gives the numbers that were worked out by hand. Run with `make oracles`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from exact_cases import CASES, GRADCAM_OF_WINDOWS, PIXELS, SIGNS, Case

torch = pytest.importorskip("torch", reason="torch: not installed")
nn, relu = torch.nn, torch.relu

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear"),
]


class Net(nn.Module):  # type: ignore[misc]
    """A function with the ReLU modules that captum looks for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.second, self.last, self.function = nn.ReLU(), nn.ReLU(), nn.ReLU(), function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def perceptron(net: Net, x: Any) -> Any:
    h = net.first(x.sum(1, keepdim=True) + torch.tensor([-10.0, 1, 1, 1], dtype=x.dtype))
    return h.sum(1, keepdim=True) + torch.tensor([-1.0, 1], dtype=x.dtype)


def convolution(net: Net, x: Any) -> Any:
    windows = net.first(nn.functional.conv2d(x, torch.ones(2, 1, 3, 3, dtype=x.dtype)))
    return net.last((windows.reshape(-1, 8) * torch.tensor(SIGNS, dtype=x.dtype)).sum(1, keepdim=True)).repeat(1, 4)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "saturating": lambda net, x: 1 - net.first(1 - x),
    "numbers": lambda net, a, b: net.last(net.first(a) - 1 - net.second(b)),
    "difference": lambda net, a, b: net.last(net.first(a) - 1 - net.second(b)),
    "late": lambda net, a, b: net.last(net.first(a - 1) - net.second(b)),
    "perceptron": perceptron,
    "convolution": convolution,
    "product": lambda net, a, b, c: a * b * c,
}


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("captum.attr", reason="captum: not installed; run `make oracles`")


def theirs(library: Any, case: Case) -> tuple[Any, ...]:
    module = Net(FUNCTIONS[case.net]).double()
    inputs = tuple(torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in case.feeds.values())
    target = case.target if case.target is not None else None if inputs[0].ndim == 1 else 0
    if case.method == "integrated-gradients":
        named = case.options.get("baseline", {})
        begin = tuple(torch.full_like(x, named.get(name, 0.0)) for name, x in zip(case.feeds, inputs, strict=True))
        steps = case.options["steps"]
        integral = library.IntegratedGradients(module)
        of_all: tuple[Any, ...] = integral.attribute(inputs, begin, target, n_steps=steps, method="riemann_middle")
        return of_all
    if case.method == "saliency":  # captum's default is the magnitude
        return tuple(library.Saliency(module).attribute(inputs, target, abs=False))
    names = {
        "input-x-gradient": "InputXGradient",
        "guided-backprop": "GuidedBackprop",
        "deconvolution": "Deconvolution",
    }
    return tuple(getattr(library, names[case.method])(module).attribute(inputs, target))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.net}, {case.method}")
def test_captum_has_the_same_numbers(library: Any, case: Case) -> None:
    for name, attribution in zip(case.feeds, theirs(library, case), strict=True):
        np.testing.assert_allclose(attribution.detach().numpy(), case.expected[name], rtol=1e-5, atol=1e-5)


def test_gradcam(library: Any) -> None:
    module = Net(convolution).double()
    x = torch.tensor(PIXELS, dtype=torch.float64, requires_grad=True)
    cam = library.LayerGradCam(module, module.first).attribute(x, 0, relu_attributions=True)
    np.testing.assert_allclose(cam.detach().numpy()[:, 0], GRADCAM_OF_WINDOWS)
