r"""Diagrams: rooted trees whose nodes are tied where they hold the same example.

A diagram is a rooted tree with d edges and a partition of its nodes. Every node stands for the derivative of an
example's loss, of the order of the node's degree; the root stands for the test loss, at the time T; an edge is a
push that a node gives to its parent, one step size and one minus sign each. Nodes of one part of the partition hold the
same example. With all of its factors, the diagram D adds

.. math:: (-\eta)^{d}\, c_D\, \mathrm{value}(D), \qquad
          c_D = \frac{\#\{\text{embeddings}\}}{B^{d}\, |\mathrm{Aut}\, D|},

to the mean test loss after T steps; :meth:`Diagram.coefficient` is :math:`c_D`, :meth:`Diagram.value` the value.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import permutations
from typing import TYPE_CHECKING

from implicitreg import _validate
from implicitreg.diagrams import _counts
from implicitreg.diagrams._partitions import blocks, growth, set_partitions

if TYPE_CHECKING:
    from implicitreg.problems import FiniteProblem
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

__all__ = ["MAX_EDGES", "Diagram", "enumerate_diagrams"]

MAX_EDGES = 5


@dataclass(frozen=True)
class Diagram:
    """A rooted tree with a partition of its nodes, in canonical form: isomorphic diagrams are equal.

    Nodes are numbered 0 … d, children before their parents, and the root is node d, the last. A root that is
    alone in its part belongs to the test loss; a tied root occurs in the training loss and in the gap only.

    Parameters
    ----------
    parents : sequence of d ints, or str
        The parent of each node but the root; or the whole diagram as a text, see :meth:`parse`.
    parts : sequence of d or d + 1 labels
        Equal labels mark nodes that hold the same example, tied nodes; without a label for the root it is untied.

    Raises
    ------
    ValueError
        If the parents make no tree with the root d, the labels are too few or too many, or there are more than
        ``MAX_EDGES`` = 5 edges.

    References
    ----------
    Tenka, SGD at Small Learning Rates, section 2: diagrams, links, and the text notation, in which the first bracket
    lists the parts and the second the edges. There a diagram is called irreducible when each of its nodes of degree
    two is alone in its part; what the theorem needs is that none of them is, see :attr:`irreducible`.

    Examples
    --------
    Two nodes hold one example, and both push the root. Its value is the covariance C contracted with the Hessian,
    and it occurs T/2 times with fresh examples and batches of one:

    >>> diagram = Diagram("(01-2)(02-12)")
    >>> diagram == Diagram(parents=(2, 2), parts=(0, 0))
    True
    >>> diagram.automorphisms, diagram.count(N=10, T=10), diagram.coefficient(N=10, T=10)
    (2, Fraction(10, 1), Fraction(5, 1))
    """

    parents: tuple[int, ...]
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = _parsed(self.parents) if isinstance(self.parents, str) else (self.parents, self.parts)
        parents, parts = _tree(given[0]), tuple(_validate.items("parts", given[1], least=0))
        for k, label in enumerate(parts):
            _validate.integer(f"parts[{k}]", label)
        if len(parts) == len(parents):
            parts = (*((0, label) for label in parts), (1, None))  # an untied root
        if len(parts) != len(parents) + 1:
            raise ValueError(f"parts = {self.parts!r}: expected {len(parents)} labels, or one more for the root")
        object.__setattr__(self, "parents", _canonical_tree(parents))
        object.__setattr__(self, "parts", min(_relabelled(parts, order) for order in _orders(parents)))

    @classmethod
    def parse(cls, text: str) -> Diagram:
        """The diagram of a text such as ``"(01-2)(02-12)"``: parts, then edges, and the last node is the root.

        >>> Diagram.parse("(0-12-3)(02-13-23)")  # another numbering of the same diagram
        Diagram('(0-12-3)(01-13-23)')

        Raises
        ------
        ValueError
            If the text has another form, or the edges make no tree with its root at the last node.
        """
        if not isinstance(text, str):
            raise ValueError(f"text = {text!r}: expected parts and edges, such as '(01-2)(02-12)'")
        return cls(text)

    def __str__(self) -> str:
        def joined(groups: list[list[int]]) -> str:
            return "-".join("".join(map(str, group)) for group in groups)

        return f"({joined(blocks(self.parts))})({joined([list(edge) for edge in enumerate(self.parents)])})"

    def __repr__(self) -> str:
        return f"Diagram('{self}')"

    # --- the tree -----------------------------------------------------------------------------------------

    @property
    def edges(self) -> int:
        """The number d of edges; the root is node d."""
        return len(self.parents)

    @cached_property
    def ties(self) -> list[list[int]]:
        """The parts of the partition, as lists of nodes."""
        return blocks(self.parts)

    @property
    def root_tied(self) -> bool:
        """Whether the root shares its part with another node."""
        return self.parts[-1] in self.parts[:-1]

    def degree(self, node: int) -> int:
        """The number of edges at a node, and the order of the derivative that stands there."""
        node = _validate.integer("node", node, low=0, high=self.edges)
        return self.parents.count(node) + (node < self.edges)

    @cached_property
    def automorphisms(self) -> int:
        """The number of permutations of the nodes that keep the root, the tree and the partition."""
        return sum(
            all(order[p] == self.parents[order[v]] for v, p in enumerate(self.parents))
            and growth([self.parts[order[v]] for v in range(self.edges + 1)]) == self.parts
            for order in _fixing_the_root(self.edges)
        )

    @cached_property
    def links(self) -> tuple[int, ...]:
        """The links: nodes other than the root, alone in their part, with one child.

        A link passes a push on, weakened by the mean Hessian. The root is never one.
        """
        return tuple(
            v for v in range(self.edges) if self.parents.count(v) == 1 and self.parts.count(self.parts[v]) == 1
        )

    @property
    def irreducible(self) -> bool:
        """Whether there is no link. (The source prints the opposite, and does not exempt the root.)"""
        return not self.links

    @cached_property
    def path_condition(self) -> bool:
        """Whether no node is tied to one of its descendants; otherwise fresh examples leave no embedding."""
        return all(self.parts[v] != self.parts[w] for v in range(self.edges) for w in self._above(v))

    def _above(self, node: int) -> Iterator[int]:
        while node < self.edges:
            node = self.parents[node]
            yield node

    # --- counts and values --------------------------------------------------------------------------------

    def count(self, N: int, T: int, B: int = 1, *, strict: bool = False) -> Fraction:
        r"""The number of embeddings, in the mean over batch orders.

        An embedding gives every node but the root an example and a step, (n, t) with n in the batch of t, such that a
        child comes before its parent and tied nodes have the same n. Nodes of different parts may share their example
        or even the whole pair. A tied root has an example too, one of the N with weight 1/N each, and no step.

        Parameters
        ----------
        N, T, B : int
            Training points, steps, batch size. The batches of an epoch of N/B steps partition the points in a fresh
            uniformly random order; the last epoch may be partial. ``B=N`` is gradient descent; ``N=T``, ``B=1``
            is a fresh example at every step.
        strict : bool
            Count only embeddings in which different parts have different examples: these go with raw moments, see
            :meth:`value`.

        Returns
        -------
        Fraction
            Exact: binomial coefficients, one product for every order of the nodes in time and every way to spread it
            over the epochs.

        Raises
        ------
        ValueError, TypeError
            If B does not divide N, or a number is not a positive integer (T may be 0).

        Examples
        --------
        Two tied nodes that push the root share their step, if examples are fresh, and may have any two steps in
        gradient descent:

        >>> tied = Diagram.parse("(01-2)(02-12)")
        >>> tied.count(N=7, T=7), tied.count(N=7, T=7, B=7)
        (Fraction(7, 1), Fraction(343, 1))
        """
        N, T, B = _counts.schedule(N, T, B)
        strict = _validate.flag("strict", strict)
        return _counts.embeddings(self.parents, self.parts, N, T, B, strict)

    def coefficient(self, N: int, T: int, B: int = 1, *, strict: bool = False) -> Fraction:
        r"""The number :math:`c_D = \#\{\text{embeddings}\} / (B^d\,|\mathrm{Aut} D|)`, see the top of this module.

        Parameters and errors are those of :meth:`count`. The sign :math:`(-1)^d` is not included.

        Examples
        --------
        A push through a step, T(T − 1)/2 times in T steps whatever the batches:

        >>> Diagram.parse("(0-1-2)(01-12)").coefficient(N=6, T=9, B=2)
        Fraction(36, 1)
        """
        return self.count(N, T, B, strict=strict) / (B**self.edges * self.automorphisms)

    @_validate.in_range
    def value(
        self, problem: FiniteProblem, *, metric: ArrayLike | None = None, moments: bool = False
    ) -> float:  # fmt: skip
        r"""The value: a derivative for each node, averaged part by part and contracted along the edges.

        Node v stands for :math:`\nabla^{\deg v}\ell_x` at ``problem.theta0``. Every part contributes the joint cumulant
        of its nodes' tensors over the example x: the mean of one, the covariance of two, the third central moment
        of three. The step size is left out.

        Parameters
        ----------
        problem : FiniteProblem
            Gives the losses, their probabilities and the start.
        metric : array_like (d, d), optional
            A symmetric positive definite matrix M on every edge, for steps :math:`\eta M`; the identity by default.
        moments : bool
            Raw moments in place of cumulants. They go with ``strict`` counts. The two other pairs, moments with all
            embeddings or cumulants with strict ones, are wrong from the second order in the step size on.

        Raises
        ------
        ValueError
            If a derivative is not finite or the metric is not positive definite.
        TypeError
            If ``problem`` is no FiniteProblem.

        Warns
        -----
        UserWarning
            If the losses have kinks, such as ``relu``.

        Examples
        --------
        Pulls ±1 in a bowl of curvature 3: C = 1 and H = 3.

        >>> from implicitreg import FiniteProblem
        >>> losses = [lambda t: 1.5 * t[0] ** 2 + t[0], lambda t: 1.5 * t[0] ** 2 - t[0]]
        >>> pulls = FiniteProblem(losses, [0.5, 0.5], [0.0])
        >>> Diagram.parse("(01-2)(02-12)").value(pulls)
        3.0
        """
        from implicitreg.diagrams import _values

        moments = _validate.flag("moments", moments)
        return _values.value(self, _values.Tensors.of(problem, self.edges, metric), moments=moments)

    # --- pictures -----------------------------------------------------------------------------------------

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw the diagram: time runs to the right, a square is the root, dotted lines join tied nodes.

        >>> ax = Diagram.parse("(01-2)(02-12)").draw()
        >>> len(ax.collections) > 0
        True
        """
        from implicitreg.diagrams import _drawing
        from matplotlib.axes import Axes

        return _drawing.draw(self, None if ax is None else _validate.instance("ax", ax, Axes))

    def svg(self) -> str:
        """The drawing as the text of an SVG file.

        >>> "<svg" in Diagram.parse("(0-1)(01)").svg()
        True
        """
        return self._rendered("svg").decode("utf8")

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_png_(self) -> bytes:
        return self._rendered("png")

    def _rendered(self, kind: str) -> bytes:
        from implicitreg.diagrams import _drawing

        file = io.BytesIO()
        _drawing.figure(self).savefig(file, format=kind)
        return file.getvalue()


