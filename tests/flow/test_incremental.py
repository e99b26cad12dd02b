"""Incremental learning and early stopping: closed forms against integration, printed digits, and whole trajectories."""

import numpy as np
import pytest
from implicitreg.flow import diagonal, incremental, minnorm
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

DEPTHS = pytest.mark.parametrize("depth", [1, 2, 3, 4], ids="L{}".format)


@pytest.mark.parametrize(("depth", "time"), [(2, 0.661663103090562), (3, 1.55377584637886), (4, 6.22613907230027)])
def test_half_time_has_the_reference_digits(depth, time):
    assert incremental.activation_time(2.0, 0.1, depth) == pytest.approx(time, abs=3e-14)


@DEPTHS
@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.99])
def test_activation_time_is_the_integral_of_dt_over_dw(depth, fraction):
    target, alpha = 1.7, 0.15
    slowness = lambda q: np.exp(q) / (depth**2 * np.exp(q * (2 - 2 / depth)) * (target - np.exp(q)))  # noqa: E731
    expected = quad(slowness, depth * np.log(alpha), np.log(fraction * target), epsabs=0, epsrel=1e-12)[0]
    assert incremental.activation_time(target, alpha, depth, fraction) == pytest.approx(expected, rel=1e-10)
    control = lambda q: slowness(q) * depth**2 / depth  # noqa: E731   # rate L instead of L^2
    wrong = quad(control, depth * np.log(alpha), np.log(fraction * target))[0]
    assert depth == 1 or abs(wrong / expected - 1) > 0.5


@DEPTHS
def test_toy_path_solves_its_equation(depth):
    t = np.array([0, 0.3, 0.6, 1.5, 3.0, 7.0])
    slope = lambda _, w: depth**2 * w ** (2 - 2 / depth) * (2 - w)  # noqa: E731
    expected = solve_ivp(slope, (0, 7), [0.1**depth], "DOP853", t_eval=t, rtol=1e-12, atol=1e-15).y[0]
    np.testing.assert_allclose(incremental.toy_path(t, 2.0, 0.1, depth), expected, atol=2e-11)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_toy_path_is_the_network_on_one_example(depth):
    t = [0.0, 0.5, 1.0, 4.0]
    W = diagonal.trajectory([[1.0]], [2.0], t, 0.3, depth=depth, signed=False)
    np.testing.assert_allclose(incremental.toy_path(t, 2.0, 0.3, depth), W[:, 0], atol=1e-8)


@DEPTHS
def test_toy_path_inverts_activation_time_also_for_tiny_alpha_and_long_times(depth):
    for alpha, fraction in ((1e-3, 0.4), (0.5, 0.9)):
        time = incremental.activation_time(1.3, alpha, depth, fraction)
        np.testing.assert_allclose(incremental.toy_path([time], 1.3, alpha, depth), fraction * 1.3, rtol=1e-8)
    np.testing.assert_allclose(incremental.toy_path([1e6], 1.3, 0.5, depth), 1.3, rtol=1e-12)


