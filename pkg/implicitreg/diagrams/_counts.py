"""How many embeddings a diagram has, in the mean over batch orders."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import comb, perm, prod

from implicitreg import _validate
from implicitreg.diagrams._partitions import blocks, compositions, set_partitions, weak_orders


def schedule(N: int, T: int, B: int) -> tuple[int, int, int]:
    """N, T, B as integers, with B a divisor of N."""
    N, T = _validate.integer("N", N, low=1), _validate.integer("T", T, low=0)
    B = _validate.integer("B", B, low=1, high=N)
    if N % B:
        raise ValueError(f"B = {B}: expected a divisor of N = {N}")
    return N, T, B


@lru_cache(maxsize=4096)
def embeddings(parents: tuple[int, ...], parts: tuple[int, ...], N: int, T: int, B: int, strict: bool) -> Fraction:
    """The mean number of embeddings: a sum over the orders of the nodes in time and over coincidences of examples.

    For one order (levels, of which several nodes may share one) and one choice of which parts hold the same point, the
    levels are spread over the epochs; the steps of an epoch can then be chosen in a number of ways, and the chance
    that the points lie in the batches of those steps depends on the epoch's levels alone.
    """
    d = len(parents)
    below = frozenset((v, parent) for v, parent in enumerate(parents) if parent < d)
    tied_root = parts[-1] in parts[:-1]
    total = Fraction(0)
    for points in _points(parts, tied_root, strict):
        ways = perm(N, len(set(points))) * Fraction(1, N if tied_root else 1)
        if not ways:  # fewer points than that
            continue
        for levels in weak_orders(d, below):
            total += ways * _spread(levels, points[:d], N, T, B)
    return total


def _points(parts: tuple[int, ...], tied_root: bool, strict: bool) -> list[tuple[int, ...]]:
    """For every coincidence of the parts' points: the point of each node (of the root only if it is tied)."""
    held = parts if tied_root else parts[:-1]
    P = len(set(held))
    return [tuple(same[part] for part in held) for same in set_partitions(P) if not strict or len(set(same)) == P]


def _spread(levels: tuple[int, ...], points: tuple[int, ...], N: int, T: int, B: int) -> Fraction:
    """The sum over the steps of the levels of the chance that every node's point is in the batch of its step."""
    k, K = max(levels, default=-1) + 1, N // B
    needed = [{points[v] for v in range(len(levels)) if levels[v] == level} for level in range(k)]
    total = Fraction(0)
    for sizes in compositions(k):
        ways = _ways(sizes, K, *divmod(T, K))
        if not ways:
            continue
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        epochs = [needed[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        total += ways * prod((_chance(epoch, N, B) for epoch in epochs), start=Fraction(1))
    return total


def _ways(sizes: tuple[int, ...], K: int, E: int, left: int) -> int:
    """Ways to choose epochs, and so many steps in each: of E epochs with K steps and a last one with only some."""
    whole = comb(E, len(sizes)) * prod(comb(K, size) for size in sizes)
    if not sizes or not left:
        return whole
    return whole + comb(E, len(sizes) - 1) * prod(comb(K, size) for size in sizes[:-1]) * comb(left, sizes[-1])


def _chance(epoch: list[set[int]], N: int, B: int) -> Fraction:
    """The chance that in one epoch given points fall into given different batches."""
    if sum(len(points) for points in epoch) > len(set().union(*epoch)):
        return Fraction(0)  # a point would be in two batches
    return Fraction(prod(perm(B, len(points)) for points in epoch), perm(N, len(set().union(*epoch))))


def cumulant_terms(nodes: list[int]) -> list[tuple[int, list[list[int]]]]:
    """A joint cumulant of centred variables in their moments: signs with factors, and blocks of two or more.

    >>> [(c, parts) for c, parts in cumulant_terms([0, 1, 2, 3]) if len(parts) == 2]
    [(-1, [[0, 1], [2, 3]]), (-1, [[0, 2], [1, 3]]), (-1, [[0, 3], [1, 2]])]
    """
    found = []
    for string in set_partitions(len(nodes)):
        parts = [[nodes[i] for i in block] for block in blocks(string)]
        if all(len(part) > 1 for part in parts):
            n = len(parts) - 1
            found.append(((-1) ** n * prod(range(1, n + 1)), parts))
    return found
