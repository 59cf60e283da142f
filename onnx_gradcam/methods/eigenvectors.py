"""Eigenvectors of symmetric matrices, in plain Array API arithmetic."""

from __future__ import annotations

from array_api_compat import array_namespace, device

from onnx_gradcam.methods.arrays import Array, largest, ratio

# A matrix is raised to the power 2^14: a component whose eigenvalue is 0.1 % below the first shrinks to 1e-7.
SQUARINGS = 14
# A longer matrix is looked at in a Krylov space of this many dimensions: squaring it would take minutes.
LONGEST, KRYLOV = 512, 128


def first_eigenvector(gram: Array) -> Array:
    """M^(2^s) e, the eigenvector of M's largest eigenvalue, of any length: (N, n, n) → (N, n, 1).

    M is symmetric, and the largest is that of the largest magnitude. The power method by repeated squaring; e is the
    unit vector of the row with the most energy: unlike a fixed start it is never orthogonal to the result.
    """
    for _ in range(SQUARINGS):
        gram = ratio(gram, largest(gram))
        gram = gram @ gram
    gram = ratio(gram, largest(gram))
    return gram @ largest_row(gram)


def top_eigenpair(matrix: Array) -> tuple[Array, Array]:
    """Return the unit eigenvector of the largest eigenvalue and this value: (N, n, n) → (N, n, 1), (N, 1, 1).

    The largest, and not that of the largest magnitude: M may have negative ones, which the power method takes as well.
    Where that happened, (|Mv| − v·Mv) / 2 is above 0; added to all eigenvalues, it leaves no negative one beyond.
    """
    xp = array_namespace(matrix)
    if matrix.shape[1] > LONGEST:
        basis = krylov_basis(matrix, KRYLOV)
        inner, value = top_eigenpair(xp.matrix_transpose(basis) @ (matrix @ basis))
        return basis @ inner, value
    v = unit(first_eigenvector(matrix))
    moved = matrix @ v
    shift = (norm(moved) - xp.sum(v * moved, axis=1, keepdims=True)) / 2
    identity = xp.eye(matrix.shape[1], dtype=matrix.dtype, device=device(matrix))[None, :, :]
    v = unit(first_eigenvector(matrix + shift * identity))
    return v, xp.sum(v * (matrix @ v), axis=1, keepdims=True)


def krylov_basis(matrix: Array, count: int) -> Array:
    """Return an orthonormal basis of the span of e, Me, M²e, …: (N, n, n) → (N, n, count).

    e is the unit vector of the row with the most energy. Each vector is made orthogonal to all before it, twice: once
    leaves rounding behind. The eigenvectors at the ends of the spectrum lie in this space but for a small rest.
    """
    xp = array_namespace(matrix)
    q = unit(matrix @ largest_row(matrix))
    basis = q
    for _ in range(count - 1):
        q = matrix @ q
        for _ in range(2):
            q = q - basis @ (xp.matrix_transpose(basis) @ q)
        q = unit(q)
        basis = xp.concat([basis, q], axis=2)
    return basis


def largest_row(matrix: Array) -> Array:
    """Return the unit vector of the row with the most energy, (N, n, n) → (N, n, 1)."""
    xp = array_namespace(matrix)
    row = xp.argmax(xp.sum(matrix * matrix, axis=2), axis=1)
    chosen = xp.arange(matrix.shape[1], device=device(matrix))[None, :] == row[:, None]
    return xp.astype(chosen, matrix.dtype)[:, :, None]


def norm(v: Array) -> Array:
    """Return |v| of each vector: (N, n, 1) → (N, 1, 1)."""
    xp = array_namespace(v)
    return xp.sqrt(xp.sum(v * v, axis=1, keepdims=True))


def unit(v: Array) -> Array:
    """Return v / |v|, 0 where v is 0: (N, n, 1) → (N, n, 1)."""
    return ratio(v, norm(v))