def test_first_layer_alone_forgets_the_target():
    times = [incremental.activation_time(target, 1e-300, 1) for target in (0.1, 1.0, 10.0)]
    np.testing.assert_allclose(times, np.log(2), rtol=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_activation_time_for_small_alpha(depth):
    target, alpha = 0.7, 1e-6 if depth > 2 else 1e-150
    leading = 1 / (depth * (depth - 2) * target * alpha ** (depth - 2)) if depth > 2 else -np.log(alpha) / (2 * target)
    assert incremental.activation_time(target, alpha, depth) == pytest.approx(leading, rel=2e-3)


# ---------------------------------------------------------------- one mode after the other


@pytest.mark.parametrize(
    ("sigma1", "printed"),
    [
        (2.0, ["1.80e-02", "6.27e-02", "8.33e-02"]),
        (1.2, ["2.27e-06", "4.14e-03", "1.08e-02"]),
        (1.05, ["1.03e-20", "1.18e-04", "8.81e-04"]),
    ],
)
def test_depth_separation_has_the_printed_digits(sigma1, printed):
    assert [f"{incremental.depth_separation(sigma1, 1.0, depth):.2e}" for depth in (2, 3, 4)] == printed
    assert incremental.depth_separation(sigma1, 1.0, 1) == 0.0


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_depth_separation_is_where_two_integrated_modes_tie(depth):
    def hits(start):
        times = []
        for sigma, fraction in ((1.4, 0.75), (1.0, 0.25)):
            slowness = lambda q, s=sigma: np.exp(q) / (np.exp(q * (2 - 2 / depth)) * (s - np.exp(q)))  # noqa: E731
            times.append(quad(slowness, np.log(start), np.log(fraction * sigma), epsrel=1e-12)[0])
        return times[0] - times[1]

    expected = brentq(hits, 1e-9, 0.2, xtol=1e-15)
    assert incremental.depth_separation(1.4, 1.0, depth) == pytest.approx(expected, rel=1e-7)


def test_depth_separation_at_depth_two_tends_to_its_formula():
    for sigma1, tolerance in ((1.2, 1e-4), (1.1, 1e-8)):
        formula = ((1 / 3) ** sigma1 * (1 / 3) / sigma1) ** (1 / (sigma1 - 1))
        assert incremental.depth_separation(sigma1, 1.0, 2) == pytest.approx(formula, rel=tolerance)
    assert incremental.depth_separation(1.0001, 1.0, 2) == 0.0  # below the smallest normal number


def test_activation_follows_the_correlation_with_the_residual_not_the_size_of_the_target():
    """Coefficients 3, 2, 1, .5 on Gaussian inputs: the third is learned before the second."""
    g = np.random.default_rng(77)
    X = g.normal(size=(40, 200)) / np.sqrt(40)
    star = np.zeros(200)
    star[:4] = 3, 2, 1, 0.5
    y, log_alpha = X @ star, -100 * np.log(10)
    tau = np.linspace(0, 0.6, 601)
    W = diagonal.trajectory(X, y, -2 * log_alpha * tau, log_alpha=log_alpha)
    times = incremental.crossing_times(tau, W[:, :4], star[:4] / 2)
    assert list(np.argsort(times)) == [0, 2, 1, 3]
    np.testing.assert_allclose(times, [0.11, 0.22, 0.12, 0.445], atol=6e-3)
    predicted = incremental.first_activation_time(X, y, 1e-100) / (-2 * log_alpha)
    assert predicted == pytest.approx(0.105, abs=5e-4)
    assert times.min() == pytest.approx(predicted, rel=0.02)


def test_order_by_size_is_exact_for_orthonormal_columns():
    theta = np.array([0.5, -3.0, 1.0, 2.0])
    t = np.linspace(0, 12, 2001)
    W = diagonal.trajectory(np.eye(4), theta, t, 1e-4)
    times = incremental.crossing_times(t, W, np.abs(theta) / 2)
    expected = [incremental.activation_time(abs(v), 1e-4) for v in theta]
    np.testing.assert_allclose(times, expected, atol=1e-3)
    assert list(np.argsort(times)) == [1, 3, 2, 0]


def test_first_activation_time_has_a_relative_error_of_order_one_over_log_alpha():
    X, y = np.array([[1, 0.5, 2], [0.3, 1, -1]]), np.array([1.4, 0.3])
    for alpha in (1e-10, 1e-100):
        predicted = incremental.first_activation_time(X, y, alpha)
        t = predicted * np.linspace(0.8, 1.3, 1001)
        time = incremental.crossing_times(t, diagonal.trajectory(X, y, t, alpha), [0.25] * 3).min()
        assert abs(time / predicted - 1) < 2 / np.log(1 / alpha)


def test_crossing_times_interpolates_and_reports_what_never_happens():
    t, path = [1.0, 2.0, 4.0], [[5.0, 0.0, 0.0], [5.0, -2.0, 0.1], [5.0, -4.0, 0.2]]
    np.testing.assert_allclose(incremental.crossing_times(t, path, [1.0, 3.0, 1.0]), [1.0, 3.0, np.inf])


# ---------------------------------------------------------------- early stopping


@pytest.mark.parametrize("alpha", [1e-2, 1e-4, 1e-8])
def test_early_stopping_is_hard_thresholding_for_orthonormal_columns(alpha):
    g = np.random.default_rng(3)
    X = np.linalg.qr(g.normal(size=(12, 8)))[0]
    y = g.normal(size=12) * 2
    theta, tau = X.T @ y, 0.6
    w = diagonal.trajectory(X, y, [incremental.thresholding_time(tau, alpha)], alpha)[0]
    small = np.abs(theta) <= tau
    assert 0 < small.sum() < 8
    assert (np.abs(w) <= alpha ** (2 * (1 - np.abs(theta) / tau)) * (1 + 1e-7))[small].all()
    bound = theta**2 * alpha ** (2 * (np.abs(theta) / tau - 1)) + alpha**2
    assert (np.abs(w - theta) <= bound * (1 + 1e-7) + 1e-10)[~small].all()
    late = diagonal.trajectory(X, y, [2 * incremental.thresholding_time(tau, alpha)], alpha)[0]
    assert (np.abs(late) > alpha ** (2 * (1 - np.abs(theta) / tau)))[small].any()  # control: twice the time


@pytest.mark.parametrize("depth", [3, 4])
def test_thresholding_time_at_depth_separates_at_tau(depth):
    theta = np.array([0.5, 0.9, 1.1, 2.0])
    alpha = 1e-3 if depth == 3 else 1e-2
    w = diagonal.trajectory(np.eye(4), theta, [incremental.thresholding_time(1.0, alpha, depth)], alpha, depth=depth)[0]
    assert (np.abs(w[:2]) < 0.01).all()
    np.testing.assert_allclose(w[2:], theta[2:], rtol=0.01)


@pytest.fixture(scope="module")
def noisy():
    g = np.random.default_rng(21)
    X = g.normal(size=(100, 400)) / 10
    star = np.zeros(400)
    star[:5] = 1, -1, 1, -1, 1
    return X, X @ star + 0.5 * g.normal(size=100) / 10, star


def test_reference_estimators_of_the_early_stopping_experiment(noisy):
    X, y, star = noisy
    oracle = np.r_[minnorm.limit(X[:, :5], y), np.zeros(395)]
    errors = [np.linalg.norm(w - star) for w in (oracle, minnorm.limit(X, y), diagonal.basis_pursuit(X, y))]
    assert [f"{errors[0]:.4f}", f"{errors[1]:.3f}", f"{errors[2]:.3f}"] == ["0.1151", "1.917", "0.480"]


@pytest.mark.parametrize(
    ("depth", "alpha", "until", "best", "end"),
    [(2, 1e-1, 12, ".886", ".894"), (2, 1e-3, 12, ".118", ".462"), (2, 1e-6, 24, ".115", ".471"),
     (3, 1e-1, 12, ".146", ".423"), (4, 1e-1, 30, ".116", ".452")],
)  # fmt: skip
def test_early_stopping_beats_interpolation_on_noisy_targets(noisy, depth, alpha, until, best, end):
    X, y, star = noisy
    path = diagonal.trajectory(X, y, np.linspace(0, until, 241), alpha, depth=depth)
    limit = diagonal.limit(X, y, alpha, depth=depth).w
    error = np.linalg.norm(path - star, axis=1).min()
    assert f"{error:.3f}"[1:] == best
    assert f"{np.linalg.norm(limit - star):.3f}"[1:] == end


# ---------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: incremental.activation_time(-1.0, 0.1), ValueError, "target = -1.0"),
        (lambda: incremental.activation_time(1.0, 0.0), ValueError, "alpha = 0.0"),
        (lambda: incremental.activation_time(1.0, 2.0), ValueError, r"alpha = 2: expected alpha\^2 below the target 1"),
        (lambda: incremental.activation_time(1.0, 0.1, 5), ValueError, "depth = 5"),
        (lambda: incremental.activation_time(1.0, 0.1, 2.0), TypeError, "depth = 2.0"),
        (lambda: incremental.activation_time(1.0, 0.9, 2, 0.5), ValueError, "fraction = 0.5"),
        (lambda: incremental.activation_time(1.0, 0.1, 2, 1.0), ValueError, "fraction = 1.0"),
        (lambda: incremental.activation_time("a", 0.1), TypeError, "target"),
        (lambda: incremental.toy_path([-1.0], 1.0, 0.1), ValueError, r"t\[0\] = -1"),
        (lambda: incremental.toy_path([], 1.0, 0.1), ValueError, "t has shape"),
        (lambda: incremental.toy_path([np.nan], 1.0, 0.1), ValueError, "t"),
        (lambda: incremental.depth_separation(1.0, 2.0, 2), ValueError, "sigma1 = 1.0"),
        (lambda: incremental.depth_separation(1.0, 0.0, 2), ValueError, "sigma2 = 0.0"),
        (lambda: incremental.depth_separation(2.0, 1.0, 0), ValueError, "depth = 0"),
        (lambda: incremental.depth_separation(2.0, 1.0, 2, 0.3, 0.4), ValueError, "unlearned = 0.4"),
        (lambda: incremental.first_activation_time([[1.0]], [1.0], 1.0), ValueError, "alpha = 1.0"),
        (lambda: incremental.first_activation_time([[1.0]], [1.0, 2.0], 0.1), ValueError, "y has shape"),
        (lambda: incremental.crossing_times([0.0, 0.0], [[1.0], [2.0]], [1.0]), ValueError, "increasing"),
        (lambda: incremental.crossing_times([0.0, 1.0], [[1.0]], [1.0]), ValueError, "path has shape"),
        (lambda: incremental.crossing_times([0.0], [[1.0]], [0.0]), ValueError, r"level\[0\] = 0"),
        (lambda: incremental.thresholding_time(0.0, 0.1), ValueError, "tau = 0.0"),
        (lambda: incremental.thresholding_time(1.0, 1.5), ValueError, "alpha = 1.5"),
        (lambda: incremental.thresholding_time(1.0, 0.1, 1), ValueError, "depth = 1"),
    ],
    ids=[
        "target negative", "alpha zero", "alpha above target", "depth five", "depth float", "fraction passed",
        "fraction one", "target text", "time negative", "no times", "time nan", "order of targets", "target zero",
        "depth zero", "order of fractions", "alpha one", "short X", "times repeat", "short path", "level zero",
        "tau zero", "alpha large", "depth one",
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_nothing_ever_activates_without_correlation():
    assert incremental.first_activation_time([[1.0], [1.0]], [1.0, -1.0], 0.1) == np.inf


def test_thresholding_time_is_infinite_where_it_overflows():
    assert incremental.thresholding_time(0.5, 0.1, depth=400) == np.inf
    assert incremental.thresholding_time(0.5, 0.1, depth=100) == pytest.approx(1e98 / (100 * 98 * 0.5), rel=1e-12)
