from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from nets import run
from onnx.reference import ReferenceEvaluator
from vjp_check import Case, with_gradients

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.builder import Builder

SIZES = (2, 3, 4)
Shape = tuple[int, ...]
Dims = list[int | str | None]


@dataclass(frozen=True)
class Form:
    """Shapes of a cotangent and of a value before and after broadcasting."""

    g: Shape
    like: Shape
    full: Shape


def shrunk(shape: Shape) -> Iterator[Shape]:
    """Every shape that broadcasts to ``shape`` with the same rank."""
    return itertools.product(*[{1, n} for n in shape])


def forms() -> list[Form]:
    found = []
    for rank in range(4):
        for full in shrunk(SIZES[:rank]):
            for lead in range(rank + 1):
                found += [Form(g, like, full) for like in shrunk(full[lead:]) for g in shrunk(full)]
    return found


def named(shape: Shape, rank: int) -> Dims:
    """Symbols that are equal where the sizes are; 1 is known."""
    return [n if n == 1 else f"d{k + rank - len(shape)}" for k, n in enumerate(shape)]


def unnamed(shape: Shape) -> Dims:
    """Nothing is known, not even what is 1."""
    return [None] * len(shape)


def told(shape: Shape) -> Dims:
    """Unknown, but for the 1s."""
    return [1 if n == 1 else None for n in shape]


def static(shape: Shape) -> Dims:
    return list(shape)


KNOWLEDGE = {
    "static": lambda f: (static(f.g), static(f.like), static(f.full)),
    "named": lambda f: (named(f.g, len(f.full)), named(f.like, len(f.full)), named(f.full, len(f.full))),
    "unnamed": lambda f: (told(f.g), unnamed(f.like), unnamed(f.full)),
    "hidden": lambda f: (unnamed(f.g), unnamed(f.like), unnamed(f.full)),
    "like known": lambda f: (told(f.g), static(f.like), unnamed(f.full)),
    "full known": lambda f: (told(f.g), unnamed(f.like), static(f.full)),
    "named, g hidden": lambda f: (unnamed(f.g), named(f.like, len(f.full)), named(f.full, len(f.full))),
}  # fmt: skip


def summed(g: np.ndarray, form: Form) -> np.ndarray:
    """By definition: every element of ``full`` adds its cotangent to the element of ``like`` that it is."""
    total = np.zeros(form.like)
    source = np.broadcast_to(np.arange(total.size).reshape(form.like), form.full)
    np.add.at(total.reshape(-1), source.reshape(-1), np.broadcast_to(g, form.full).reshape(-1))
    return total


def model_of(found: list[Form], knowledge: str) -> ir.Model:
    """One graph with a sum_to for each form."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="forms")
    op = Builder(graph)
    for i, form in enumerate(found):
        g, like, full = (
            ir.val(f"{name}{i}", dtype=ir.DataType.DOUBLE, shape=ir.Shape(dims))
            for name, dims in zip(("g", "like", "full"), KNOWLEDGE[knowledge](form), strict=True)
        )
        graph.inputs.extend([g, like, full])
        out = op.Identity(sum_to(op, g, like=like, full=full))
        out.name = f"out{i}"
        out.dtype, out.shape = ir.DataType.DOUBLE, ir.Shape([None] * len(form.like))
        graph.outputs.append(out)
    return ir.Model(graph, ir_version=10)


def feeds(found: list[Form]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = {}
    for i, form in enumerate(found):
        arrays |= {f"g{i}": rng.standard_normal(form.g)}
        arrays |= {f"like{i}": np.zeros(form.like), f"full{i}": np.zeros(form.full)}
    return arrays


def compare(found: list[Form], fed: dict[str, np.ndarray], outputs: list[np.ndarray]) -> None:
    for i, (form, out) in enumerate(zip(found, outputs, strict=True)):
        assert out.ndim == len(form.like), form
        expected = summed(fed[f"g{i}"], form)
        np.testing.assert_allclose(np.broadcast_to(out, form.like), expected, atol=1e-12, err_msg=str(form))


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_sum_to_on_every_form(knowledge: str) -> None:
    found = forms()
    assert len(found) == 330
    fed = feeds(found)
    model = ir.to_proto(model_of(found, knowledge))
    compare(found, fed, ReferenceEvaluator(model).run(None, fed))


@pytest.mark.parametrize("optimized", [False, True])
def test_sum_to_in_onnxruntime(optimized: bool) -> None:
    found = forms()[::5]
    fed = feeds(found)
    compare(found, fed, list(run(model_of(found, "unnamed"), fed, optimized=optimized).values()))


@pytest.mark.parametrize("knowledge", ["static", "named"])
def test_nothing_is_written_where_nothing_was_broadcast(knowledge: str) -> None:
    graph = model_of([Form(SIZES, SIZES, SIZES), Form((2, 1, 1), SIZES, SIZES)], knowledge).graph
    assert [n.op_type for n in graph] == ["Identity", "Identity"]


def test_a_sum_over_known_axes_needs_no_shape_arithmetic() -> None:
    graph = model_of([Form(SIZES, (3, 1), SIZES)], "named").graph
    assert [n.op_type for n in graph] == ["ReduceSum", "Squeeze", "Identity"]


def test_compact_cotangent_of_a_product_whose_broadcasting_shows_at_run_time() -> None:
    """y = a·b with b of size 1 in the run only: g·b has size 1 where ā has size 3."""
    long, short, g = np.array([1.0, 2.0, 3.0]), np.array([5.0]), np.array([10.0])
    for a, b in ((long, short), (short, long)):
        case = Case("Mul", [a, b], wrt=(0, 1))
        model = with_gradients(case, np.dtype("float64"), True, {"g0": g})
        _, *found = run(model, {"x0": a, "x1": b, "g0": g}).values()
        for x, gradient in zip((a, b), found, strict=True):
            np.testing.assert_array_equal(gradient, [50, 50, 50] if x is long else [60])


def test_an_unknown_rank_is_refused_by_name() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18})
    g, like = ir.val("g", dtype=ir.DataType.FLOAT, shape=[2, 3]), ir.val("ranked_in_the_run", dtype=ir.DataType.FLOAT)
    with pytest.raises(ModelError, match="the rank of 'ranked_in_the_run' is not known"):
        sum_to(Builder(graph), g, like=like, full=g)
