"""SGD with rational numbers in which the step size is a letter: the second method for every series of part III.

A loss is a polynomial, a dictionary from exponents to rational coefficients, and a weight is a power series in eta, a
list of rational numbers cut off at an order. All training sets and all batch orders are run one after the other. No
diagram, no derivative tensor, no floating point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction as Fr
from itertools import permutations, product
from math import factorial, prod

import torch
from implicitreg import FiniteProblem

Poly = dict[tuple[int, ...], Fr]
Series = list[Fr]


@dataclass(frozen=True)
class Law:
    """Polynomial losses, their probabilities, and the start."""

    losses: Sequence[Poly]
    p: Sequence[Fr]
    theta0: Sequence[Fr]

    def problem(self) -> FiniteProblem:
        """The same in floating point."""

        def loss(poly: Poly) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda t: sum(float(c) * prod(t[i] ** e for i, e in enumerate(powers)) for powers, c in poly.items())

        losses = [loss(poly) for poly in self.losses]
        return FiniteProblem(losses, [float(p) for p in self.p], [float(x) for x in self.theta0])


def times(a: Series, b: Series) -> Series:
    n = len(a)
    return [sum((a[i] * b[k - i] for i in range(k + 1)), Fr(0)) for k in range(n)]


def evaluate(poly: Poly, theta: Sequence[Series]) -> Series:
    order = len(theta[0])
    total = [Fr(0)] * order
    for powers, c in poly.items():
        term = [c] + [Fr(0)] * (order - 1)
        for x, e in zip(theta, powers, strict=True):
            for _ in range(e):
                term = times(term, x)
        total = [a + b for a, b in zip(total, term, strict=True)]
    return total


def derivative(poly: Poly, i: int) -> Poly:
    found: Poly = {}
    for powers, c in poly.items():
        if powers[i]:
            lower = (*powers[:i], powers[i] - 1, *powers[i + 1 :])
            found[lower] = found.get(lower, Fr(0)) + c * powers[i]
    return found


def batches(N: int, B: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The orders of one epoch: sequences of disjoint batches, each sequence once."""
    seen = set()
    for order in permutations(range(N)):
        cut = tuple(tuple(sorted(order[k : k + B])) for k in range(0, N, B))
        if cut not in seen:
            seen.add(cut)
            yield cut


def series(
    law: Law, N: int, T: int, B: int, order: int, *, metric: Sequence[Sequence[Fr]] | None = None
) -> tuple[Series, Series, list[Series]]:
    """Test loss, training loss and weights after T steps, in the mean."""
    d, n = len(law.theta0), order + 1
    metric = metric or [[Fr(int(i == j)) for j in range(d)] for i in range(d)]
    gradients = [[derivative(poly, i) for i in range(d)] for poly in law.losses]
    start = [[x, *[Fr(0)] * order] for x in law.theta0]
    epochs = -(-T * B // N)
    orders = list(batches(N, B))
    schedules = [sum(some, ()) for some in product(orders, repeat=epochs)]
    test, train, mean = [Fr(0)] * n, [Fr(0)] * n, [[Fr(0)] * n for _ in range(d)]
    for sample in product(range(len(law.losses)), repeat=N):
        chance = prod((law.p[i] for i in sample), start=Fr(1)) / len(schedules)
        for schedule in schedules:
            theta = start
            for batch in schedule[:T]:
                g = [[Fr(0)] * n for _ in range(d)]
                for point in batch:
                    for i, slope in enumerate(gradients[sample[point]]):
                        g[i] = [a + b / B for a, b in zip(g[i], evaluate(slope, theta), strict=True)]
                step = [[sum(metric[i][j] * g[j][k] for j in range(d)) for k in range(n)] for i in range(d)]
                later = [[Fr(0), *s[:-1]] for s in step]  # a factor eta
                theta = [[a - b for a, b in zip(x, s, strict=True)] for x, s in zip(theta, later, strict=True)]
            values = [evaluate(poly, theta) for poly in law.losses]
            for k in range(n):
                test[k] += chance * sum(p * v[k] for p, v in zip(law.p, values, strict=True))
                train[k] += chance * sum(values[i][k] for i in sample) / N
                for i in range(d):
                    mean[i][k] += chance * theta[i][k]
    return test, train, mean


def _poly(text: dict[str, str]) -> Poly:
    return {tuple(int(c) for c in powers): Fr(c) for powers, c in text.items()}


LAW_A = Law(
    [_poly({"1": "1", "2": "1/2", "3": "1/6"}), _poly({"1": "-2", "2": "1", "4": "1/8"}),
     _poly({"1": "5/2", "2": "-1/4", "3": "1/3", "4": "1/24"})],
    [Fr(1, 3)] * 3, [Fr(0)],
)  # fmt: skip
LAW_B = Law(
    [_poly({"10": "1", "01": "-1", "20": "1/2", "11": "1/3", "02": "1/4", "21": "1/2", "03": "-1/6", "22": "1/5"}),
     _poly({"10": "-1", "01": "2", "20": "1", "11": "-1/2", "02": "3/2", "30": "1/3", "12": "-1/4", "40": "1/24",
            "13": "1/6"}),
     _poly({"10": "3/2", "01": "1/2", "20": "-1/2", "11": "1", "02": "1/2", "12": "1", "21": "-1/3", "04": "1/12"})],
    [Fr(1, 2), Fr(1, 3), Fr(1, 6)], [Fr(1, 2), Fr(-1, 3)],
)  # fmt: skip


def value(law: Law, diagram, *, metric: None = None) -> Fr:
    """The value of a diagram: its joint cumulants over all indices, written out as in the definition."""
    from implicitreg.diagrams._partitions import blocks, set_partitions

    d = len(law.theta0)
    total = Fr(0)
    for choice in product(range(d), repeat=diagram.edges):
        node = []
        for v in range(diagram.edges + 1):
            axes = [choice[v]] if v < diagram.edges else []
            axes += [choice[c] for c, parent in enumerate(diagram.parents) if parent == v]
            at = []
            for poly in law.losses:
                for i in axes:
                    poly = derivative(poly, i)
                at.append(evaluate(poly, [[x] for x in law.theta0])[0])
            node.append(at)
        term = Fr(1)
        for part in diagram.ties:
            cumulant = Fr(0)
            for string in set_partitions(len(part)):
                parts = blocks(string)
                moments = [
                    sum(p * prod((node[part[i]][x] for i in block), start=Fr(1)) for x, p in enumerate(law.p))
                    for block in parts
                ]
                cumulant += (-1) ** (len(parts) - 1) * factorial(len(parts) - 1) * prod(moments, start=Fr(1))
            term *= cumulant
        total += term
    return total
