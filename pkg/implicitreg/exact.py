r"""The oracle: SGD averaged over every training set and every batch order, at finite step size, with no sampling.

The N training points are independent draws from the problem's distribution and the order is uniform, so the batches of
the first epoch are independent multinomial draws, and together they *are* the training set. A later epoch draws its
batches from those N points without replacement (multivariate hypergeometric weights), or repeats the first epoch. Only
the multiset of examples in a batch matters, so a path is a sequence of multisets, and paths share their beginnings: the
paths form a tree, which is walked depth first in blocks of nodes that are updated together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, combinations

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = ["MAX_N", "MAX_STEPS", "MAX_UPDATES", "ExactRun", "run"]

MAX_UPDATES = 250_000_000  # paths times steps (10 at least) times examples: up to about a minute on one core
MAX_STEPS = 60_000  # one takes a millisecond, however few the paths
MAX_N = 1000  # binomial coefficients of N stay below the largest float
BLOCK = 2**17  # numbers in the largest array of a block of nodes: 1 MB, to stay in the cache


@dataclass(frozen=True, eq=False)
class ExactRun:
    """Exact expectations after T steps: ``theta (d,)``, ``theta_cov (d, d)`` and two floats; see :func:`run`."""

    theta: np.ndarray
    theta_cov: np.ndarray
    test_loss: float
    train_loss: float
    __repr__ = brief


def run(
    problem: FiniteProblem, eta: float | ArrayLike, *, N: int, T: int, B: int = 1,
    momentum: float = 0.0, reshuffle: bool = True,
) -> ExactRun:  # fmt: skip
    r"""SGD after T steps, in expectation over all training sets of N independent examples and all batch orders.

    .. math:: v_{t+1} = \beta v_t + \frac1B \sum_{n \in B_t} \nabla\ell_n(\theta_t), \qquad
              \theta_{t+1} = \theta_t - \eta\, v_{t+1}, \qquad v_0 = 0,

    as ``torch.optim.SGD`` has it. Batch losses are means. In every epoch of N/B steps the batches partition the N
    points; the last epoch may be partial. ``B=N`` is gradient descent.

    Parameters
    ----------
    problem : FiniteProblem
        The m examples, their probabilities, and the start ``theta0 (d,)``.
    eta : float or array_like (d, d)
        The step size: a positive number or a symmetric positive definite matrix.
    N, T, B : int
        Training points (at most ``MAX_N`` = 1000), steps (at most ``MAX_STEPS`` = 60 000; 0 gives the start),
        batch size (a divisor of N).
    momentum : float
        The heavy-ball coefficient, 0 <= beta < 1.
    reshuffle : bool
        Whether each epoch draws a fresh uniformly random order; otherwise each repeats the first epoch's random order.

    Returns
    -------
    ExactRun
        ``theta (d,)`` the mean of theta_T; ``theta_cov (d, d)`` its covariance over training sets and orders;
        ``test_loss`` the mean of L(theta_T); ``train_loss`` the mean of the average loss at theta_T over the training
        set that led there.

    Raises
    ------
    ValueError
        If an argument is out of its range, an iterate overflows, or paths x max(T, 10) x m exceeds ``MAX_UPDATES``
        (250 million: up to about a minute on one core). The paths are counted before anything is computed.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    The oracle that the formulas of this package are tested against; it uses none of them. Sums are accurate to about
    1e-14 relative to the mean absolute value of what is summed.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eqs. (7)-(13): the expectations. Tenka, SGD at
    Small Learning Rates, section 1: the protocol of batches and epochs.

    Examples
    --------
    Curvature h = 1 or 3 with equal probability. One step of gradient descent on N = 2 points multiplies theta by
    1 - eta h, with mean 8/10 and variance 1/200 at eta = 1/10, so that the test loss is 64/100 + 1/200 = 129/200:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> result = run(problem, 0.1, N=2, T=1, B=2)
    >>> bool(np.isclose(result.test_loss, 129 / 200, rtol=1e-14))
    True
    """
    if not isinstance(problem, FiniteProblem):
        raise TypeError(f"problem = {problem!r}: expected a FiniteProblem")
    N, T, B = _schedule(N, T, B)
    metric = _step_matrix(eta, problem.d)
    momentum = _validate.number("momentum", momentum, low=0, below=1)
    reshuffle = _validate.flag("reshuffle", reshuffle) and problem.m > 1 and B < N  # otherwise every order is the same
    _refuse_long_runs(problem.m, N, B, T, reshuffle)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported by name
        return _Walk(problem, metric, N, T, B, momentum, reshuffle).average()


def _schedule(N: int, T: int, B: int) -> tuple[int, int, int]:
    N, T = _validate.integer("N", N, low=1, high=MAX_N), _validate.integer("T", T, low=0, high=MAX_STEPS)
    B = _validate.integer("B", B, low=1, high=N)
    if N % B:
        raise ValueError(f"B = {B}: expected a divisor of N = {N}")
    return N, T, B


def _step_matrix(eta: float | ArrayLike, d: int) -> np.ndarray:
    if _validate.array("eta", eta).ndim == 0:
        return _validate.number("eta", eta, above=0) * np.eye(d)
    return _validate.spd("eta", eta, size=d)


def _multisets(m: int, B: int) -> np.ndarray:
    """Every way to choose B of m examples with repetition, as counts (M, m): stars and bars."""
    M = math.comb(B + m - 1, m - 1)
    bars = np.fromiter(chain.from_iterable(combinations(range(B + m - 1), m - 1)), np.int32).reshape(M, m - 1)
    return np.diff(bars, axis=1, prepend=np.int32(-1), append=np.int32(B + m - 1)) - 1


def _pascal(N: int) -> np.ndarray:
    """Binomial coefficients [n, k] for n, k <= N, as floats: exact up to 2^53."""
    table = np.zeros((N + 1, N + 1))
    table[:, 0] = 1
    for n in range(1, N + 1):
        table[n, 1:] = table[n - 1, 1:] + table[n - 1, :-1]
    return table


def _multinomial(counts: np.ndarray, p: np.ndarray, pascal: np.ndarray) -> np.ndarray:
    """The probability of each row of counts among independent draws from p."""
    factors = pascal[counts.cumsum(1), counts] * p**counts
    return factors.cumprod(1)[:, -1]  # in this order no partial product exceeds 1


# --- how many paths -----------------------------------------------------------------------------------------


def _product(f: dict[int, int], g: dict[int, int]) -> dict[int, int]:
    """The product of two polynomials in m variables, exponents -> coefficient; exponents are digits in base N + 1."""
    result: dict[int, int] = defaultdict(int)
    for a, x in f.items():
        for b, y in g.items():
            result[a + b] += x * y
    return result


def _complete(m: int, n: int, N: int) -> dict[int, int]:
    """h_n, the sum of all monomials of degree n."""
    return {sum(k * (N + 1) ** j for j, k in enumerate(row)): 1 for row in _multisets(m, n).tolist()}


def _later_epochs(m: int, N: int, B: int, T: int) -> int:
    """Paths of T > N/B reshuffled steps: the sum over training sets c of f_K(c)^E f_s(c), for E epochs and s steps.

    f_j(c), the number of sequences of j batches that fit into c, is the coefficient of x^c in h_B^j h_{N-jB}.
    """
    E, s = divmod(T, N // B)
    batch = _complete(m, B, N)
    powers = list(accumulate([batch] * (N // B), _product, initial={0: 1}))
    partial = _product(powers[s], _complete(m, N - s * B, N))
    return sum(f ** min(E, 64) * partial[c] for c, f in powers[-1].items())  # 2^64 paths are already too many


def _at_least(m: int, N: int, B: int, T: int) -> int:
    """A quick lower bound of the same sum: the power mean over the training sets, where f_K <= f_s^ceil(K/s)."""
    K, sets = N // B, math.comb(N + m - 1, N)
    E, s = divmod(T, K)
    first = math.comb(B + m - 1, B) ** K
    mean = first // sets
    root = int(min(mean, 10**15) ** (1 / -(-K // s)) * (1 - 1e-12)) if s else 1
    return max(first, sets * mean ** min(E, 64) * root)


def _refuse_long_runs(m: int, N: int, B: int, T: int, reshuffle: bool) -> None:
    limit, bound = MAX_UPDATES // (max(T, 10) * m), ""
    if reshuffle and T > N // B:
        paths, bound = _at_least(m, N, B, T), "at least "
        if paths <= limit:
            paths, bound = _later_epochs(m, N, B, T), ""
    else:
        paths = math.comb(B + m - 1, B) ** min(T, N // B)
    if paths > limit:
        count = f"{bound}{paths:,}" if paths <= 10**15 else "more than 10^15"
        raise ValueError(
            f"N = {N}, T = {T}, B = {B} with {m} losses make {count} paths: expected at most {limit:,} "
            f"with so many steps and losses. Reduce N, T or the number of losses"
        )


# --- the walk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Nodes:
    """P nodes of the tree at step t: theta and velocity (P, d), probabilities (P,), counts of examples (P, m)."""

    t: int
    theta: np.ndarray
    velocity: np.ndarray
    weight: np.ndarray
    points: np.ndarray  # the training points seen so far
    left: np.ndarray  # those not yet used in this epoch (of use after the first epoch)
    order: np.ndarray  # the batches of the first epoch (P, t, m), if later epochs repeat them

    def split(self, size: int) -> Iterator[_Nodes]:
        arrays = (self.theta, self.velocity, self.weight, self.points, self.left, self.order)
        for low in range(0, self.weight.size, size):
            yield _Nodes(self.t, *(a[low : low + size] for a in arrays))


@dataclass(frozen=True, eq=False)
class _Moments:
    """Probability, mean and scatter of theta, and weighted sums of the two losses, over some of the leaves."""

    weight: float
    theta: np.ndarray
    scatter: np.ndarray
    losses: np.ndarray


class _Walk:
    """One call of :func:`run`: its arguments, and the batches with their probabilities."""

    def __init__(
        self, problem: FiniteProblem, metric: np.ndarray, N: int, T: int, B: int, beta: float, reshuffle: bool
    ) -> None:
        self.problem, self.metric, self.beta, self.reshuffle = problem, metric, beta, reshuffle
        self.N, self.T, self.B, self.K = N, T, B, N // B
        self.pascal = _pascal(N)
        self.batches = _multisets(problem.m, B).astype(np.int16)
        rows = np.array_split(self.batches, 1 + len(self.batches) // BLOCK)
        self.chances = np.concatenate([_multinomial(some, problem.probabilities, self.pascal) for some in rows])
        self.block = max(1, BLOCK // (problem.m * problem.d))

    def average(self) -> ExactRun:
        parts = [self._moments(leaves) for leaves in self._leaves() if leaves.weight.any()]
        total = math.fsum(part.weight for part in parts)
        share = np.array([part.weight for part in parts]) / total
        origin = parts[0].theta  # a fixed origin near the mean: what is summed is small
        offsets = np.array([part.theta - origin for part in parts])
        theta = origin + _sum(share[:, None] * offsets)
        offsets -= theta - origin
        between = share[:, None, None] * offsets[:, :, None] * offsets[:, None, :]
        within = _sum(np.array([part.scatter for part in parts])) / total
        test, train = _sum(np.array([part.losses for part in parts])) / total
        return ExactRun(theta, within + _sum(between), float(test), float(train))

    def _moments(self, leaves: _Nodes) -> _Moments:
        w = leaves.weight / leaves.weight.sum()
        offsets = leaves.theta - leaves.theta[0]
        mean = w @ offsets
        offsets -= mean
        values = self._finite(self.problem.values(leaves.theta), self.T)
        test = values @ self.problem.probabilities
        # points that no batch has used yet are fresh draws: their mean loss is the test loss
        unseen = self.N - leaves.points[0].sum()
        train = ((values * leaves.points).sum(1) + unseen * test) / self.N
        losses = leaves.weight @ np.column_stack([test, train])
        scatter = leaves.weight * offsets.T @ offsets
        return _Moments(float(leaves.weight.sum()), leaves.theta[0] + mean, scatter, losses)

    def _leaves(self) -> Iterator[_Nodes]:
        m, theta = self.problem.m, self.problem.theta0[None]
        none = np.zeros((1, m), np.int16)
        root = _Nodes(0, theta, np.zeros_like(theta), np.ones(1), none, none, none[:, None][:, :0])
        if self.T == 0:
            yield root
            return
        for low in range(0, len(self.chances), self.block):
            batch, chance = self.batches[low : low + self.block], self.chances[low : low + self.block]
            yield from self._below(self._step(root, np.zeros(len(batch), int), batch, chance))

    def _below(self, nodes: _Nodes) -> Iterator[_Nodes]:
        """The leaves below some nodes, depth first."""
        stack = [nodes]
        while stack:
            nodes = stack.pop()
            size = max(1, self.block // (1 if self._forced(nodes.t) else len(self.batches)))
            if nodes.t == self.T:
                yield nodes
            elif nodes.weight.size > size:
                stack.extend(nodes.split(size))
            else:
                stack.append(self._step(nodes, *self._draws(nodes)))

    def _forced(self, t: int) -> bool:
        """Whether the batch of step t follows from the earlier ones: it repeats one, or is all that is left."""
        return t >= self.K and (not self.reshuffle or t % self.K == self.K - 1)

    def _draws(self, nodes: _Nodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next batches: for each child its parent, its batch (C, m), and the batch's probability."""
        everyone, t = np.arange(nodes.weight.size), nodes.t
        if self._forced(t):
            batch = nodes.left if self.reshuffle else nodes.order[:, t % self.K]
            return everyone, batch, np.ones(everyone.size)
        if t < self.K:
            parents = np.repeat(everyone, len(self.batches))
            return parents, np.tile(self.batches, (everyone.size, 1)), np.tile(self.chances, everyone.size)
        ways = self.pascal[nodes.left[:, None], self.batches].prod(2)
        parents, which = np.nonzero(ways)
        chance = ways[parents, which] / self.pascal[nodes.left[0].sum(), self.B]
        return parents, self.batches[which], chance

    def _step(self, nodes: _Nodes, parents: np.ndarray, batch: np.ndarray, chance: np.ndarray) -> _Nodes:
        t = nodes.t + 1
        gradient = np.einsum("cm,cmd->cd", batch, self.problem.gradients(nodes.theta)[parents]) / self.B
        velocity = self.beta * nodes.velocity[parents] + gradient
        theta = self._finite(nodes.theta[parents] - velocity @ self.metric, t)
        points = nodes.points[parents] + (batch if t <= self.K else 0)
        left = points if t % self.K == 0 else nodes.left[parents] - batch
        order = nodes.order[parents]
        if t <= self.K and not self.reshuffle:
            order = np.concatenate([order, batch[:, None]], axis=1)
        return _Nodes(t, theta, velocity, nodes.weight[parents] * chance, points, left, order)

    def _finite(self, values: np.ndarray, t: int) -> np.ndarray:
        if np.isfinite(values).all():
            return values
        eta = self.metric.squeeze().tolist()
        raise ValueError(f"eta = {eta}: some training set's iterates overflow by step {t}; expected a smaller step")


def _sum(terms: np.ndarray) -> np.ndarray:
    """The sum over the first axis, without rounding on the way."""
    return np.array([math.fsum(column) for column in terms.reshape(len(terms), -1).T]).reshape(terms.shape[1:])
