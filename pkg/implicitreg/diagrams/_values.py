"""Values of diagrams: contractions of the derivatives of a finite problem."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams._counts import cumulant_terms
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from implicitreg.diagrams.diagram import Diagram


@dataclass(frozen=True, eq=False)
class Tensors:
    """Derivatives of every example, ``raw[k]`` of order k with shape (m, d, …), less their means in ``centred``.

    With a metric :math:`M = RR^T` every index is contracted with R, so that edges carry the identity.
    """

    p: np.ndarray
    root: np.ndarray
    mean: tuple[np.ndarray, ...]
    raw: tuple[np.ndarray, ...]
    centred: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, problem: FiniteProblem, order: int, metric: ArrayLike | None = None) -> Tensors:
        """The tensors up to an order at the problem's start; a warning where the losses have kinks."""
        d = smooth(problem, stacklevel=6).d
        R = np.eye(d) if metric is None else np.linalg.cholesky(_metric(metric, d))
        return cls.turned(problem, order, R)

    @classmethod
    def turned(cls, problem: FiniteProblem, order: int, R: np.ndarray) -> Tensors:
        """The tensors in coordinates phi with theta = R phi."""
        p = problem.probabilities
        raw = tuple(_turned(tensor, R) for tensor in problem.derivatives(order))
        mean = tuple(np.tensordot(p, tensor, 1) for tensor in raw)
        return cls(p, R, mean, raw, tuple(tensor - m for tensor, m in zip(raw, mean, strict=True)))


def smooth(problem: FiniteProblem, *, stacklevel: int = 5) -> FiniteProblem:
    """The problem, or an error if it is none; a warning where its losses have kinks.

    ``stacklevel`` is that of `warnings.warn`: 3 is the caller of the function that calls this one, and
    `_validate.in_range` around a function counts as one more.
    """
    if not isinstance(problem, FiniteProblem):
        raise TypeError(f"problem = {problem!r}: expected a FiniteProblem")
    if kinks := problem.kinks():
        warnings.warn(
            f"the losses of problem have kinks ({', '.join(kinks)}): a series in the step size assumes smooth losses, "
            f"and holds here only as long as no iterate crosses a kink",
            stacklevel=stacklevel,
        )
    return problem


def _metric(metric: ArrayLike, d: int) -> np.ndarray:
    return _validate.spd("metric", metric, size=d)


def _turned(tensor: np.ndarray, R: np.ndarray) -> np.ndarray:
    for axis in range(1, tensor.ndim):
        tensor = np.moveaxis(np.tensordot(tensor, R, (axis, 0)), -1, axis)
    return tensor


def value(diagram: Diagram, tensors: Tensors, *, moments: bool = False, weights: np.ndarray | None = None) -> float:
    """The value; with `weights`, of shape (d,) * edges, each choice of the edges' indices is multiplied by one."""
    edges = ascii_lowercase[: diagram.edges]
    extra = [] if weights is None else [(weights, edges)]
    return float(sum(_contract([*nodes, *extra], "") * c for c, nodes in _terms(diagram, tensors, moments, True)))


def root_vector(diagram: Diagram, tensors: Tensors, weights: np.ndarray | None = None) -> np.ndarray:
    """The value with the root taken away, for a root of degree one: a vector at the end of the last edge."""
    edges = ascii_lowercase[: diagram.edges]
    extra = [] if weights is None else [(weights, edges)]
    last = edges[diagram.parents.index(diagram.edges)]
    terms = _terms(diagram, tensors, False, False)
    return tensors.root @ sum(_contract([*nodes, *extra], last) * c for c, nodes in terms)


def _terms(
    diagram: Diagram, tensors: Tensors, moments: bool, with_root: bool
) -> Iterator[tuple[int, list[tuple[np.ndarray, str]]]]:
    """The value as a sum of products of moments: factors, and operands with their indices."""
    nodes = range(diagram.edges + with_root)
    index = [_indices(diagram, v) for v in nodes]
    parts = [[v for v in part if v in nodes] for part in diagram.ties]
    alone = [(tensors.mean[len(index[part[0]])], index[part[0]]) for part in parts if len(part) == 1]
    kind = tensors.raw if moments else tensors.centred
    options = [[(1, [part])] if moments else cumulant_terms(part) for part in parts if len(part) > 1]
    for choice in product(*options):
        factor, operands = 1, list(alone)
        example = iter(ascii_uppercase)
        for c, found in choice:
            factor *= c
            for block in found:
                x = next(example)
                operands += [(tensors.p, x), *((kind[len(index[v])], x + index[v]) for v in block)]
        yield factor, operands


def _indices(diagram: Diagram, v: int) -> str:
    """The letters of the edges at a node: edge i joins node i to its parent."""
    own = ascii_lowercase[v] if v < diagram.edges else ""
    return own + "".join(ascii_lowercase[child] for child, parent in enumerate(diagram.parents) if parent == v)


def _contract(operands: list[tuple[np.ndarray, str]], output: str) -> np.ndarray:
    arrays, letters = zip(*operands, strict=True) if operands else ((np.ones(()),), ("",))
    return np.einsum(f"{','.join(letters)}->{output}", *arrays, optimize=len(arrays) > 2)