def enumerate_diagrams(
    edges: int, irreducible: bool = False, path_condition: bool = False, *, root_tied: bool = False
) -> list[Diagram]:
    """All diagrams with a number of edges, each once.

    Parameters
    ----------
    edges : int
        From 0 to ``MAX_EDGES`` = 5.
    irreducible, path_condition : bool
        Only those without links; only those in which no node is tied to one below it. Fresh examples need no others
        than the second, and resummation no others than the first.
    root_tied : bool
        Those whose root shares its part with a node, which make up the difference of test and training loss, in
        place of those of the test loss.

    Raises
    ------
    ValueError, TypeError
        If ``edges`` is out of range or no integer.

    Examples
    --------
    >>> [len(enumerate_diagrams(d)) for d in range(5)]
    [1, 1, 4, 17, 101]
    >>> [len(enumerate_diagrams(d, path_condition=True)) for d in range(1, 5)]
    [1, 3, 9, 37]
    >>> [len(enumerate_diagrams(d, irreducible=True)) for d in range(1, 5)]
    [1, 3, 12, 65]
    """
    edges, root_tied = _validate.integer("edges", edges, low=0, high=MAX_EDGES), _validate.flag("root_tied", root_tied)
    irreducible = _validate.flag("irreducible", irreducible)
    path_condition = _validate.flag("path_condition", path_condition)
    return [
        diagram
        for diagram in _all(edges, root_tied)
        if (diagram.irreducible or not irreducible) and (diagram.path_condition or not path_condition)
    ]


