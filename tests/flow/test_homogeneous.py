"""Homogeneous networks: finite differences, laws along flows, optima by vertex enumeration and certificates."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from implicitreg.flow import geometry as geo
from implicitreg.flow import homogeneous as hom
from scipy.integrate import solve_ivp

Z3 = np.array([[1, 0.5, -0.2], [0.4, 1.5, 0.3], [2, -0.3, 1]])
XOR = hom.xor_certificate()


def separable(seed, n, d):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, np.sign(X @ rng.normal(size=d))


def start(net, seed, scale):
    return scale * np.random.default_rng(seed).normal(size=net.size)


NETS = {
    "linear-1": hom.DeepLinear(*separable(1, 9, 3), ()),
    "linear-2": hom.DeepLinear(*separable(1, 9, 3), (4,)),
    "linear-4": hom.DeepLinear(*separable(1, 9, 3), (4, 2, 3)),
    "diagonal-2": hom.Diagonal(*separable(2, 9, 3), 2),
    "diagonal-3": hom.Diagonal(*separable(2, 9, 3), 3),
    "relu": hom.ReLU(*separable(3, 9, 3), 5),
}


@pytest.fixture(scope="module")
def deep():
    """A linear network of three layers, widths 5, 5, 1, followed to log(1/L) of 1e6."""
    X, y = separable(51, 12, 4)
    net = hom.DeepLinear(X, y, (5, 5))
    return net, hom.gradient_flow(net, start(net, 52, 0.3), np.linspace(0, 5, 60))


def after_separation(net, path):
    """The smoothed margins from the moment when L < 1."""
    return np.array([hom.smoothed_margin(net, th) for th in path if hom.log_inverse_loss(net, th) > 0])


# --- the networks


@pytest.mark.parametrize("name", NETS)
def test_pullback_is_the_gradient(name):
    net = NETS[name]
    theta, p = start(net, 7, 1.0), np.random.default_rng(8).dirichlet(np.ones(9))
    h = 1e-6
    difference = [(p @ net.q(theta + h * e) - p @ net.q(theta - h * e)) / (2 * h) for e in np.eye(net.size)]
    np.testing.assert_allclose(net.pullback(theta, p), difference, atol=1e-7)


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_homogeneous_and_obey_eulers_identity(name):
    net = NETS[name]
    theta = start(net, 9, 1.0)
    np.testing.assert_allclose(net.q(1.7 * theta), 1.7**net.degree * net.q(theta), rtol=1e-12)
    J = np.array([net.pullback(theta, e) for e in np.eye(9)])
    np.testing.assert_allclose(J @ theta, net.degree * net.q(theta), rtol=1e-11, atol=1e-12)


def test_linear_and_relu_outputs_by_explicit_loops():
    net, theta = NETS["linear-4"], start(NETS["linear-4"], 3, 1.0)
    W1, W2, W3, W4 = theta[:12].reshape(4, 3), theta[12:20].reshape(2, 4), theta[20:26].reshape(3, 2), theta[26:]
    np.testing.assert_allclose(
        net.q(theta), [y * (W4 @ (W3 @ (W2 @ (W1 @ x)))) for x, y in zip(net.X, net.y, strict=True)]
    )
    net, theta = NETS["relu"], start(NETS["relu"], 3, 1.0)
    W, a = theta[:15].reshape(5, 3), theta[15:]
    loop = [y * sum(a[k] * max(W[k] @ x, 0) for k in range(5)) for x, y in zip(net.X, net.y, strict=True)]
    np.testing.assert_allclose(net.q(theta), loop)


# --- the flow


def test_flow_follows_the_path_of_plain_gradient_flow():
    net = NETS["diagonal-2"]
    theta0 = 0.5 + start(net, 1, 0.1)
    plain = solve_ivp(
        lambda t, th: net.pullback(th, np.exp(-net.q(th))), (0, 30), theta0, rtol=1e-11, atol=1e-12, method="DOP853"
    )
    path = hom.gradient_flow(net, theta0, np.linspace(0, 4, 4001))
    assert np.linalg.norm(path[-1]) > np.linalg.norm(plain.y[:, -1])
    offset = plain.y[:, -1] - path
    j = np.linalg.norm(offset, axis=1).argmin()
    tangent = (path[j + 1] - path[j - 1]) / np.linalg.norm(path[j + 1] - path[j - 1])
    # what a point of the same curve is off the tangent is second order in the spacing of 1e-3 |theta|
    assert np.linalg.norm(offset[j] - tangent * (tangent @ offset[j])) < 1e-5


def test_fixed_steps_agree_with_the_adaptive_method_and_converge_at_order_four():
    net = NETS["linear-2"]
    theta0 = start(net, 4, 0.4)
    exact = hom.gradient_flow(net, theta0, [1.0])[0]
    error = [
        np.linalg.norm(hom.gradient_flow(net, theta0, [1.0], h=h)[0] - exact)
        for h in (0.1, 0.05, 0.025, 0.0125, 0.00625)
    ]
    np.testing.assert_allclose(np.diff(np.log2(error[1:])), -4, atol=0.3)
    assert error[-1] < 1e-7


def test_norm_grows_at_most_exponentially(deep):
    _, path = deep
    growth = np.diff(np.log(np.linalg.norm(path, axis=1))) / (5 / 59)
    assert growth.max() <= 1 + 1e-9
    assert growth[-1] > 0.999


# --- the smoothed margin


def test_smoothed_margin_never_decreases_in_a_deep_linear_network(deep):
    net, path = deep
    assert np.diff(after_separation(net, path)).min() > 0


@pytest.mark.parametrize("name", ["linear-2", "diagonal-2", "diagonal-3"])
def test_smoothed_margin_never_decreases(name):
    net = NETS[name]
    gamma = after_separation(net, hom.gradient_flow(net, 0.3 + start(net, 6, 0.1), np.linspace(0, 3, 80)))
    assert gamma.size > 20
    assert np.diff(gamma).min() > 0


def test_smoothed_margin_never_decreases_in_a_relu_network():
    net = hom.ReLU(XOR.net.X, XOR.net.y, 16)
    path = hom.gradient_flow(net, start(net, 51, 0.5), np.linspace(0, 4, 81))
    gamma = after_separation(net, path)
    assert gamma.size > 40
    assert np.diff(gamma).min() > 0
    assert 0.16 < hom.normalized_margin(net, path[-1]) <= XOR.dual + 1e-12


def test_smoothed_margin_with_the_wrong_degree_decreases(deep):
    net, path = deep
    norms = np.linalg.norm(path, axis=1)
    wrong = np.array([hom.log_inverse_loss(net, th) for th in path]) / norms ** (net.degree + 1)
    assert np.diff(wrong[-20:]).max() < 0


def test_smoothed_margin_can_decrease_before_the_loss_is_below_one():
    net = hom.Diagonal([[1.0], [1.0]], [1, 1], 2)
    path = hom.gradient_flow(net, [0.1, 0.5], np.linspace(0, 0.5, 6))
    gamma = [hom.smoothed_margin(net, th) for th in path]
    assert hom.log_inverse_loss(net, path[-1]) < 0
    assert np.diff(gamma).max() < 0


@pytest.mark.parametrize("name", NETS)
def test_smoothed_margin_brackets_the_margin(name):
    net = NETS[name]
    theta = start(net, 12, 1.0)
    gap = hom.normalized_margin(net, theta) - hom.smoothed_margin(net, theta)
    assert 0 <= gap <= np.log(9) / np.linalg.norm(theta) ** net.degree
    loss = np.exp(-net.q(theta)).sum()
    assert hom.smoothed_margin(net, theta) == pytest.approx(
        -np.log(loss) / np.linalg.norm(theta) ** net.degree, rel=1e-12
    )


# --- conservation and alignment


def test_layers_stay_balanced_to_1e_8(deep):
    net, path = deep
    start_value = hom.layer_imbalance(net.layers(path[0]))
    assert max(np.abs(D).max() for D in start_value) > 0.1  # not balanced: the law conserves the imbalance
    for theta in path[::10]:
        for now, before in zip(hom.layer_imbalance(net.layers(theta)), start_value, strict=True):
            np.testing.assert_allclose(now, before, atol=1e-8)


def test_the_other_gram_matrices_are_not_conserved(deep):
    net, path = deep
    W0, V0 = net.layers(path[0])[:2]
    W, V = net.layers(path[20])[:2]
    assert np.abs((V.T @ V + W @ W.T) - (V0.T @ V0 + W0 @ W0.T)).max() > 1  # the wrong sign
    assert np.abs((V @ V.T - W @ W.T) - (V0 @ V0.T - W0 @ W0.T)).max() > 1e-2  # the wrong transpose


def test_relu_neurons_stay_balanced_away_from_kinks():
    X = np.abs(separable(5, 8, 3)[0])
    net = hom.ReLU(X, np.ones(8), 4)
    theta0 = np.abs(start(net, 5, 0.5))  # every neuron is active on every input: no kink is met
    path = hom.gradient_flow(net, theta0, [0.0, 1.5], h=2e-3)
    before, now = (hom.neuron_imbalance(*net.layers(th)) for th in path)
    np.testing.assert_allclose(now, before, atol=1e-8)
    W, a = net.layers(path[1])
    assert (
        np.abs(
            np.linalg.norm(W, axis=1) - np.abs(a) - (np.linalg.norm(net.layers(theta0)[0], axis=1) - theta0[-4:])
        ).max()
        > 1e-2
    )


def test_relu_neurons_stay_balanced_up_to_the_integrator_at_kinks():
    net = hom.ReLU(XOR.net.X, XOR.net.y, 16)
    drift = []
    for h in (4e-3, 1e-3):
        path = hom.gradient_flow(net, start(net, 51, 0.5), [0.0, 3.0], h=h)
        before, now = (hom.neuron_imbalance(*net.layers(th)) for th in path)
        drift.append(np.abs(now - before).max())
    assert drift[1] < drift[0]
    assert drift[1] < 1e-2 * np.sum(path[1] ** 2) / 100


def test_deep_linear_network_aligns_and_reaches_its_margin(deep):
    net, path = deep
    end = hom.alignment(net.layers(path[-1]))
    assert hom.log_inverse_loss(net, path[-1]) > 1e5
    assert end.rank_ratio.max() < 0.02
    assert end.overlap.min() > 0.99999
    np.testing.assert_allclose(end.norms, end.norms.mean(), rtol=1e-3)
    assert geo.margin(net.X, net.y, net.end_to_end(path[-1])) / geo.margin_direction(net.X, net.y).margin > 0.9999
    best = hom.deep_linear_margin(net.X, net.y, 3)
    assert 0.999 * best < hom.smoothed_margin(net, path[-1]) <= best
    begin = hom.alignment(net.layers(path[0]))
    assert begin.rank_ratio[:2].min() > 0.3
    kkt = [hom.kkt_residual(net, path[j]).stationarity for j in (40, 50, 59)]
    assert kkt[2] < kkt[1] < kkt[0]
    assert kkt[2] < 0.02


def test_largest_margins_of_linear_networks_of_the_reference_problem():
    assert hom.deep_linear_margin(Z3, np.ones(3), 2) == pytest.approx(0.562395607980518, rel=1e-9)
    assert hom.deep_linear_margin(Z3, np.ones(3), 3) == pytest.approx(0.216466170439077, rel=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_balanced_rank_one_layers_attain_the_largest_margin_and_none_exceeds_it(depth):
    net = hom.DeepLinear(Z3, np.ones(3), [2] * (depth - 1))
    unit = geo.margin_direction(Z3, np.ones(3)).w
    vectors = [unit / np.linalg.norm(unit)] + [np.array([0.6, 0.8])] * (depth - 1) + [np.ones(1)]
    theta = np.concatenate([np.outer(after, before).ravel() for before, after in pairwise(vectors)])
    best = hom.deep_linear_margin(Z3, np.ones(3), depth)
    assert hom.normalized_margin(net, theta) == pytest.approx(best, rel=1e-12)
    assert max(hom.normalized_margin(net, start(net, j, 1.0)) for j in range(500)) < best
    residual = hom.kkt_residual(net, theta)
    assert residual.stationarity < 1e-7
    assert residual.slackness < 1e-7


# --- diagonal networks


def best_quasi_norm_margin(Z, p):
    """1 / min |w|_p over Zw >= 1 for p <= 1: concave on each orthant, so the minimum is at a vertex."""
    n, d = Z.shape
    A, b = np.vstack([Z, np.eye(d)]), np.r_[np.ones(n), np.zeros(d)]
    sizes = []
    for S in map(list, combinations(range(n + d), d)):
        w = np.linalg.solve(A[S], b[S]) if abs(np.linalg.det(A[S])) > 1e-12 else np.zeros(d)
        if (Z @ w).min() >= 1 - 1e-9:
            sizes.append((np.abs(w) ** p).sum() ** (1 / p))
    return 1 / min(sizes)


@pytest.mark.parametrize(("alpha", "tau"), [(0.1, 8.0), (1.0, 4.5), (5.0, 4.0)], ids=["0.1", "1", "5"])
def test_diagonal_network_reaches_the_l1_margin_from_any_scale(alpha, tau):
    X, y = separable(2, 6, 5)
    net = hom.Diagonal(X, y, 2)
    path = hom.gradient_flow(net, np.full(net.size, alpha), [0.0, tau])
    w, best = net.end_to_end(path[1]), geo.margin_direction(X, y, 1).margin
    assert best == pytest.approx(best_quasi_norm_margin(y[:, None] * X, 1), rel=1e-9)
    assert geo.margin(X, y, w, 1) / best > 0.99
    assert geo.margin(X, y, w, 2) / geo.margin_direction(X, y, 2).margin < 0.95  # not the l2 margin
    assert hom.normalized_margin(net, path[1]) <= best * (1 + 1e-12)


def test_diagonal_network_of_large_scale_is_still_in_l2_early():
    X, y = separable(2, 6, 5)
    net = hom.Diagonal(X, y, 2)
    ratios = []
    for tau in (0.5, 4.0):
        w = net.end_to_end(hom.gradient_flow(net, np.full(net.size, 5.0), [tau])[0])
        ratios.append([geo.margin(X, y, w, p) / geo.margin_direction(X, y, p).margin for p in (1, 2)])
    assert ratios[0][1] > ratios[0][0]
    assert ratios[1][0] > ratios[1][1]


def test_product_of_the_two_halves_is_conserved_in_a_diagonal_network():
    net = NETS["diagonal-2"]
    theta0 = 0.5 + start(net, 1, 0.1)
    u, v = np.split(hom.gradient_flow(net, theta0, [1.5])[0], 2)
    np.testing.assert_allclose(u * v, theta0[:3] * theta0[3:], atol=1e-8)


def test_deep_diagonal_network_can_end_at_a_kkt_point_that_is_not_the_largest_margin():
    X, y = separable(6, 8, 4)
    best = best_quasi_norm_margin(y[:, None] * X, 2 / 3)
    net = hom.Diagonal(X, y, 3)
    small, large = (hom.gradient_flow(net, np.full(net.size, a), [tau])[0] for a, tau in ((0.1, 5.0), (1.0, 4.0)))
    residual = hom.kkt_residual(net, small)
    assert residual.stationarity < 0.03
    assert residual.slackness < 1e-3
    assert hom.normalized_margin(net, small) < 0.85 * best
    assert hom.normalized_margin(net, small) < hom.normalized_margin(net, large) <= best * (1 + 1e-9)


def test_kkt_residual_is_large_at_a_direction_that_classifies_but_is_not_stationary():
    X, y = separable(6, 8, 4)
    net = hom.Diagonal(X, y, 3)
    v = np.array([1.0, -1.0, 2.0, 1.0]) / np.sqrt(7)
    svm = geo.margin_direction(X, y, 2).w
    residuals = []
    for c in (0.0, 0.1, 1.0):  # away from a vertex of {Zw >= 1}, where four constraints are active
        w = svm + c * np.linalg.norm(svm) * v
        residuals.append(hom.kkt_residual(net, np.cbrt(np.r_[np.maximum(w, 0), np.maximum(-w, 0)])))
    stationarity = [r.stationarity for r in residuals]
    assert stationarity[0] < stationarity[1] < stationarity[2]
    assert min(stationarity[2], residuals[2].slackness) > 0.1


# --- XOR


def test_xor_certificate_is_root_two_over_eight():
    assert f"{XOR.primal:.7f}" == f"{XOR.dual:.7f}" == "0.1767767"
    assert XOR.primal == pytest.approx(2**0.5 / 8, rel=1e-14)
    assert XOR.dual == pytest.approx(2**0.5 / 8, rel=1e-14)
    residual = hom.kkt_residual(XOR.net, XOR.theta)
    assert residual.stationarity < 1e-14
    assert residual.slackness < 1e-14


@pytest.mark.parametrize("seed", range(5))
def test_relu_margin_bound_is_the_maximum_over_angles(seed):
    rng = np.random.default_rng(seed)
    X, y, p = rng.normal(size=(6, 2)), rng.choice([-1.0, 1.0], size=6), rng.dirichlet(np.ones(6))
    angle = np.linspace(0, 2 * np.pi, 200_001)
    grid = np.abs((p * y) @ np.maximum(X @ np.array([np.cos(angle), np.sin(angle)]), 0)).max() / 2
    assert 0 <= hom.relu_margin_bound(X, y, p) - grid + 1e-14 < 1e-4


def test_no_network_exceeds_the_bound_and_other_weights_bound_less_tightly():
    net = hom.ReLU(XOR.net.X, XOR.net.y, 8)
    assert max(hom.normalized_margin(net, start(net, j, 1.0)) for j in range(1000)) < XOR.dual
    assert hom.relu_margin_bound(XOR.net.X, XOR.net.y, [0.4, 0.2, 0.2, 0.2]) > XOR.dual + 1e-3


def test_relu_network_on_xor_approaches_the_certificate():
    net = hom.ReLU(XOR.net.X, XOR.net.y, 16)
    end = hom.gradient_flow(net, start(net, 51, 0.5), [5.0])[0]
    assert 0.995 * XOR.dual < hom.normalized_margin(net, end) <= XOR.dual + 1e-12


# --- bad input

LINEAR = NETS["linear-2"]
GOOD = start(LINEAR, 0, 1.0)
CLASH = hom.DeepLinear([[1.0, 0.0], [1.0, 0.0]], [1, -1], (3,))
FAR = hom.DeepLinear([[2.0, 1.0], [1.0, -1.0], [-1.0, -2.0]], [1, 1, -1], (3,))
EYE = np.eye(2)
BAD = {
    "labels": (lambda: hom.DeepLinear([[1.0]], [2], (1,)), ValueError, "y"),
    "nan": (lambda: hom.ReLU([[np.nan]], [1], 1), ValueError, "X"),
    "text": (lambda: hom.Diagonal([["a"]], [1], 2), TypeError, "X"),
    "width zero": (lambda: hom.DeepLinear([[1.0]], [1], (0,)), ValueError, r"hidden\[0\] = 0"),
    "widths a number": (lambda: hom.DeepLinear([[1.0]], [1], 3), ValueError, "hidden = 3"),
    "no neuron": (lambda: hom.ReLU([[1.0]], [1], 0), ValueError, "width = 0"),
    "depth zero": (lambda: hom.Diagonal([[1.0]], [1], 0), ValueError, "depth = 0"),
    "depth not an integer": (lambda: hom.deep_linear_margin([[1.0]], [1], 2.5), TypeError, "depth"),
    "not separable": (lambda: hom.deep_linear_margin([[1.0], [1.0]], [1, -1], 2), ValueError, "separable"),
    "theta of another size": (lambda: hom.smoothed_margin(LINEAR, GOOD[:-1]), ValueError, "theta"),
    "theta zero": (lambda: hom.normalized_margin(LINEAR, 0 * GOOD), ValueError, "theta is zero"),
    "theta infinite": (lambda: hom.log_inverse_loss(LINEAR, np.inf * GOOD), ValueError, "theta"),
    "negative time": (lambda: hom.gradient_flow(LINEAR, GOOD, [-1.0]), ValueError, "tau"),
    "step zero": (lambda: hom.gradient_flow(LINEAR, GOOD, [1.0], h=0), ValueError, "h = 0"),
    "critical point": (
        lambda: hom.gradient_flow(NETS["linear-4"], np.eye(NETS["linear-4"].size)[0], [1.0]),
        ValueError,
        "theta0",
    ),
    "beyond float64": (lambda: hom.gradient_flow(hom.Diagonal([[1.0]], [1]), [1.0, 0.1], [50.0]), ValueError, "tau"),
    "past what can be followed": (
        lambda: hom.gradient_flow(FAR, 0.5 * np.random.default_rng(0).normal(size=9), [1.0, 6.5]),
        ArithmeticError,
        r"tau\[1\] = 6.5: the path cannot be followed beyond 6.*too small",
    ),
    "a path into a minimum": (
        lambda: hom.gradient_flow(CLASH, start(CLASH, 0, 0.5), [1.0, 2.0]),
        hom.NotSeparable,
        "not linearly separable",
    ),
    "no layers": (lambda: hom.layer_imbalance([]), ValueError, "layers"),
    "layers that do not fit": (lambda: hom.alignment([EYE, np.ones((1, 3))]), ValueError, r"layers\[1\]"),
    "a zero layer": (lambda: hom.alignment([EYE, 0 * EYE]), ValueError, r"layers\[1\] is zero"),
    "outgoing weights": (lambda: hom.neuron_imbalance(EYE, [1.0]), ValueError, "a"),
    "misclassified": (lambda: hom.kkt_residual(hom.Diagonal([[1.0]], [1]), [0.0, 1.0]), ValueError, "min_i q_i = -1"),
    "three dimensions": (lambda: hom.relu_margin_bound(Z3, np.ones(3), [0.5, 0.5, 0]), ValueError, "X"),
    "weights do not sum to one": (lambda: hom.relu_margin_bound(EYE, [1, 1], [0.5, 0.4]), ValueError, "p"),
    "negative weight": (lambda: hom.relu_margin_bound(EYE, [1, 1], [1.5, -0.5]), ValueError, "p"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    call, error, match = BAD[case]
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("h", [None, 0.1], ids=["adaptive", "Runge-Kutta"])
def test_times_of_the_flow_may_stand_in_any_order(h):
    net = hom.Diagonal([[1.0, 0.5], [0.2, 1.0]], [1, 1])
    forwards = hom.gradient_flow(net, [1.0, 1.0, 0.5, 0.5], [0.0, 0.2, 0.4], h)
    again = hom.gradient_flow(net, [1.0, 1.0, 0.5, 0.5], tau=[0.4, 0.0, 0.2, 0.4], h=h)
    np.testing.assert_array_equal(again, forwards[[2, 0, 1, 2]])


def test_a_relu_is_off_where_rounding_cannot_tell_its_input_from_zero():
    """w = (0.1, 0.2, -0.3) on x = (1, 1, 1): the sum is zero, computed it is 6e-17 or 0 by the order of the terms."""
    w = np.array([0.1, 0.2, -0.3])
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1]):
        net = hom.ReLU(np.ones((1, 3)), [1], 1)
        np.testing.assert_array_equal(net.pullback(np.r_[w[order], 1.0], np.ones(1))[:3], np.zeros(3))
    on = hom.ReLU(np.ones((1, 3)), [1], 1).pullback(np.array([0.1, 0.2, -0.3 + 1e-14, 1.0]), np.ones(1))
    np.testing.assert_array_equal(on[:3], np.ones(3))  # control: 1e-14 is more than rounding


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_kkt_residuals_have_no_units(unit):
    """At a direction that is not stationary, where the multipliers weigh two violations against each other."""
    Z, theta = np.array([[1.0, 0.2, 0.3], [0.5, 1.0, 0.1]]), np.array([1.0, 0.5, 0.8, 0.2, 0.1, 0.3])
    kkt = hom.kkt_residual(hom.Diagonal(Z, [1, 1], 3), theta)
    other = hom.kkt_residual(hom.Diagonal(unit * Z, [1, 1], 3), theta)
    assert kkt.stationarity > 0.1
    assert (other.stationarity, other.slackness) == pytest.approx((kkt.stationarity, kkt.slackness), rel=1e-9)
