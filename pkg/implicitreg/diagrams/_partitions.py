"""Set partitions and weak orders: the small finite sets that diagrams are counted with."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache


def growth(labels: Sequence[Hashable]) -> tuple[int, ...]:
    """Labels renamed 0, 1, … in the order of their first appearance: a restricted growth string.

    >>> growth("baab")
    (0, 1, 1, 0)
    """
    names: dict[Hashable, int] = {}
    return tuple(names.setdefault(label, len(names)) for label in labels)


@lru_cache
def set_partitions(n: int) -> tuple[tuple[int, ...], ...]:
    """All partitions of n things as restricted growth strings.

    >>> set_partitions(2)
    ((0, 0), (0, 1))
    """
    strings: list[tuple[int, ...]] = [()]
    for _ in range(n):
        strings = [(*s, k) for s in strings for k in range(max(s, default=-1) + 2)]
    return tuple(strings)


def blocks(string: Sequence[int]) -> list[list[int]]:
    """The blocks of a partition, as lists of positions.

    >>> blocks((0, 1, 0))
    [[0, 2], [1]]
    """
    found: list[list[int]] = [[] for _ in range(max(string, default=-1) + 1)]
    for position, block in enumerate(string):
        found[block].append(position)
    return found


def weak_orders(n: int, below: frozenset[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """Surjections of n things onto levels 0 … k−1 with level[a] < level[b] for every pair (a, b) in `below`.

    >>> sorted(weak_orders(2, frozenset()))
    [(0, 0), (0, 1), (1, 0)]
    >>> list(weak_orders(2, frozenset({(0, 1)})))
    [(0, 1)]
    """

    def grow(level: int, placed: dict[int, int]) -> Iterator[tuple[int, ...]]:
        if len(placed) == n:
            yield tuple(placed[v] for v in range(n))
            return
        free = [v for v in range(n) if v not in placed and all(a in placed for a, b in below if b == v)]
        for mask in range(1, 1 << len(free)):
            chosen = [v for i, v in enumerate(free) if mask >> i & 1]
            yield from grow(level + 1, {**placed, **dict.fromkeys(chosen, level)})

    yield from grow(0, {})


def compositions(n: int) -> Iterator[tuple[int, ...]]:
    """Ways to cut n things in a row into consecutive groups, as group sizes.

    >>> list(compositions(3))
    [(1, 1, 1), (1, 2), (2, 1), (3,)]
    """
    if n == 0:
        yield ()
    for first in range(1, n + 1):
        for rest in compositions(n - first):
            yield (first, *rest)
