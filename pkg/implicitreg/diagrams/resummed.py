r"""The sum over diagrams with all links summed: what a power series cannot do at long times.

A chain of links inside an edge that spans :math:`\Delta t` steps has :math:`\binom{\Delta t - 1}{k}` placements for k
links, each a factor :math:`-\eta H`, so that all chains together weaken the push by

.. math:: \sum_k \binom{\Delta t - 1}{k} (-\eta H)^k = K^{\Delta t - 1}, \qquad K = I - \eta H.

What is left are the diagrams without links, with :math:`K^{\Delta t-1}\eta` on the edges. In the eigenvectors of H
the sum over the steps is a nested geometric sum, found here without a formula for each diagram: for every order of the
nodes in time, step t either goes by, and every open edge gets a factor K, or is the next in the order. That is a
product of T equal bidiagonal matrices, which takes about log T multiplications.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams import _values
from implicitreg.diagrams._partitions import weak_orders
from implicitreg.diagrams.diagram import Diagram, enumerate_diagrams
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = ["MAX_EDGES", "contribution", "resummed_test_loss", "resummed_weights"]

MAX_EDGES = 4


@_validate.in_range
def resummed_test_loss(
    problem: FiniteProblem, eta: float | ArrayLike, *, T: int | None, max_edges: int = 3, N: int | None = None
) -> np.ndarray:
    r"""The mean test loss after T steps by diagrams without links, cut off at 0, 1, …, ``max_edges`` edges.

    .. math:: \langle L(\theta_T)\rangle \approx \sum_{D \text{ irreducible},\ d \le d_{max}} \sum_f
              \frac{(-1)^d}{B^d\,|\mathrm{Aut}_f D|}\, \mathrm{rvalue}_f(D),

    where f runs over embeddings and :math:`\mathrm{rvalue}_f` has :math:`K^{\Delta t - 1}\eta`, K = I − eta H, on an
    edge over :math:`\Delta t` steps, and joint cumulants at the start on the parts. The truncation at d edges agrees
    with the mean through :math:`\eta^d`.

    Parameters
    ----------
    problem : FiniteProblem
        The m smooth losses, their probabilities, and the start.
    eta : float or array_like (d, d)
        The step size, a number or a symmetric positive definite matrix M, with the largest eigenvalue of
        :math:`M^{1/2} H M^{1/2}` below 2.
    T : int or None
        Steps. None is the limit of each truncation, which exists for fresh examples if H is positive definite as well
        (Theorem 2). The limit of the truncations need not come closer with every edge: a diagram with e edges
        and P parts without the root scales as :math:`\eta^{e-P}` at long times.
    max_edges : int
        0 to 4.
    N : int, optional
        Gradient descent on N points, B = N. By default every step has one fresh example: B = 1, N = T.

    Returns
    -------
    ndarray (max_edges + 1,)
        The truncations.

    Raises
    ------
    ValueError
        If the step size is not in the stable range, :math:`0 < \eta < 2/\lambda_{max}(H)`; for ``T=None`` also if H at
        the start is not positive definite; if a number is out of range or a derivative not finite.
    TypeError
        If an argument is not of its type.

    Warns
    -----
    UserWarning
        If the losses have kinks.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Theorems 1 and 2. Corrected: irreducible diagrams have *no* links, embeddings
    need not be injective on the parts, and they are counted up to automorphism.

    Examples
    --------
    Pulls ±1 in a bowl of curvature 1, from 1: at eta = 1/2 each step halves the mean and adds 1/4 to the variance. Two
    edges are exact, and the limit is half of the variance 1/3:

    >>> from implicitreg import FiniteProblem
    >>> pulls = FiniteProblem([lambda t: t[0] ** 2 / 2 + t[0], lambda t: t[0] ** 2 / 2 - t[0]], [0.5, 0.5], [1.0])
    >>> bool(np.isclose(resummed_test_loss(pulls, 0.5, T=1, max_edges=2)[-1], (1 / 4 + 1 / 4) / 2))
    True
    >>> bool(np.isclose(resummed_test_loss(pulls, 0.5, T=None, max_edges=2)[-1], 1 / 6))
    True
    """
    flow, max_edges = _Flow.of(problem, eta, T, N, max_edges), max_edges
    by_edges = [
        sum((flow.loss(D) for D in enumerate_diagrams(k, irreducible=True)), start=0.0) for k in range(max_edges + 1)
    ]
    return np.cumsum(by_edges)


@_validate.in_range
def resummed_weights(
    problem: FiniteProblem, eta: float | ArrayLike, *, T: int | None, max_edges: int = 3, N: int | None = None
) -> np.ndarray:
    r"""The mean weights after T steps by diagrams without links, cut off at 0, 1, …, ``max_edges`` edges.

    As :func:`resummed_test_loss`, with a unit vector at the root: only diagrams whose root has one edge remain.
    Started at a minimum, the first of them is the pair of tied nodes that push a third, which is Corollary 1.

    Returns
    -------
    ndarray (max_edges + 1, d)

    Raises
    ------
    ValueError, TypeError
        As in :func:`resummed_test_loss`.

    Examples
    --------
    Without noise in a bowl of curvature 1 the weights shrink by 1 − eta a step:

    >>> from implicitreg import FiniteProblem
    >>> bowl = FiniteProblem([lambda t: t[0] ** 2 / 2], [1.0], [1.0])
    >>> resummed_weights(bowl, 0.5, T=3, max_edges=1)[:, 0]
    array([1.   , 0.125])
    """
    flow = _Flow.of(problem, eta, T, N, max_edges)
    rows = [problem.theta0.copy()]
    for k in range(1, max_edges + 1):
        chosen = [D for D in enumerate_diagrams(k, irreducible=True) if D.degree(k) == 1]
        rows.append(sum((flow.weights(D) for D in chosen), start=np.zeros(problem.d)))
    return np.cumsum(rows, axis=0)


@_validate.in_range
def contribution(
    diagram: Diagram, problem: FiniteProblem, eta: float | ArrayLike, *, T: int | None, N: int | None = None
) -> float:
    r"""What one diagram adds to the mean test loss with its edges resummed, sign and symmetry included.

    A diagram with links is refused: with K on the edges its links are counted already. A tied root gives the share
    in the training loss, for gradient descent on N points.

    Raises
    ------
    ValueError, TypeError
        As in :func:`resummed_test_loss`, and if the diagram has a link, or a tied root where ``N`` is not given.

    Examples
    --------
    The tied pair at curvature 1 is :math:`\tfrac12\eta^2 C(1 - K^{2T})/(1 - K^2)`:

    >>> from implicitreg import FiniteProblem
    >>> pulls = FiniteProblem([lambda t: t[0] ** 2 / 2 + t[0], lambda t: t[0] ** 2 / 2 - t[0]], [0.5, 0.5], [0.0])
    >>> tied = contribution(Diagram.parse("(01-2)(02-12)"), pulls, 0.5, T=2)
    >>> bool(np.isclose(tied, 0.5**2 / 2 * (1 - 0.5**4) / (1 - 0.5**2)))
    True
    """
    if not isinstance(diagram, Diagram):
        raise TypeError(f"diagram = {diagram!r}: expected a Diagram")
    if not diagram.irreducible:
        raise ValueError(f"diagram = {diagram}: expected no links, which are summed already; here {diagram.links}")
    if diagram.root_tied and N is None:
        raise ValueError(f"diagram = {diagram} has a tied root: expected N, for gradient descent on N points")
    return _Flow.of(problem, eta, T, N, diagram.edges).loss(diagram)


class _Flow:
    """One call: tensors in coordinates in which eta is 1 and H diagonal, with K = 1 − h for every direction."""

    def __init__(self, tensors: _values.Tensors, K: np.ndarray, T: int | None, N: int | None) -> None:
        self.tensors, self.K, self.T, self.N = tensors, K, T, N

    @classmethod
    def of(
        cls, problem: FiniteProblem, eta: float | ArrayLike, T: int | None, N: int | None, max_edges: int
    ) -> _Flow:  # fmt: skip
        max_edges = _validate.integer("max_edges", max_edges, low=0, high=MAX_EDGES)
        T = None if T is None else _validate.integer("T", T, low=0)
        N = None if N is None else _validate.integer("N", N, low=1)
        if N is not None and T is None:
            raise ValueError("T = None: expected a number of steps for gradient descent on N points")
        R = _root(eta, _values.smooth(problem).d)
        H = np.tensordot(problem.probabilities, problem.derivatives(2)[2], 1)
        h, V = np.linalg.eigh(R.T @ H @ R)
        _stable(eta, h, T)
        return cls(_values.Tensors.turned(problem, max_edges, R @ V), 1 - h, T, N)

    def loss(self, diagram: Diagram) -> float:
        weight = self._weight(diagram)
        return (-1) ** diagram.edges * _values.value(diagram, self.tensors, weights=weight) / diagram.automorphisms

    def weights(self, diagram: Diagram) -> np.ndarray:
        vector = _values.root_vector(diagram, self.tensors, self._weight(diagram))
        return (-1) ** diagram.edges * vector / diagram.automorphisms

    def _weight(self, diagram: Diagram) -> np.ndarray:
        """The sum over embeddings of the powers of K, for every choice of a direction on each edge."""
        fresh = self.N is None
        total = np.zeros((self.K.size,) * diagram.edges)
        for levels in _levels(diagram, fresh):
            total += self._sum_over_steps(diagram, levels)
        if fresh:  # a part has one step, and one example that goes with it
            return total
        P = len(diagram.ties) if diagram.root_tied else len(diagram.ties) - 1
        return total * float(self.N) ** (P - diagram.edges - diagram.root_tied)

    def _sum_over_steps(self, diagram: Diagram, levels: tuple[int, ...]) -> np.ndarray:
        """The sum over steps t_0 < t_1 < … of the levels of the product of K^(span − 1) over the edges."""
        d, k = diagram.edges, max(levels, default=-1) + 1
        end = [levels[parent] if parent < d else k for parent in diagram.parents]
        axes = [self.K.reshape([-1 if axis == v else 1 for axis in range(d)]) for v in range(d)]
        shape = (self.K.size,) * d

        def product(edges: list[int]) -> np.ndarray:
            return np.prod([np.broadcast_to(axes[v], shape) for v in edges], axis=0) if edges else np.ones(shape)

        stay = [product([v for v in range(d) if levels[v] < s <= end[v]]) for s in range(k + 1)]
        move = [product([v for v in range(d) if levels[v] < s < end[v]]) for s in range(k)]
        if self.T is None:
            return np.prod([move[s] / (1 - stay[s + 1]) for s in range(k)], axis=0) if k else np.ones(shape)
        step = np.zeros((*shape, k + 1, k + 1))
        for s in range(k + 1):
            step[..., s, s] = stay[s]
            if s < k:
                step[..., s, s + 1] = move[s]
        return np.linalg.matrix_power(step, self.T)[..., 0, k]


@lru_cache
def _levels(diagram: Diagram, fresh: bool) -> tuple[tuple[int, ...], ...]:
    """The orders of the nodes in time; with fresh examples the nodes of a part share their step."""
    d = diagram.edges
    group = diagram.parts[:d] if fresh else tuple(range(d))
    below = frozenset((group[v], group[parent]) for v, parent in enumerate(diagram.parents) if parent < d)
    if any(a == b for a, b in below):  # a node tied to its parent
        return ()
    orders = weak_orders(len(set(group)), below)
    return tuple(tuple(order[g] for g in group) for order in orders)


def _root(eta: float | ArrayLike, d: int) -> np.ndarray:
    """R with R Rᵀ the step size."""
    if _validate.array("eta", eta).ndim == 0:
        return np.sqrt(_validate.number("eta", eta, above=0)) * np.eye(d)
    return np.linalg.cholesky(_validate.spd("eta", eta, size=d))


def _stable(eta: float | ArrayLike, h: np.ndarray, T: int | None) -> None:
    said = float(eta) if np.ndim(eta) == 0 else np.asarray(eta).tolist()
    if h[-1] >= 2:
        wanted = f"less than 2 over the largest eigenvalue of H; times eta it is {h[-1]:.6g}"
        raise ValueError(f"eta = {said}: expected {wanted}")
    if T is None and h[0] <= 0:
        found = f"the least eigenvalue of eta H is {h[0]:.3g}"
        raise ValueError(f"T = None: expected a positive definite H at the start, but {found}")
