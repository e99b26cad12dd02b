"""The answers beside this file: every right one is right, every likely mistake is not, and gets a hint.

Each file named after a module of exercises holds RIGHT, a label's answer, and WRONG, a list of three mistakes or more.
"""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from implicitreg import exercises


def answers(path):
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__)
FILES = [answers(path) for path in sorted(HERE.parent.glob("test_*.py")) if path != HERE]
RIGHT = {label: answer for file in FILES for label, answer in file.RIGHT.items()}
WRONG = {
    f"{label}-{k}": (label, mistake)
    for file in FILES
    for label, some in file.WRONG.items()
    for k, mistake in enumerate(some)
}


def test_every_exercise_has_a_right_answer_and_three_mistakes():
    count = Counter(label for label, _ in WRONG.values())
    assert sorted(RIGHT) == sorted(count) == exercises.labels()
    assert {label: n for label, n in count.items() if n < 3} == {}


@pytest.mark.parametrize("label", RIGHT)
def test_right_answer(label, capsys):
    assert exercises.check(label, RIGHT[label])
    assert capsys.readouterr().out == f"{label}: right\n"


def stretched(answer, by):
    """The answer whose smallest entry that is not 0 is multiplied by 1 + by."""
    value = np.array(answer, dtype=float)
    size = np.where(value == 0, np.inf, np.abs(value))
    if np.isfinite(size).any():
        value[np.unravel_index(size.argmin(), value.shape)] *= 1 + by
    return value


@pytest.mark.parametrize("label", [name for name in RIGHT if exercises._find(name).error is None])
def test_the_smallest_entry_counts_as_much_as_the_largest(label):
    """Relative errors: half the tolerance is right, and three times it is not."""
    tolerance, answer = exercises._find(label).tolerance, RIGHT[label]

    def off(by):
        return (lambda *inputs: stretched(answer(*inputs), by)) if callable(answer) else stretched(answer, by)

    verdicts = [exercises.grade(label, off(by)) for by in (0.3 * tolerance, 3 * tolerance)]
    assert [v.right for v in verdicts] == [True, False]
    assert tolerance != 1e-8 or verdicts[1].says == "not yet: right to 3e-8, and 1e-8 is asked"


@pytest.mark.parametrize("mistake", WRONG)
def test_likely_mistake_gets_a_hint(mistake, capsys):
    assert not exercises.check(*WRONG[mistake])
    assert "not yet. Hint: " in capsys.readouterr().out


INDEX = ["homogeneous-winner", "incremental-first", "margin-interpolates", "diagonal-winner"]


def test_these_answers_are_an_index_or_a_yes_or_no():
    """And one is judged by a winner. The steps of sde-first are tried at all of its six sizes."""
    found = []
    for label in exercises.labels():
        exercise = exercises._find(label)
        if exercise.draw:
            truth = exercise.reference(*exercise.draw(np.random.default_rng(0)))
            found += [label] * isinstance(truth, bool | int | np.integer)
    assert sorted([*found, "diagonal-winner"]) == sorted([*INDEX, "sde-first"])
    steps = exercises._find("sde-first")
    rng = np.random.default_rng(exercises.SEED)
    assert len({steps.draw(rng) for _ in range(steps.trials)}) == 6


@pytest.mark.parametrize("mistake", [m for m in WRONG if m.rpartition("-")[0] in INDEX])
def test_a_wrong_rule_passes_with_probability_below_one_in_a_million(mistake):
    """On other inputs than those of `check`: it fails by its share of wrong answers, not by luck."""
    label, rule = WRONG[mistake]
    exercise = exercises._find(label)
    rng, right = np.random.default_rng(1), 0
    for _ in range(200):
        inputs = exercise.draw(rng)
        right += exercises._error(exercise, rule(*map(np.copy, inputs)), inputs) <= exercise.tolerance
    assert ((right + 1) / 201) ** exercise.trials < 1e-6


