"""Diagrams: how many there are, their symmetries, texts and pictures, and their counts against plain enumeration."""

from __future__ import annotations

from fractions import Fraction as Fr
from itertools import product

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitreg.diagrams import Diagram, enumerate_diagrams

from rational_engine import LAW_A, LAW_B, batches, value  # isort: skip

SCHEDULES = [
    (1, 3, 1),
    (2, 2, 1),
    (2, 4, 1),
    (2, 3, 2),
    (3, 3, 1),
    (4, 2, 2),
    (4, 4, 2),
    (2, 3, 1),
    (3, 4, 3),
    (4, 3, 2),
]


@st.composite
def drawn(draw, edges=4, root_tied=None) -> Diagram:
    """A random tree, node by node, and a random partition."""
    d = draw(st.integers(1, edges))
    parents = tuple(draw(st.integers(v + 1, d)) for v in range(d))
    return Diagram(parents, tuple(draw(st.integers(0, d)) for _ in range(d + 1)))


def enumerated(diagram: Diagram, N: int, T: int, B: int, strict: bool = False, reshuffle: bool = True) -> Fr:
    """The mean number of embeddings, by trying every map for every batch order."""
    d, epochs = diagram.edges, -(-T * B // N)
    orders = list(batches(N, B))
    schedules = list(product(orders, repeat=epochs)) if reshuffle else [(order,) * epochs for order in orders]
    found = 0
    for some in schedules:
        schedule = sum(some, ())[:T]
        cells = [(n, t) for t, batch in enumerate(schedule) for n in batch]
        for cell in product(cells, repeat=d):
            time = [t for _, t in cell] + [T]
            if any(time[v] >= time[parent] for v, parent in enumerate(diagram.parents)):
                continue
            for n_root in range(N) if diagram.root_tied else [-1]:
                point = [n for n, _ in cell] + [n_root]
                held = [{point[v] for v in part} for part in diagram.ties]
                apart = len(set().union(*held)) == len(held)
                found += all(len(points) == 1 for points in held) and (apart or not strict)
    return Fr(found, len(schedules) * (N if diagram.root_tied else 1))


def test_numbers_of_diagrams():
    def sizes(**keywords):
        return [len(enumerate_diagrams(d, **keywords)) for d in range(1, 5)]

    assert sizes() == [1, 4, 17, 101]
    assert sizes(path_condition=True) == [1, 3, 9, 37]
    assert sizes(irreducible=True) == [1, 3, 12, 65]
    assert sizes(irreducible=True, path_condition=True) == [1, 2, 6, 21]
    assert [len({D.parents for D in enumerate_diagrams(d)}) for d in range(1, 6)] == [1, 2, 4, 9, 20]  # rooted trees


def test_symmetries_of_a_diagram_times_its_labellings_are_all_labelled_diagrams():
    # orbit and stabilizer: the labelled trees with root, (d + 1)^(d − 1), times the partitions of the other nodes
    for d, bell in enumerate([1, 1, 2, 5, 15, 52]):
        labellings = sum(Fr(_factorial(d), D.automorphisms) for D in enumerate_diagrams(d))
        assert labellings == Fr(d + 1) ** (d - 1) * bell


def _factorial(n):
    return 1 if n < 2 else n * _factorial(n - 1)


@given(drawn(), st.randoms(use_true_random=False))
def test_names_of_nodes_do_not_matter(diagram, random):
    d = diagram.edges
    order = [*random.sample(range(d), d), d]
    parents = [0] * d
    parts = [0] * (d + 1)
    for v in range(d + 1):
        parts[order[v]] = diagram.parts[v]
        if v < d:
            parents[order[v]] = order[diagram.parents[v]]
    assert Diagram(tuple(parents), tuple(parts)) == diagram
    assert Diagram.parse(str(diagram)) == Diagram(str(diagram)) == eval(repr(diagram)) == diagram


@given(drawn())
def test_every_random_diagram_is_enumerated_once(diagram):
    assert enumerate_diagrams(diagram.edges, root_tied=diagram.root_tied).count(diagram) == 1


@given(drawn(edges=3), st.sampled_from(SCHEDULES), st.booleans())
def test_counts_are_those_of_plain_enumeration(diagram, schedule, strict):
    assert diagram.count(*schedule, strict=strict) == enumerated(diagram, *schedule, strict)


@given(drawn(edges=4), st.sampled_from([(1, 3, 1), (2, 2, 1), (2, 3, 1), (2, 2, 2), (3, 3, 1), (4, 2, 2)]))
def test_counts_with_four_edges(diagram, schedule):
    assert diagram.count(*schedule) == enumerated(diagram, *schedule)


@given(drawn(edges=3), st.sampled_from([(2, 4, 1), (3, 6, 1), (4, 4, 2)]))
def test_through_three_edges_a_fixed_order_counts_alike_over_whole_epochs(diagram, schedule):
    assert enumerated(diagram, *schedule, reshuffle=False) == diagram.count(*schedule)


def test_a_fixed_order_counts_differently_with_four_edges_or_in_part_of_an_epoch():
    assert any(enumerated(D, 2, 4, 1, reshuffle=False) != D.count(2, 4, 1) for D in enumerate_diagrams(4))
    tied = Diagram.parse("(023-1)(01-12-23)")
    assert (enumerated(tied, 2, 3, 1, reshuffle=False), tied.count(2, 3, 1)) == (Fr(1, 2), Fr(1, 4))


@given(drawn(), st.integers(1, 6))
def test_the_path_condition_is_what_fresh_examples_need(diagram, T):
    if not diagram.root_tied and not diagram.path_condition:
        assert diagram.count(T, T) == 0


@pytest.mark.parametrize("diagram", [D for d in range(4) for D in enumerate_diagrams(d, path_condition=True)], ids=str)
def test_four_steps_give_every_such_diagram_an_embedding(diagram):
    assert diagram.count(4, 4) > 0


# c_D for general N, T, B with whole epochs; the values of D are named at the side.
CLOSED_FORMS = {
    "(0-1)(01)": lambda N, T, B: T,
    "(0-1-2)(01-12)": lambda N, T, B: Fr(T * (T - 1), 2),
    "(01-2)(01-12)": lambda N, T, B: Fr(T * (B * T - N), 2 * B * N),
    "(0-1-2)(02-12)": lambda N, T, B: Fr(T**2, 2),
    "(01-2)(02-12)": lambda N, T, B: Fr(T**2, 2 * N),
    "(0-1-2-3)(01-12-23)": lambda N, T, B: Fr(T * (T - 1) * (T - 2), 6),
    "(01-2-3)(01-12-23)": lambda N, T, B: Fr(T * (B * T - N) * (2 * B * T - 3 * B - N), 12 * B**2 * N),
    "(0-12-3)(01-12-23)": lambda N, T, B: Fr(T * (B * T - N) * (2 * B * T - 3 * B - N), 12 * B**2 * N),
    "(02-1-3)(01-12-23)": lambda N, T, B: Fr(T * (B * T - N) * (B * T - 3 * B + N), 6 * B**2 * N),
    "(012-3)(01-12-23)": lambda N, T, B: Fr(T * (B * T - 2 * N) * (B * T - N), 6 * B**2 * N**2),
    "(0-1-2-3)(02-12-23)": lambda N, T, B: Fr(T * (T - 1) * (2 * T - 1), 12),
    "(01-2-3)(02-12-23)": lambda N, T, B: Fr(T * (2 * B**2 * T**2 - 3 * B**2 * T + N**2), 12 * B**2 * N),
    "(02-1-3)(02-12-23)": lambda N, T, B: Fr(T * (B * T - N) * (4 * B * T - 3 * B + N), 12 * B**2 * N),
    "(012-3)(02-12-23)": lambda N, T, B: Fr(T * (B * T - N) * (2 * B * T - N), 12 * B**2 * N**2),
    "(0-1-2-3)(01-13-23)": lambda N, T, B: Fr(T**2 * (T - 1), 2),
    "(01-2-3)(01-13-23)": lambda N, T, B: Fr(T**2 * (B * T - N), 2 * B * N),
    "(02-1-3)(01-13-23)": lambda N, T, B: Fr(T**2 * (T - 1), 2 * N),
    "(0-12-3)(01-13-23)": lambda N, T, B: Fr(T**2 * (T - 1), 2 * N),
    "(012-3)(01-13-23)": lambda N, T, B: Fr(T**2 * (B * T - N), 2 * B * N**2),
    "(0-1-2-3)(03-13-23)": lambda N, T, B: Fr(T**3, 6),
    "(01-2-3)(03-13-23)": lambda N, T, B: Fr(T**3, 2 * N),
    "(012-3)(03-13-23)": lambda N, T, B: Fr(T**3, 6 * N**2),
}


@pytest.mark.parametrize("text", CLOSED_FORMS)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_coefficients_in_closed_form(text, B, batches_, E):
    N, T = B * batches_, batches_ * E
    assert Diagram.parse(text).coefficient(N, T, B) == CLOSED_FORMS[text](N, T, B)


def test_closed_forms_cover_all_diagrams_to_three_edges():
    assert set(CLOSED_FORMS) == {str(D) for d in (1, 2, 3) for D in enumerate_diagrams(d)}


# of the gap after N steps on fresh examples, with 1/N included
TIED_ROOTS = {
    "(0-1-23)(01-12-23)": lambda N: Fr((N - 1) * (N - 2), 6),
    "(0-13-2)(01-12-23)": lambda N: Fr((N - 1) * (N - 2), 6),
    "(03-1-2)(01-12-23)": lambda N: Fr((N - 1) * (N - 2), 6),
    "(0-1-23)(01-13-23)": lambda N: Fr(N * (N - 1), 2),
    "(0-13-2)(01-13-23)": lambda N: Fr(N * (N - 1), 2),
    "(03-1-2)(01-13-23)": lambda N: Fr(N * (N - 1), 2),
    "(0-1-23)(02-12-23)": lambda N: Fr((N - 1) * (2 * N - 1), 12),
    "(03-1-2)(02-12-23)": lambda N: Fr((N - 1) * (2 * N - 1), 6),
    "(03-1-2)(03-13-23)": lambda N: Fr(N**2, 2),
    "(0-123)(01-13-23)": lambda N: Fr(N - 1, 2),
    "(023-1)(01-13-23)": lambda N: Fr(N - 1, 2),
    "(02-13)(01-13-23)": lambda N: Fr(N - 1, 2),
    "(03-12)(01-13-23)": lambda N: Fr(N - 1, 2),
    "(01-23)(02-12-23)": lambda N: Fr(N - 1, 4),
    "(013-2)(02-12-23)": lambda N: Fr(N - 1, 4),
    "(01-23)(03-13-23)": lambda N: Fr(N, 2),
    "(013-2)(03-13-23)": lambda N: Fr(N, 2),
    "(0123)(03-13-23)": lambda N: Fr(1, 6),
}


@pytest.mark.parametrize("N", [1, 2, 3, 5, 10])
def test_coefficients_of_tied_roots_with_fresh_examples(N):
    found = {str(D): D.coefficient(N, N) for D in enumerate_diagrams(3, root_tied=True)}
    for text, count in found.items():
        assert count == (TIED_ROOTS[text](N) if text in TIED_ROOTS else 0), text


@pytest.mark.parametrize("law", [LAW_A, LAW_B], ids="AB")
def test_values_are_the_cumulants_written_out(law):
    problem = law.problem()
    for D in [D for d in range(4) for tied in (False, True) for D in enumerate_diagrams(d, root_tied=tied)]:
        assert D.value(problem) == pytest.approx(float(value(law, D)), rel=1e-12, abs=1e-12), D


def test_values_with_four_edges_have_fourth_cumulants():
    problem = LAW_A.problem()
    for D in enumerate_diagrams(4):
        assert D.value(problem) == pytest.approx(float(value(LAW_A, D)), rel=1e-12, abs=1e-12), D
    four = Diagram.parse("(0123-4)(04-14-24-34)")
    assert abs(four.value(problem) - four.value(problem, moments=True)) > 0.1


def test_links_and_irreducible_diagrams_are_as_corrected():
    chain, star = Diagram.parse("(0-1-2)(01-12)"), Diagram.parse("(0-1-2)(02-12)")
    assert (chain.links, chain.irreducible) == ((1,), False)
    assert (star.links, star.irreducible) == ((), True)
    assert Diagram.parse("(0-1)(01)").irreducible  # the root has one edge, and is no link
    assert Diagram.parse("(01-2)(01-12)").irreducible  # a tied node is no link either


def test_ties_to_a_descendant_break_the_path_condition():
    assert not Diagram.parse("(01-2)(01-12)").path_condition
    assert not Diagram.parse("(0-12)(02-12)").path_condition  # the root too
    assert Diagram.parse("(02-1-3)(01-13-23)").path_condition


@pytest.mark.parametrize("text", ["(0-1)(01)", "(01-2)(02-12)", "(03-12)(01-12-23)", "(01-2-3)(02-12-23)", "(0)()"])
def test_a_drawing_shows_every_node_edge_and_tie(text):
    diagram = Diagram.parse(text)
    ax = diagram.draw()
    dots = sum(len(c.get_offsets()) for c in ax.collections)
    styles = [patch.get_linestyle() for patch in ax.patches]
    assert dots == diagram.edges + 1
    assert styles.count("solid") == diagram.edges
    assert len(styles) - styles.count("solid") == sum(len(part) - 1 for part in diagram.ties)
    plt.close(ax.figure)


@pytest.mark.parametrize("diagram", [D for d in range(5) for D in enumerate_diagrams(d)][::7], ids=str)
def test_nothing_is_drawn_outside_the_frame(diagram):
    ax = diagram.draw()
    ax.figure.canvas.draw()
    inside = ax.get_window_extent()
    for patch in ax.patches:
        box = patch.get_window_extent()
        assert box.x0 >= inside.x0 - 1
        assert box.x1 <= inside.x1 + 1
        assert box.y0 >= inside.y0 - 1
        assert box.y1 <= inside.y1 + 1
    plt.close(ax.figure)


def test_pictures_for_a_notebook():
    diagram, before = Diagram.parse("(01-2)(02-12)"), set(plt.get_fignums())
    assert diagram._repr_svg_().startswith("<?xml")
    assert diagram._repr_png_().startswith(b"\x89PNG")
    assert set(plt.get_fignums()) == before


BAD = {
    "a loop": (lambda: Diagram((1, 0), (0, 1)), ValueError, "expected a tree with the root 2, but node 0 never"),
    "its own parent": (lambda: Diagram((0,), (0,)), ValueError, "expected a tree with the root 1"),
    "no such parent": (lambda: Diagram((5,), (0,)), ValueError, r"parents\[0\] = 5: expected"),
    "parent is a word": (lambda: Diagram(("a",), (0,)), TypeError, r"parents\[0\]"),
    "too few labels": (lambda: Diagram((2, 2), (0,)), ValueError, r"parts = \(0,\): expected 2 labels, or one more"),
    "too many edges": (lambda: Diagram((6,) * 6, (0,) * 6), ValueError, "at most 5 edges"),
    "text without a tree": (lambda: Diagram.parse("(0-1-2)(01-02)"), ValueError, "expected a tree"),
    "text with a cycle": (lambda: Diagram.parse("(0-1-2)(01-10)"), ValueError, "expected a tree"),
    "text that misses a node": (lambda: Diagram.parse("(0-1)(02-12)"), ValueError, "each of the nodes 0 to 2"),
    "text with a node twice": (lambda: Diagram.parse("(01-1-2)(02-12)"), ValueError, "each of the nodes"),
    "no text": (lambda: Diagram.parse("01"), ValueError, "expected parts and edges"),
    "a text that is none": (lambda: Diagram("tree"), ValueError, "text = 'tree': expected parts and edges"),
    "not a string": (lambda: Diagram.parse(3), ValueError, "text = 3"),
    "B does not divide N": (lambda: Diagram.parse("(0-1)(01)").count(3, 2, 2), ValueError, "B = 2: expected a divisor"),
    "no points": (lambda: Diagram.parse("(0-1)(01)").count(0, 2), ValueError, "N = 0"),
    "half a step": (lambda: Diagram.parse("(0-1)(01)").count(2, 0.5), TypeError, "T = 0.5"),
    "negative edges": (lambda: enumerate_diagrams(-1), ValueError, "edges = -1"),
    "too many to enumerate": (lambda: enumerate_diagrams(6), ValueError, "edges = 6"),
    "no problem": (lambda: Diagram.parse("(0-1)(01)").value(3), TypeError, "problem = 3: expected a FiniteProblem"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
