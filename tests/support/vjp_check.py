"""One check for every VJP rule: finite differences in float64, ONNX Runtime in float32, static and dynamic shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nets import run
from reference import evaluator
from rule_cases import Case, cast, feeds, forward_model, typed, with_gradients
from safe_operators import lint

FLOAT64, FLOAT32, FLOAT16 = map(np.dtype, ("float64", "float32", "float16"))


def check_vjp(case: Case, *, seed: int = 0) -> dict[int, np.ndarray]:
    """Assert that every gradient of ``case`` is right; return them (float64, by input position).

    ⟨v, x̄⟩ is compared with ⟨g, (f(x + hv) − f(x − hv)) / 2h⟩ for five random v, in float64 on the reference
    evaluator; compact cotangents with their expansion; ONNX Runtime in float32 (optimisations off and on, static and
    dynamic shapes) with that result.
    """
    rng = np.random.default_rng(seed)
    forward = evaluator(forward_model(case, FLOAT64, False))
    fed = feeds(case, FLOAT64)
    ys = forward.run(None, fed)
    gs = {f"g{i}": rng.standard_normal(y.shape).astype(y.dtype) for i, y in enumerate(ys) if y.dtype.kind == "f"}
    model = with_gradients(case, FLOAT64, False)
    lint(model)
    names = [f"grad{i}" for i in case.wrt]
    backward = evaluator(model)
    gradients = dict(zip(case.wrt, backward.run(names, fed | gs), strict=True))
    for i in case.wrt:
        assert gradients[i].shape == np.shape(case.inputs[i])
        _finite_differences(case, forward, fed, gs, i, gradients[i], rng)
    for parity in (None, 0, 1):
        _check_compact(case, parity, fed, gs, backward)
    if case.ort:
        for dynamic in (False, True):
            _check_ort(case, dynamic, gs, gradients)
    return gradients


def _check_compact(case, parity, fed, gs, backward) -> None:  # type: ignore[no-untyped-def]
    """Assert that a cotangent of size 1 along all, the even or the odd axes gives what its expansion gives."""
    axes = {k: tuple(range(g.ndim) if parity is None else range(parity, g.ndim, 2)) for k, g in gs.items()}
    small = {k: g.mean(axis=axes[k], keepdims=True) for k, g in gs.items()}
    if all(small[k].shape == g.shape for k, g in gs.items()):
        return
    names = [f"grad{i}" for i in case.wrt]
    found = evaluator(with_gradients(case, FLOAT64, False, small)).run(names, fed | small)
    expected = backward.run(names, fed | {k: np.broadcast_to(small[k], g.shape) for k, g in gs.items()})
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=f"{case}, compact cotangent {parity}")


def pulled_back(
    case: Case,
    *gs: np.ndarray,
    dtype: str = "float32",
    dynamic: bool = False,
    reference: bool = False,
) -> list[np.ndarray]:
    """Return the gradients of ``case`` for the cotangents ``gs`` of its outputs, for tests of exact values.

    float64 runs on the reference evaluator, the others on ONNX Runtime unless ``reference`` is set.
    """
    kind = np.dtype(dtype)
    model = with_gradients(case, kind, dynamic)
    lint(model)
    fed = feeds(case, kind) | typed(model, {f"g{i}": np.asarray(g) for i, g in enumerate(gs)})
    names = [f"grad{i}" for i in case.wrt]
    on_reference = reference or kind == np.float64
    found = evaluator(model).run(names, fed) if on_reference else run(model, fed, names).values()
    return [np.asarray(x) for x in found]


def check_float16(case: Case, *, tolerance: float = 4e-3) -> None:
    """Assert that the graph in float16 gives what float64 gives at the same (rounded) inputs and cotangent.

    On ONNX Runtime, whose CPU kernels compute in float32, and on the reference evaluator, which rounds every node.
    """
    inputs = [x if x is None or i in case.typed else cast(cast(x, FLOAT16), FLOAT64) for i, x in enumerate(case.inputs)]
    rounded = replace(case, inputs=inputs)
    rng = np.random.default_rng(0)
    ys = evaluator(forward_model(rounded, FLOAT64, False)).run(None, feeds(rounded, FLOAT64))
    gs = [rng.standard_normal(y.shape).astype(FLOAT16).astype(FLOAT64) for y in ys if y.dtype.kind == "f"]
    exact = pulled_back(rounded, *gs, dtype="float64")
    for reference in (False, True):
        with np.errstate(all="ignore"):  # of the forward operators of the reference evaluator
            gradients = pulled_back(rounded, *gs, dtype="float16", reference=reference)
        for found, expected in zip(gradients, exact, strict=True):
            assert found.dtype == FLOAT16
            scale = max(float(np.abs(expected).max(initial=0)), 1.0)
            name = f"{case}{', reference evaluator' if reference else ''}"
            np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0, err_msg=name)


def check_torch(case: Case, function: Callable[..., Any], *, tolerance: float = 1e-9) -> None:
    """Assert that float64 gradients are those of autograd through ``function(torch, *inputs)``, kinks included."""
    torch = pytest.importorskip("torch", reason="torch: not installed")
    tensors = [None if x is None else torch.tensor(x) for x in case.inputs]
    for i in case.wrt:
        tensors[i].requires_grad_()
    y = function(torch, *tensors)
    g = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(torch.tensor(g))
    for i, found in zip(case.wrt, pulled_back(case, g, dtype="float64"), strict=True):
        expected = tensors[i].grad.numpy()
        scale = max(float(np.abs(expected).max(initial=0)), 1.0)
        np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0, err_msg=str(case))


def check_forward(case: Case, *, tolerance: float = 2e-5) -> None:
    """Assert that ONNX Runtime computes what our reference operators do."""
    forward = evaluator(forward_model(case, FLOAT64, False))
    expected = forward.run(None, feeds(case, FLOAT64))
    names = [f"y{i}" for i in range(case.outputs)]
    deployed = run(forward_model(case, FLOAT32, False), feeds(case, FLOAT32), names)
    for found, y in zip(deployed.values(), expected, strict=True):
        np.testing.assert_allclose(found, y, atol=tolerance, rtol=tolerance, err_msg=str(case))


def check_affine(case: Case, *, tolerance: float = 1e-5) -> None:
    """Assert ⟨g, y(x) − y(0)⟩ = ⟨x̄, x⟩ for an operator that is affine in its first input, all on ONNX Runtime.

    The reference evaluator is not asked: what is transposed is what the runtime does.
    """
    fed = feeds(case, FLOAT32)
    model = forward_model(case, FLOAT32, False)
    y, at_zero = (run(model, fed | {"x0": s * fed["x0"]})["y0"].astype(float) for s in (1, 0))
    rng = np.random.default_rng(0)
    alone = replace(case, wrt=(0,))
    for _ in range(3):
        g = rng.standard_normal(y.shape)
        (found,) = pulled_back(alone, g)
        scale = max(float(np.linalg.norm(found)), 1.0)
        assert abs(np.vdot(g, y - at_zero) - np.vdot(found, fed["x0"])) <= tolerance * scale, str(case)


def _finite_differences(case, forward, fed, gs, i, gradient, rng) -> None:  # type: ignore[no-untyped-def]
    name, h = f"x{i}", case.step
    if name not in fed:
        raise AssertionError("differentiate graph inputs, not constants")
    keys = [int(g[1:]) for g in gs]
    for _ in range(5):
        v = rng.standard_normal(fed[name].shape)
        plus = forward.run(None, fed | {name: fed[name] + h * v})
        minus = forward.run(None, fed | {name: fed[name] - h * v})
        numeric = sum(float(np.sum(gs[f"g{k}"] * (plus[k] - minus[k]))) for k in keys) / (2 * h)
        exact = float(np.sum(gradient * v))
        scale = max(abs(numeric), float(np.linalg.norm(gradient)), 1e-3)
        assert abs(numeric - exact) <= case.tolerance * scale, (str(case), i, numeric, exact)


def _check_ort(case: Case, dynamic: bool, gs: dict[str, np.ndarray], gradients: dict[int, np.ndarray]) -> None:
    model = with_gradients(case, FLOAT32, dynamic)
    lint(model)
    fed = feeds(case, FLOAT32) | typed(model, gs)
    for optimized in (False, True):
        found = run(model, fed, [f"grad{i}" for i in case.wrt], optimized)
        for i, array in zip(case.wrt, found.values(), strict=True):
            scale = max(float(np.abs(gradients[i]).max(initial=0)), 1.0)
            np.testing.assert_allclose(array / scale, gradients[i] / scale, atol=2e-5, rtol=0, err_msg=str(case))