FORBIDDEN = {
    "gap-signal by products of all pairs": lambda rows: np.mean((rows @ rows.T)[~np.eye(len(rows), dtype=bool)]),
    "gap-signal by the covariance": lambda rows: (
        np.sum(rows.mean(0) ** 2) - np.trace(np.atleast_2d(np.cov(rows.T))) / len(rows)
    ),
    "networks-ghost by the gradients": lambda a, delta: (
        (delta[:, :, None] * a[:, None, :]) ** 2).sum((1, 2)) + (delta**2).sum(1),
    "networks-precondition by the covariance": lambda J, g, lam: (
        lam * np.linalg.solve(np.cov(J.T) + lam * np.eye(len(g)), g)
    ),
    "sampling-many by the matrix": lambda G, kappa, c: (
        G @ (c * np.ones((G.shape[1], G.shape[1])) + (kappa - c) * np.eye(G.shape[1])) @ G.T
    ),
    "predictions-chain by the Hessian": lambda xs, theta: chain(xs, 1 / (1 + np.exp(xs @ theta))),
}  # fmt: skip


def chain(xs, p):
    H = (xs.T * (p * (1 - p))) @ xs / len(xs)
    return np.mean(p**2 * np.einsum("ni,ij,nj->n", xs, H, xs))


@pytest.mark.parametrize("way", FORBIDDEN)
def test_a_matrix_that_an_exercise_forbids_does_not_fit(way):
    """Into 128 GB; otherwise these answers are right."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**37, hard))
    try:
        says = exercises.grade(way.split()[0], FORBIDDEN[way]).says
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "Unable to allocate" in says


FUNCTIONS = [label for label in RIGHT if exercises._find(label).draw]
SAME_LENGTH = {
    ("escape-exponent", 0): "three steps, one of them 0, whose skewness is drawn",
    ("escape-exponent", 1): "their chances",
    ("minnorm-straight", 0): "the exercise says two rows",
    ("minnorm-straight", 1): "their labels",
    ("predictions-chain", 0): "so many weights that their Hessian does not fit",
    ("predictions-chain", 1): "so many weights",
    ("resummation-three", 2): "one flat direction, two soft ones and two others",
    ("resummation-three", 3): "one flat direction, two soft ones and two others",
    ("resummation-three", 4): "one flat direction, two soft ones and two others",
    ("sampling-many", 0): "so many examples that a matrix of their pairs does not fit",
    ("twonumbers-weights", 0): "so many draws that their means can be judged",
}
NOT_NEEDED = {("twonumbers-weights", 0): "other numbers with the same law do as well: only means are judged"}


def drawn(label):
    """The arguments of all trials, one list for each."""
    exercise, rng = exercises._find(label), np.random.default_rng(exercises.SEED)
    return list(zip(*(exercise.draw(rng) for _ in range(exercise.trials)), strict=True))


def ignoring(label, k):
    """The right answer, for which argument k is always what it first was; an array has the shape that it should."""
    first = []

    def answer(*inputs):
        first.append(inputs[k])
        value = np.resize(first[0], inputs[k].shape) if isinstance(inputs[k], np.ndarray) else first[0]
        return RIGHT[label](*inputs[:k], value, *inputs[k + 1 :])

    return answer


@pytest.mark.parametrize("label", FUNCTIONS)
def test_an_answer_that_ignores_an_argument_is_not_right(label):
    for k, values in enumerate(drawn(label)):
        if callable(values[0]):  # its values are an argument's, too: `chosen-step` tries them in its own tests
            continue
        assert any(not np.array_equal(value, values[0]) for value in values), f"argument {k} is always the same"
        assert exercises.grade(label, ignoring(label, k)).right == ((label, k) in NOT_NEEDED), f"argument {k}"


@pytest.mark.parametrize("label", FUNCTIONS)
def test_no_length_is_the_same_in_all_trials(label):
    for k, values in enumerate(drawn(label)):
        if isinstance(values[0], np.ndarray):
            lengths = [len(set(axis)) for axis in zip(*(value.shape for value in values), strict=True)]
            assert (min(lengths) == 1) == ((label, k) in SAME_LENGTH), f"argument {k} has {lengths} lengths an axis"


def test_exceptions_name_exercises():
    assert {label for label, _ in [*SAME_LENGTH, *NOT_NEEDED]} <= set(FUNCTIONS)
