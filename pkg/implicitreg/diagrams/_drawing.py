"""Pictures of diagrams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from implicitreg.plotting import PALETTE
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

if TYPE_CHECKING:
    from implicitreg.diagrams.diagram import Diagram
    from matplotlib.axes import Axes

INK, TIE = "#222222", PALETTE[1]


def places(diagram: Diagram) -> list[tuple[float, float]]:
    """Where nodes stand: the root at the right, children to the left of their parents, leaves on rows of their own."""
    d = diagram.edges
    depth, height = [0] * (d + 1), [0.0] * (d + 1)
    rows = iter(range(d + 1))

    def place(v: int) -> float:
        children = [w for w in range(d) if diagram.parents[w] == v]
        for w in children:
            depth[w] = depth[v] + 1
        found = [place(w) for w in children]
        height[v] = sum(found) / len(found) if found else float(next(rows))
        return height[v]

    place(d)
    return [(-float(depth[v]), -height[v]) for v in range(d + 1)]


def figure(diagram: Diagram) -> Figure:
    """A figure of its own, an inch or so high, which pyplot does not keep."""
    where = places(diagram)
    width, rows = 1 + max(-x for x, _ in where), 1 + max(-y for _, y in where)
    drawn = Figure(figsize=(0.7 * width + 0.2, 0.55 * rows + 0.35))
    draw(diagram, drawn.add_axes((0, 0, 1, 1)))
    return drawn


def draw(diagram: Diagram, ax: Axes | None = None) -> Axes:
    ax = plt.subplots(figsize=(2.4, 1.6))[1] if ax is None else ax
    where = places(diagram)
    for v, parent in enumerate(diagram.parents):
        _arrow(ax, where[v], where[parent])
    for a, b in _ties(diagram):
        _tie(ax, where[a], where[b])
    dots, (x, y) = where[:-1], where[-1]
    ax.scatter(*zip(*dots, strict=True), s=70, color=INK, zorder=3) if dots else None
    ax.scatter([x], [y], s=80, color=INK, marker="s", zorder=3)
    _frame(ax, where, [abs(where[a][0] - where[b][0]) for a, b in _ties(diagram)])
    return ax


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=11, shrinkA=4, shrinkB=6, color=INK, lw=1.4, zorder=2
    ))  # fmt: skip


def _tie(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A dotted arc: bent, so that it does not run along an edge."""
    ax.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-", connectionstyle="arc3,rad=0.45", linestyle=(0, (1, 1.2)), color=TIE, lw=2.6,
        shrinkA=4, shrinkB=4, zorder=1,
    ))  # fmt: skip


def _ties(diagram: Diagram) -> Iterator[tuple[int, int]]:
    for part in diagram.ties:
        yield from pairwise(part)


def _frame(ax: Axes, where: list[tuple[float, float]], spans: list[float]) -> None:
    xs, ys = zip(*where, strict=True)
    below = 0.55 + 0.25 * max(spans, default=0.0)  # where a long arc hangs
    ax.set(xlim=(min(xs) - 0.45, max(xs) + 0.45), ylim=(min(ys) - below, max(ys) + 0.55), aspect="equal")
    ax.axis("off")