@lru_cache
def _all(edges: int, root_tied: bool) -> tuple[Diagram, ...]:
    found = {}
    for parents in _trees(edges):
        for parts in set_partitions(edges + 1):
            if (parts[-1] in parts[:-1]) == root_tied:
                found.setdefault(Diagram(parents, parts))
    return tuple(found)


# --- canonical form -----------------------------------------------------------------------------------------


def _parsed(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parents and labels of a text."""
    form = r"\((\d+(?:-\d+)*)\)\(((?:\d\d(?:-\d\d)*)?)\)"
    match = re.fullmatch(form, text)
    if not match:
        raise ValueError(f"text = {text!r}: expected parts and edges, such as '(01-2)(02-12)', or parents in numbers")
    parts = [[int(c) for c in part] for part in match[1].split("-")]
    edges = [tuple(int(c) for c in edge) for edge in match[2].split("-")] if match[2] else []
    nodes = sorted(node for part in parts for node in part)
    if nodes != list(range(len(edges) + 1)):
        wanted = f"each of the nodes 0 to {len(edges)} in one part, for {len(edges)} edges"
        raise ValueError(f"text = {text!r}: expected {wanted}")
    parent = dict(edges)
    if sorted(parent) != nodes[:-1]:
        raise ValueError(f"text = {text!r}: expected a tree, one edge from every node but the last to its parent")
    label = {node: i for i, part in enumerate(parts) for node in part}
    return tuple(parent[v] for v in nodes[:-1]), tuple(label[v] for v in nodes)


def _tree(parents: tuple[int, ...]) -> tuple[int, ...]:
    """Checks that the parents make a tree with the root d; nodes may have any order."""
    parents = tuple(_validate.items("parents", parents, least=0))
    d = len(parents)
    if d > MAX_EDGES:
        raise ValueError(f"parents = {parents}: expected at most {MAX_EDGES} edges")
    for v, parent in enumerate(parents):
        _validate.integer(f"parents[{v}]", parent, low=0, high=d)
    for v in range(d):
        w, steps = v, 0
        while w < d and steps <= d:
            w, steps = parents[w], steps + 1
        if w < d:
            raise ValueError(f"parents = {parents}: expected a tree with the root {d}, but node {v} never reaches it")
    return parents


@lru_cache
def _trees(d: int) -> tuple[tuple[int, ...], ...]:
    """All rooted trees with d edges, canonical, as parents."""
    strings: list[tuple[int, ...]] = [()]
    for v in reversed(range(d)):
        strings = [(parent, *rest) for rest in strings for parent in range(v + 1, d + 1)]
    return tuple(sorted({_canonical_tree(parents) for parents in strings}))


@lru_cache
def _fixing_the_root(d: int) -> tuple[tuple[int, ...], ...]:
    return tuple((*order, d) for order in permutations(range(d)))


def _renamed(parents: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    """The parents after node v has got the name order[v]."""
    named = dict(zip(order, (order[parent] for parent in parents), strict=False))
    return tuple(named[v] for v in range(len(parents)))


@lru_cache
def _canonical_tree(parents: tuple[int, ...]) -> tuple[int, ...]:
    """The least string of parents among the names with children before parents."""
    renamed = (_renamed(parents, order) for order in _fixing_the_root(len(parents)))
    return min(string for string in renamed if all(parent > v for v, parent in enumerate(string)))


@lru_cache
def _orders(parents: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The new names that bring a tree into canonical form."""
    wanted = _canonical_tree(parents)
    return tuple(order for order in _fixing_the_root(len(parents)) if _renamed(parents, order) == wanted)


def _relabelled(parts: tuple, order: tuple[int, ...]) -> tuple[int, ...]:
    """The partition after the renaming, as a restricted growth string."""
    return growth([parts[old] for _, old in sorted((new, old) for old, new in enumerate(order))])
