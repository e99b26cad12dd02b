"""Small problems with known exact answers, shared by the tests of the foundation, of `gap` and of `diagrams`.

Property tests draw their cases from `strategies`. They are the same ones in every run; ``HYPOTHESIS_PROFILE=thorough``
draws many new ones.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from implicitreg import FiniteProblem

# No test fails because a machine is slow.
patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("ci", derandomize=True, max_examples=40, **patient)
settings.register_profile("thorough", derandomize=False, max_examples=500, **patient)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_runtest_setup():
    """A network's first weights, where a test does not choose them, do not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def problem_a() -> FiniteProblem:
    """One parameter, three quartic losses, uniform: G=1/2, H=5/6, J=1, C=7/2, S=-5/2, grad tr C=-11/3."""
    losses = [
        lambda t: t[0] + t[0] ** 2 / 2 + t[0] ** 3 / 6,
        lambda t: -2 * t[0] + t[0] ** 2 + t[0] ** 4 / 8,
        lambda t: 5 * t[0] / 2 - t[0] ** 2 / 4 + t[0] ** 3 / 3 + t[0] ** 4 / 24,
    ]
    return FiniteProblem(losses, [1 / 3, 1 / 3, 1 / 3], [0.0])


@pytest.fixture(scope="session")
def problem_b() -> FiniteProblem:
    """Two parameters, three quartic losses with unequal probabilities, away from every symmetry."""

    def l1(t):
        x, y = t
        return x - y + x**2 / 2 + x * y / 3 + y**2 / 4 + x**2 * y / 2 - y**3 / 6 + x**2 * y**2 / 5

    def l2(t):
        x, y = t
        return -x + 2 * y + x**2 - x * y / 2 + 3 * y**2 / 2 + x**3 / 3 - x * y**2 / 4 + x**4 / 24 + x * y**3 / 6

    def l3(t):
        x, y = t
        return 3 * x / 2 + y / 2 - x**2 / 2 + x * y + y**2 / 2 + x * y**2 - x**2 * y / 3 + y**4 / 12

    return FiniteProblem([l1, l2, l3], [1 / 2, 1 / 3, 1 / 6], [1 / 2, -1 / 3])


def _linear(a, b, y):
    return lambda t: (a * t[0] + b * t[1] - y) ** 2 / 2


def _bilinear(a, y):
    return lambda t: (a * t[0] * t[1] - y) ** 2 / 2


def _logistic(a, b):
    return lambda t: torch.nn.functional.softplus(a * t[0] + b * t[1])


@pytest.fixture(scope="session")
def roberts_problems() -> dict[str, FiniteProblem]:
    """Six models: quadratics, a quartic/cubic mixture, linear regression, a bilinear net, logistic regression."""
    quadratics = [lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2]
    mixture = [lambda t: t[0] ** 4 / 4 - t[0], lambda t: t[0] ** 3 / 3 + t[0] ** 2]
    regression = [_linear(1, 0, 1), _linear(1, 2, 0), _linear(-1, 1, 2)]
    bilinear = [_bilinear(1, 1), _bilinear(2, -1), _bilinear(-1, 2)]
    logistic = [_logistic(-1, -2), _logistic(1, -1), _logistic(0, 1)]
    two_lines = [_linear(1, 0, 1), _linear(1, 1, -1)]
    return {
        "R1": FiniteProblem(quadratics, [1 / 2, 1 / 2], [1.0]),
        "R2": FiniteProblem(mixture, [1 / 3, 2 / 3], [1 / 2]),
        "R3": FiniteProblem(regression, [1 / 4, 1 / 4, 1 / 2], [1 / 2, -1 / 3]),
        "R4": FiniteProblem(bilinear, [1 / 2, 1 / 3, 1 / 6], [3 / 4, 2 / 3]),
        "R5": FiniteProblem(logistic, [1 / 3, 1 / 3, 1 / 3], [1 / 2, -1 / 4]),
        "R6": FiniteProblem(two_lines, [1 / 2, 1 / 2], [1.0, 1 / 2]),
    }
