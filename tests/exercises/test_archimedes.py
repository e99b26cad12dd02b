"""Exercises on the screw: right answers are right, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import check

RIGHT = {
    "archimedes-two": lambda eta, a, b, phi: -(eta**3) * (a - b) * np.sin(2 * phi) / 2,
    "archimedes-bowl": lambda eta, h, J, C: -eta * C * J / (4 * h**2),
    "archimedes-speed": 4.30e-4,
}
WRONG = {
    "archimedes-two": [  # without the half; upside down; cancelled; another power
        lambda eta, a, b, phi: -(eta**3) * (a - b) * np.sin(2 * phi),
        lambda eta, a, b, phi: eta**3 * (a - b) * np.sin(2 * phi) / 2,
        lambda eta, a, b, phi: 0.0,
        lambda eta, a, b, phi: -(eta**2) * (a - b) * np.sin(2 * phi) / 2,
    ],
    "archimedes-bowl": [  # as printed; one curvature; twice; on the steeper side
        lambda eta, h, J, C: -(eta**2) * C * J / (4 * h**2),
        lambda eta, h, J, C: -eta * C * J / (4 * h),
        lambda eta, h, J, C: -eta * C * J / (2 * h**2),
        lambda eta, h, J, C: eta * C * J / (4 * h**2),
    ],
    "archimedes-speed": [0.05**2 / 6, 0.172, 0.1**2 / 5.6, -4.30e-4],  # a sixth; over eta²; at another step; down
}


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("archimedes-two", lambda eta, a, b, phi: np.array((b - a) * eta**3 * np.cos(phi) * np.sin(phi))),
        ("archimedes-bowl", lambda eta, h, J, C: -(J / (2 * h)) * (eta * C / (2 * h))),
        ("archimedes-speed", np.float64(4.31e-4)),
        ("archimedes-speed", np.array(4.29e-4)),
    ],
)
def test_other_forms_are_right(label, answer):
    assert check(label, answer)


@pytest.mark.parametrize("answer", [[4.3e-4, 4.3e-4], 4.36e-4, float("nan")], ids=["two", "off", "nan"])
def test_a_speed_is_one_number_to_a_percent(answer):
    assert not check("archimedes-speed", answer)
