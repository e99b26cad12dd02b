"""Exercises on overfitting from a test minimum: right answers are right, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg import exact
from implicitreg.diagrams.landscapes import MeanEstimation
from implicitreg.exercises import check
from scipy.optimize import brentq, minimize_scalar


def two(h, t, C, N):
    a = (1 - np.exp(-h * t)) / h
    return [h * a**2 * C / (2 * N), a * C / N]


def peak(p):
    return brentq(lambda z: np.expm1(z) / z - 2 / (1 - p), 1e-9, 80, xtol=1e-14)


def traces(g, H, eta, T, N):
    far = np.zeros_like(g)
    for _ in range(T):
        far = far - eta * (far @ H - g)
    return [np.mean(np.sum(far @ H * far, 1)) / (2 * N), np.mean(np.sum(far * g, 1)) / N]


def by_powers(g, H, eta, T, N):
    A = sum(np.linalg.matrix_power(np.eye(len(H)) - eta * H, t) for t in range(T)) * eta
    C = np.cov(g.T, bias=True)
    return np.array([np.trace(C @ A @ H @ A) / 2, np.trace(C @ A)]) / N


def exponential(g, H, eta, T, N):
    values, vectors = np.linalg.eigh(H)
    values = np.maximum(values, 1e-12)
    a = -np.expm1(-eta * T * values) / values
    c = ((g @ vectors) ** 2).mean(0)
    return [(c * values * a**2).sum() / (2 * N), (c * a).sum() / N]


def stop(h, D, C, N):
    return np.log1p(N * h**2 * D**2 / C) / h


def scanned_peak(p):
    """Bisection of the logarithmic derivative."""
    slope = lambda z: (p - 1) / z + 2 * np.exp(-z) / (1 - np.exp(-z))  # noqa: E731
    return brentq(slope, 1e-9, 80, xtol=1e-14)


def epochs(y, N, B, E):
    K, n = 1 - y, N // B
    power = lambda k, n: np.sum(K ** (k * np.arange(n)))  # noqa: E731
    once = power(2, n) / B - power(1, n) ** 2 / N
    return y / 2 * (power(1, n * E) ** 2 / N + once * np.sum(K ** (2 * n * np.arange(E))))


RIGHT = {
    "overfitting-two": two,
    "overfitting-race": [10, 1, 0.1, 0.1, 0.1, 0.1],
    "overfitting-two-steps": 2 / 3,
    "overfitting-power": peak,
    "overfitting-traces": traces,
    "overfitting-stop": stop,
    "overfitting-epochs": epochs,
}
WRONG = {
    "overfitting-two": [
        lambda h, t, C, N: two(h, t, C, N)[::-1],
        lambda h, t, C, N: two(h, t, C, N) * np.array([2, 1]),
        lambda h, t, C, N: [C / (2 * h * N), C / (h * N)],
        lambda h, t, C, N: two(h, t, C**2, N),
        lambda h, t, C, N: [two(h, t, C, N)[0], two(h, t, C, N)[1] * (1 + 1e-3)],
    ],
    "overfitting-race": [
        [1, 1, 1, 0.1, 0.1, 0.1],
        [10, 1, 0.1, 10, 1, 0.1],
        [0.1, 1, 10, 0.1, 0.1, 0.1],
        [10, 1, 0.1, 10, 10, 10],
    ],
    "overfitting-two-steps": [1.2564312086 / 2, 1.0, 1 / 3, 0.667, 0.5],
    "overfitting-power": [
        lambda p: 1.2564312086,
        lambda p: 1.2564312086 * (1 + p),
        lambda p: peak(-p),
        lambda p: 2 / (1 - p),
    ],
    "overfitting-traces": [
        exponential,
        lambda g, H, eta, T, N: np.array(traces(g, H, eta, T, N)) * [2, 1],
        lambda g, H, eta, T, N: traces(g, H, eta, T, len(g)),
        lambda g, H, eta, T, N: np.array(traces(g, H, eta, T, N)) * len(g) / (len(g) - 1),
        lambda g, H, eta, T, N: traces(g, H, eta, T - 1, N),
    ],
    "overfitting-stop": [
        lambda h, D, C, N: np.log(N * h**2 * D**2 / C) / h,
        lambda h, D, C, N: 1.2564312086 / h,
        lambda h, D, C, N: np.log1p(N * h * D**2 / C) / h,
        lambda h, D, C, N: np.log1p(N * h**2 * D / C) / h,
        lambda h, D, C, N: np.inf,
    ],
    "overfitting-epochs": [  # full batches; never reused; every epoch afresh; without the half
        lambda y, N, B, E: y / 2 * np.sum((1 - y) ** np.arange(N // B * E)) ** 2 / N,
        lambda y, N, B, E: (1 - (1 - y) ** (2 * N // B * E)) / (2 * (2 - y) * B),
        lambda y, N, B, E: E * epochs(y, N, B, 1),
        lambda y, N, B, E: 2 * epochs(y, N, B, E),
    ],
}

OTHER_RIGHT = [
    ("overfitting-two", lambda *a: np.array(two(*a))),
    ("overfitting-two", lambda *a: tuple(two(*a))),
    ("overfitting-race", np.array([10, 1, 0.1, 0.1, 0.1, 0.1])),
    ("overfitting-race", (10.0, 1.0, 0.1, 0.1, 0.1, 0.1)),
    ("overfitting-two-steps", np.float64(2) / 3),
    ("overfitting-two-steps", 0.6666666666666),
    ("overfitting-power", scanned_peak),
    ("overfitting-power", lambda p: np.float64(peak(p))),
    ("overfitting-traces", by_powers),
    ("overfitting-traces", lambda *a: tuple(traces(*a))),
    ("overfitting-stop", lambda h, D, C, N: np.log((D**2 + C / (N * h**2)) / (C / (N * h**2))) / h),
    ("overfitting-stop", lambda h, D, C, N: np.log(1 + N * h * h * D * D / C) / h),
]


@pytest.mark.parametrize(("label", "answer"), OTHER_RIGHT)
def test_other_forms_of_the_right_answer_are_accepted(label, answer):
    assert check(label, answer)


@pytest.mark.parametrize("p", [-0.9, 0.0, 0.5])
def test_the_peak_is_a_peak(p):
    found = minimize_scalar(
        lambda z: -(z ** (p - 1)) * np.expm1(-z) ** 2, bounds=(1e-3, 60), method="bounded", options={"xatol": 1e-9}
    )
    assert found.x == pytest.approx(peak(p), abs=1e-6)


def test_the_time_to_stop_is_the_best():
    h, D, C, N = 1.3, 0.7, 2.0, 9
    loss = lambda t: h / 2 * (D**2 * np.exp(-2 * h * t) + C / N * np.expm1(-h * t) ** 2 / h**2)  # noqa: E731
    found = minimize_scalar(loss, bounds=(0, 9), method="bounded", options={"xatol": 1e-10})
    assert found.x == pytest.approx(stop(h, D, C, N), abs=1e-6)


@pytest.mark.parametrize(("N", "B", "E"), [(4, 1, 2), (4, 2, 3), (3, 1, 3), (4, 4, 5)])
def test_epochs_over_all_orders(N, B, E):
    for y in (0.1, 0.5, 0.9):
        run = exact.run(MeanEstimation(10 * y).problem(), 0.1, N=N, T=N // B * E, B=B)
        assert run.test_loss / 0.1 == pytest.approx(epochs(y, N, B, E), rel=1e-10)
