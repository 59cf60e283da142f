"""Rules of Einsum and Det: sums of products that an equation or the whole matrix defines."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.autodiff.registry import EACH, Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import Dim, dims, one_hot, positions, vector
from onnx_gradcam.graph.builder import Builder, Value, rank, same_dim

Operand = tuple[str, Value]  # a letter for each axis, and the tensor


@vjp("Einsum", wrt=EACH)
def einsum(op: Builder, g: Value, y: Value, *Inputs: Value, equation: str, i: int) -> Value:
    """y = Σ x₀ · x₁ · … by the letters of an equation:  x̄ᵢ = Σ g · (the others), with xᵢ's letters as the result.

    A letter that xᵢ alone has stands for a sum over xᵢ: the others are joined by a vector of ones with that letter. A
    letter that xᵢ has twice stands for its diagonal: they are joined by an identity matrix.
    """
    terms, result = _explicit(equation, [rank(x) for x in Inputs])
    if len(result) != rank(y):
        raise Unwritten(f"the equation {equation!r}")
    operands = [(result, g), *((term, x) for k, (term, x) in enumerate(zip(terms, Inputs, strict=True)) if k != i)]
    fresh = _unused("".join([*terms, result]))
    target = ""
    for letter, size in zip(terms[i], dims(Inputs[i]), strict=True):
        if letter in target:
            operands.append((letter + next(fresh), one_hot(op, positions(op, size), size, like=g)))
            letter = operands[-1][0][1]
        target += letter
    present = {letter for term, _ in operands for letter in term}
    for letter, size in zip(target, dims(Inputs[i]), strict=True):
        if letter not in present:
            operands.append((letter, op.Expand(op.const(1, like=g), vector(op, [size]))))
    left = ",".join(term for term, _ in operands)
    product = op.Einsum(*(x for _, x in operands), equation=f"{left}->{target}")
    product.shape = ir.Shape([_axis(letter, [(result, y), *operands[1:]]) for letter in target])
    return sum_to(op, product, like=Inputs[i], full=product)


def _explicit(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; an ellipsis gets letters, which align to the right."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    written = left.split(",")
    hidden = [n - len(term.replace("...", "")) if "..." in term else 0 for n, term in zip(ranks, written, strict=True)]
    fresh = _unused(equation)
    ellipsis = "".join(next(fresh) for _ in range(max(hidden)))
    terms = [term.replace("...", ellipsis[len(ellipsis) - n :]) for n, term in zip(hidden, written, strict=True)]
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        result = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, result.replace("...", ellipsis)


def _unused(text: str) -> Iterator[str]:
    """Yield the letters that ``text`` does not have."""
    return (letter for letter in string.ascii_letters if letter not in text)


def _axis(letter: str, operands: Sequence[Operand]) -> int | ir.SymbolicDim | None:
    """Return the length that a letter stands for; axes of length 1 broadcast."""
    lengths = [x.shape[term.index(letter)] for term, x in operands if x.shape is not None and letter in term]
    longer = [d for d in lengths if d != 1]
    if any(isinstance(d, int) for d in longer):
        return max(d for d in longer if isinstance(d, int))
    if not longer:
        return 1
    return longer[0] if all(same_dim(d, longer[0]) for d in longer) else None


@vjp("Det", wrt=0)
def det(op: Builder, g: Value, y: Value, X: Value) -> Value:
    """y = det X:  x̄ᵢⱼ = g · det(X with row i replaced by the unit vector eⱼ), which is finite for a singular X too.

    The n² matrices are built as X · (1 − [r = i]) + [r = i] · [c = j], with axes (…, i, j, r, c).
    """
    size: Dim = dims(X)[-1]
    eye = one_hot(op, positions(op, size), size, like=X)
    row = op.Unsqueeze(eye, op.ints(1, 3))
    unit = op.Unsqueeze(eye, op.ints(0, 2))
    others = op.Mul(op.Unsqueeze(X, op.ints(-3, -4)), op.Sub(op.const(1, like=X), row))
    cofactors = op.Det(op.Add(others, op.Mul(row, unit)))
    return op.Mul(op.Unsqueeze(g, op.ints(-1, -2)), cofactors)
