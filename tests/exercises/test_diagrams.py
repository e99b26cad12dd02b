"""Exercises on diagrams: right answers are right in every form, and the likely mistakes are not."""

from itertools import combinations

import numpy as np
import pytest
from implicitreg.exercises import check


def pictures(run, arrows, *, twins=2, chains=True, sign=-1, both=True):
    """The list of the solution; each option is a mistake."""
    T = len(run)
    sets = [s for k in range(1, T + 1 if chains else 2) for s in combinations(range(T), k)]
    size = lambda s: np.prod(run[list(s)])  # noqa: E731
    if arrows == 0:
        return 1, 1.0
    values = [2 * size(s) for s in sets if len(s) == arrows]
    for i, s in enumerate(sets):
        for u in sets[i if both else i + 1 :]:
            if len(s) + len(u) == arrows:
                values.append(2 * size(s) * size(u) / (twins if s == u else 1))
    return len(values), sign**arrows * sum(values)


RIGHT = {
    "diagrams-three": (9, 39),
    "diagrams-times": (95, 5, 185),
    "diagrams-order": (6, -2),
    "diagrams-reuse": 30,
    "diagrams-pictures": pictures,
}
OTHER_FORMS = [
    ("diagrams-three", [9, 39]),
    ("diagrams-three", np.array([9.0, 39.0])),
    ("diagrams-times", np.array([95.0, 5.0, 185.0])),
    ("diagrams-order", np.array([6, -2])),
    ("diagrams-reuse", np.int64(30)),
    ("diagrams-pictures", lambda run, arrows: np.array(pictures(run, arrows))),
    ("diagrams-pictures", lambda run, arrows: [int(n) for n in pictures(run, arrows)]),
]
WRONG = {
    "diagrams-three": [(6, 39), (12, 39), (9, 25), (9, 22), (39, 9)],
    "diagrams-times": [(100, 5, 185), (50, 5, 185), (45, 5, 185), (95, 10, 185), (95, 5, 180)],
    "diagrams-order": [(-2, 6), (6, 6), (2, 2), (6, 2)],
    "diagrams-reuse": [26, 24, 28, 34],
    "diagrams-pictures": [
        lambda run, arrows: pictures(run, arrows, twins=1),
        lambda run, arrows: pictures(run, arrows, chains=False),
        lambda run, arrows: pictures(run, arrows, sign=1),
        lambda run, arrows: pictures(run, arrows, both=False),
        lambda run, arrows: (pictures(run, arrows)[0] + (arrows == 0) * -1, pictures(run, arrows)[1]),
    ],
}


@pytest.mark.parametrize(
    ("label", "answer"), OTHER_FORMS, ids=[f"{label}-{k}" for k, (label, _) in enumerate(OTHER_FORMS)]
)
def test_a_right_answer_is_right_in_every_form(label, answer):
    assert check(label, answer)


def test_the_run_of_the_text():
    found = [pictures(np.array([1.0, 3.0, 1.0]), k)[1] for k in range(7)]
    np.testing.assert_allclose(found, [1, -10, 39, -76, 79, -42, 9])
