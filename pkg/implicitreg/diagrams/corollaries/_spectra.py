"""Shared by the corollaries: symmetric input, the eigenbasis of the Hessian, and sums of powers without divisions.

A sum over the times of a diagram is a divided difference: of z^T for steps, of exp for continuous time. Both are read
off a bidiagonal matrix (Opitz): the corner of f(A), with the points on the diagonal of A and ones above it, is
f[points]. Powers and exponentials of that matrix need no special case where points coincide.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from implicitreg import _validate
from numpy.typing import ArrayLike

FLAT = 1e-12  # an eigenvalue of the Hessian below this share of the largest is zero


def symmetric(name: str, value: ArrayLike, *, rank: int, size: int | None = None) -> np.ndarray:
    """A finite tensor of the given rank, all its axes of one length, equal under every permutation of its axes."""
    array = _validate._floats(name, value)
    size = size or (array.shape[0] if array.ndim else 0)
    if array.shape != (size,) * rank or size == 0:
        wanted = (size or "d",) * rank
        raise ValueError(f"{name} has shape {array.shape}: expected ({', '.join(map(str, wanted))})")
    asymmetry = max(float(np.abs(array - array.transpose(axes)).max()) for axes in permutations(range(rank)))
    if asymmetry > 1e-12 * float(np.abs(array).max()):
        raise ValueError(f"{name} changes by {asymmetry:.1e} when its axes are permuted: expected a symmetric tensor")
    return array


def covariance(C: ArrayLike, *, size: int) -> np.ndarray:
    """A symmetric matrix without negative eigenvalues (to rounding)."""
    C = symmetric("C", C, rank=2, size=size)
    eigenvalues = np.linalg.eigvalsh(C)
    if eigenvalues[0] < -1e-10 * np.abs(eigenvalues).max():
        raise ValueError(f"C has the eigenvalue {eigenvalues[0]:g}: expected a covariance")
    return C


def eigenbasis(H: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues ``(d,)``, those at rounding level set to zero, and eigenvectors ``(d, d)`` of a Hessian >= 0."""
    h, U = np.linalg.eigh(symmetric("H", H, rank=2))
    tiny = FLAT * np.abs(h).max()
    if h[0] < -tiny:
        raise ValueError(f"H has the eigenvalue {h[0]:g}: expected none below zero, as at a minimum")
    return np.where(np.abs(h) <= tiny, 0.0, h), U


def no_flat(h: np.ndarray, argument: str) -> None:
    """Refuse a limit of long time where an eigenvalue is zero."""
    if not h.all():
        raise ValueError(
            f"{argument} = None with H of eigenvalues {h.tolist()}: expected H > 0, or a finite {argument}"
        )


def stable_step(eta: float, h: np.ndarray) -> float:
    """A step size with 0 < eta < 2 / max h."""
    eta = _validate.number("eta", eta, above=0)
    if eta * h.max() >= 2:
        raise ValueError(f"eta = {eta:g}: expected a step below 2 / {h.max():g}, the largest eigenvalue of H")
    return eta


def power_difference(T: int, *points: np.ndarray) -> np.ndarray:
    r"""The divided difference of :math:`z^T` at 1 and the given points (arrays that broadcast).

    One point x gives :math:`\sum_{t<T} x^t`; two give :math:`\sum_{t<T} y^{T-1-t} \sum_{r<t} x^r`.
    """
    A = _bidiagonal(1.0, points)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller reports overflow by name
        return np.linalg.matrix_power(A, T)[..., 0, -1]


def exponential_difference(*points: np.ndarray) -> np.ndarray:
    r"""The divided difference of exp at 0 and the given points <= 0; one point x gives :math:`(e^x - 1)/x`.

    A Taylor polynomial, squared; nothing cancels, as all entries are positive. (A general matrix exponential may divide
    by the difference of two points that agree up to rounding.)
    """
    A = _bidiagonal(0.0, points)
    squarings = 2 + int(np.ceil(np.log2(max(1.0, np.abs(A).max()))))
    B = A / 2**squarings
    E = term = np.broadcast_to(np.eye(A.shape[-1]), A.shape)
    for k in range(1, 15):  # norm at most 1/4 off the diagonal and on it: the next term is below 1e-17
        term = term @ B / k
        E = E + term
    return np.linalg.matrix_power(E, 2**squarings)[..., 0, -1]


def _bidiagonal(first: float, points: tuple[np.ndarray, ...]) -> np.ndarray:
    points = np.broadcast_arrays(*points)
    n = 1 + len(points)
    A = np.zeros((*points[0].shape, n, n))
    A[..., 0, 0] = first
    for i, x in enumerate(points):
        A[..., i, i + 1], A[..., i + 1, i + 1] = 1.0, x
    return A
