"""The chapter on tails and geometries: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import contextlib
import io
import re

import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.flow import geometry, maxmargin
from scipy.integrate import solve_ivp
from scipy.optimize import linprog, minimize
from scipy.special import log_expit, logsumexp, softmax

INF = np.inf
Z = np.array([[1.0, 0.5, 0], [0.4, 1.5, 0.2], [2, 2, -1], [3, 0.1, 1.5]])
ONE = np.ones(len(Z))
rng = np.random.default_rng(2)
X = rng.normal(size=(6, 5))
Y = np.sign(X @ rng.normal(size=5))
DUAL = {1: INF, 2: 2, INF: 1}


def unit(w, p=2):
    return w / np.linalg.norm(w, p)


def late_flow(log_slope, Z, s, w0=None):
    """Gradient flow at t = e^s - 1, in plain coordinates."""
    start = np.zeros(Z.shape[1]) if w0 is None else np.asarray(w0)
    return solve_ivp(lambda s, w: np.exp(s + log_slope(Z @ w)) @ Z, (0, s), start, method="LSODA", rtol=1e-9,
                     atol=1e-9).y[:, -1]  # fmt: skip


# --- tails


def soft(u):
    return np.logaddexp(0, u)


def log_soft(u):
    return np.where(u > 30, -u, np.log(soft(-np.minimum(u, 30))))


EXPONENTIAL = {
    "exp": lambda u: -u,
    "logistic": lambda u: log_expit(-u),
    "square of logistic": lambda u: np.log(2) + log_soft(u) + log_expit(-u),
    "two scales": lambda u: np.logaddexp(-u, np.log(3) - 3 * u),
    "power times exp": lambda u: -u + np.log1p(soft(u) - np.exp(log_expit(u))),
}


def largest_margin_by_slsqp(Z):
    """The direction of largest margin, from a general optimizer."""
    fit = minimize(lambda w: w @ w / 2, np.ones(Z.shape[1]), jac=lambda w: w, method="SLSQP",
                   constraints={"type": "ineq", "fun": lambda w: Z @ w - 1, "jac": lambda w: Z},
                   options={"ftol": 1e-14})  # fmt: skip
    return unit(fit.x)


@pytest.mark.parametrize("loss", EXPONENTIAL)
def test_exponential_tails_share_one_limit(loss):
    best = largest_margin_by_slsqp(Z)
    np.testing.assert_allclose(best, unit(maxmargin.hard_margin(Z, ONE).w), atol=1e-6)
    s = np.array([80.0, 160.0, 320.0, 640.0])
    error = [np.linalg.norm(unit(late_flow(EXPONENTIAL[loss], Z, t)) - best) for t in s]
    # like 1 / log t; the loss that is u exp(-u) has a log log t in it, hence the wider slope
    assert np.all((np.diff(np.log(error)) / np.log(2) > -1.3) & (np.diff(np.log(error)) / np.log(2) < -0.8))
    assert error[-1] < 5e-3
    far = late_flow(EXPONENTIAL[loss], Z, 640.0, w0=[-2.0, 1.0, 3.0])
    assert np.linalg.norm(unit(far) - best) < 2e-2


@pytest.mark.parametrize("loss", ["exp", "square of logistic", "power times exp"])
def test_relative_slope_of_an_exponential_tail_tends_to_a_constant(loss):
    """The hypothesis of the theorem, from the slope alone: log(-loss') has the same relative rate as the loss."""
    u = np.array([50.0, 100.0, 200.0])
    rate = (EXPONENTIAL[loss](u) - EXPONENTIAL[loss](u + 1e-3)) / 1e-3
    a = 2.0 if loss == "square of logistic" else 1.0
    assert np.abs(rate - a).max() < 0.025
    assert np.all(np.diff(np.abs(rate - a)) <= 1e-6)


def test_bounded_loss_can_give_up_an_example():
    pair = np.array([[1.0, 0.0], [-2.0, 1.0]])
    margins = [pair @ late_flow(lambda u: log_expit(u) + log_expit(-u), pair, s, w0=[10.0, 0.0]) for s in (50, 600)]
    assert margins[1][0] > margins[0][0] > 10
    assert margins[1][1] < margins[0][1] < -20
    best = maxmargin.hard_margin(pair, np.ones(2))
    assert best.margin > 0.1  # separable all the same
    fine = late_flow(lambda u: -soft(u), pair, 600, w0=[10.0, 0.0])  # logistic, unbounded: not trapped
    assert np.linalg.norm(unit(fine) - unit(best.w)) < 0.05


def path_direction(log_loss, B):
    """Direction of the minimiser of the loss on the sphere of radius B in R³, from several starts."""

    def value(v):
        return logsumexp(log_loss(B * np.maximum(Z @ unit(v), 1e-9)))

    starts = (np.array([0.86, 0.51, 0.01]), np.array([0.75, 0.65, 0.09]))
    fits = [minimize(value, v, method="Nelder-Mead", options={"xatol": 1e-11, "fatol": 1e-16, "maxiter": 4000})
            for v in starts]  # fmt: skip
    return unit(min(fits, key=lambda f: f.fun).x)


PATHS = {
    "root of u": (lambda u: -np.sqrt(u), 1e8, lambda: largest_margin_by_slsqp(Z), 1e-3),
    "exp": (lambda u: -u, 1e6, lambda: largest_margin_by_slsqp(Z), 1e-4),
    "1/u": (lambda u: -np.log1p(u), 1e6, lambda: geometry.polynomial_direction(Z, ONE, 1), 1e-4),
    "1/u² log": (lambda u: -2 * np.log1p(u) + np.log(np.log(3 + u)), 1e12,
                 lambda: geometry.polynomial_direction(Z, ONE, 2), 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("tail", PATHS)
def test_regularization_path_in_space(tail):
    log_loss, B, predicted, tolerance = PATHS[tail]
    check("ours-2.7-path", measured=path_direction(log_loss, B), predicted=predicted(), atol=tolerance)


def power_slope(k):
    return lambda u: np.log(k) - (k + 1) * np.log1p(np.maximum(u, 0))


def power_sum(u, k):
    return ((Z @ u) ** -k).sum()


def predicted_tail(k, factor=lambda k: k * (k + 2)):
    u = geometry.polynomial_direction(Z, ONE, k)
    return (factor(k) * power_sum(u, k)) ** (1 / (k + 2)) * u


@pytest.mark.parametrize("k", [0.5, 1, 3])
def test_polynomial_tail_has_its_direction_length_and_rate(k):
    s = (k + 2) * np.array([6.0, 8.0, 10.0, 12.0])
    w0 = np.array([1.0, -2.0, 0.5])
    rest = [late_flow(power_slope(k), Z, t, w0) - np.exp(t / (k + 2)) * predicted_tail(k) for t in s]
    # O(log t) with a bounded constant: the remainder per unit of s does not grow
    size = np.linalg.norm(rest, axis=1) / s
    assert size.max() < 2 * size[0] + 0.1
    u = unit(minimize(lambda v: power_sum(unit(v), k) if (Z @ v > 0).all() else 1e9, [0.8, 0.6, 0.1],
                      method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14}).x)  # fmt: skip
    np.testing.assert_allclose(unit(predicted_tail(k)), u, atol=1e-6)


def crowd(N):
    return np.vstack([np.tile([1.0, 0.0], (N, 1)), [[0.0, 1.0]]])


def crowd_margin(N, k):
    return geometry.margin(crowd(N), np.ones(N + 1), late_flow(power_slope(k), crowd(N), 20.0 * (k + 2)))


@pytest.mark.parametrize(("N", "k"), [(10, 1), (1000, 1), (100, 4)])
def test_margin_of_a_crowd(N, k):
    check("ours-2.7-imbalance", measured=crowd_margin(N, k), predicted=(1 + N ** (2 / (k + 2))) ** -0.5, rtol=1e-6)


@pytest.mark.parametrize("k", [0.5, 2, 10])
def test_margin_is_at_least_its_share(k):
    for seed in range(5):
        g = np.random.default_rng(seed)
        A = g.normal(size=(12, 4))
        t = np.sign(A @ g.normal(size=4))
        share = geometry.margin(A, t, geometry.polynomial_direction(A, t, k)) / maxmargin.hard_margin(A, t).margin
        assert 12 ** (-1 / k) <= share < 1


# --- norms


def linear_program_margin(p):
    """The largest margin in l1 or l-infinity as the least norm with Zw >= 1, w = a - b."""
    A, (n, d) = Y[:, None] * X, X.shape
    if p == 1:
        return 1 / linprog(np.ones(2 * d), -np.hstack([A, -A]), -np.ones(n)).fun
    box = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
    rows = np.vstack([np.hstack([-A, np.zeros((n, 1))]), box])
    return 1 / linprog(np.eye(d + 1)[d], rows, np.r_[-np.ones(n), np.zeros(2 * d)], bounds=[(None, None)] * (d + 1)).fun


def best_margin(p):
    return linear_program_margin(p) if p != 2 else geometry.margin(X, Y, largest_margin_by_slsqp(Y[:, None] * X))


def own_step(g, p):
    """A unit step of steepest ascent, written out."""
    if p == 1:
        return np.sign(g) * (np.arange(g.size) == np.abs(g).argmax())
    return np.sign(g) if p == INF else unit(g)


def descend(p, eta, scaled, direction=None):
    A, w = Y[:, None] * X, np.zeros(5)
    for step in eta:
        g = softmax(-A @ w) @ A
        w = w + step * (np.linalg.norm(g, DUAL[p]) if scaled else 1) * own_step(g, direction or p)
    return w


def radius(p):
    return np.linalg.norm(X, DUAL[p], axis=1).max()


@pytest.mark.parametrize("p", [1, 2, INF])
def test_steepest_descent_obeys_both_bounds(p):
    k, R, best = 10_000, radius(p), best_margin(p)
    assert best == pytest.approx(geometry.margin_direction(X, Y, p).margin, rel=1e-6)
    eta = 2 / R**2 / np.sqrt(np.arange(1, k + 1))
    bound = (R**3 * (eta**2).sum() / 2 + np.log(6) / best) / eta.sum()
    w = descend(p, eta, scaled=True)
    np.testing.assert_allclose(geometry.steepest_descent(X, Y, p, eta, k), w, atol=1e-9)
    assert -1e-9 < best - geometry.margin(X, Y, w, p) <= bound < best
    eta = np.sqrt(np.log(6)) / R / np.sqrt(np.arange(1, k + 1))
    bound = (R**2 * (eta**2).sum() / 2 + np.log(6)) / eta.sum()
    assert -1e-9 < best - geometry.margin(X, Y, descend(p, eta, scaled=False), p) <= bound < best


def test_steepest_flow_in_l3_obeys_its_bound():
    A = Y[:, None] * X
    best = geometry.margin_direction(X, Y, 3.0).margin

    def velocity(s, w):  # time log(1 + t)
        return geometry.steepest_step(np.exp(s - A @ w) @ A, 3.0)

    for s in (3.0, 8.0, 20.0):
        w = solve_ivp(velocity, (0, s), np.zeros(5), method="LSODA", rtol=1e-9, atol=1e-10).y[:, -1]
        log_L = logsumexp(-A @ w)
        assert log_L < 0
        assert best * -log_L / (np.log(6) - log_L) <= geometry.margin(X, Y, w, 3.0) <= best


@pytest.mark.parametrize("p", [1, 2, INF])
def test_margin_is_a_distance_in_the_dual_norm(p):
    w = geometry.margin_direction(X, Y, 2).w
    g = np.random.default_rng(0)
    for x in X:
        delta = g.normal(size=(20_000, 5))
        delta *= (-(x @ w) / (delta @ w))[:, None]  # onto the hyperplane
        assert np.linalg.norm(delta, DUAL[p], axis=1).min() >= abs(x @ w) / np.linalg.norm(w, p) * (1 - 1e-12)
        touch = {1: np.sign(w), 2: unit(w), INF: np.sign(w) * (np.abs(w) == np.abs(w).max())}[p]
        touch = -touch * (x @ w) / (touch @ w)
        assert np.linalg.norm(touch, DUAL[p]) == pytest.approx(abs(x @ w) / np.linalg.norm(w, p), rel=1e-12)


def adam(k, betas=(0.0, 0.0), eps=1e-300):
    import torch

    A, w = torch.tensor(Y[:, None] * X), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1, betas=betas, eps=eps)
    for _ in range(k):
        optimizer.zero_grad()
        torch.exp(-(A @ w)).sum().backward()
        optimizer.step()
    return w.detach().numpy()


def test_adam_without_memory_is_sign_descent():
    check("ours-7.4-adam", measured=adam(60), predicted=descend(INF, np.full(60, 0.1), scaled=False), atol=1e-12)
    assert np.abs(adam(60, betas=(0.9, 0.999)) - adam(60)).max() > 0.1


def test_constant_steps_of_sign_descent_miss_the_largest_margin():
    """The part of the theorem that asks for decaying steps: with steps of 1 nothing moves after a thousand."""
    best = best_margin(INF)
    stuck = [geometry.margin(X, Y, descend(INF, np.ones(k), scaled=False), INF) for k in (1_000, 20_000)]
    assert max(stuck) < 0.8 * best
    assert abs(stuck[1] - stuck[0]) < 1e-3 * best
    decaying = 0.3 / np.sqrt(np.arange(1, 20_001))
    assert geometry.margin(X, Y, descend(INF, decaying, scaled=False), INF) > 0.98 * best


def coordinate_descent(eta, steps=400):
    A, b, w = np.array([[1, 0, 0.7], [0, 1, 0.7]]), np.array([1, 0.5]), np.zeros(3)
    chosen = set()
    for _ in range(steps):
        g = A.T @ (b - A @ w)
        j = int(np.abs(g).argmax())
        if abs(g[j]) > 1e-14:
            chosen.add(j)
        w[j] += eta * g[j]
    assert np.abs(A @ w - b).max() < 1e-12
    return w, chosen


def test_squared_loss_remembers_the_step():
    w, chosen = coordinate_descent(0.5)
    check("ours-7.3-squared", measured=w, predicted=[0.5, 0, 5 / 7], atol=1e-12)
    assert chosen == {0, 2}
    A = np.array([[1, 0, 0.7], [0, 1, 0.7]])
    least = linprog(np.ones(6), A_eq=np.hstack([A, -A]), b_eq=[1, 0.5]).x
    np.testing.assert_allclose(least[:3] - least[3:], w, atol=1e-9)
    other, chosen = coordinate_descent(1.2)
    assert chosen == {0, 1, 2}
    assert abs(other[1]) > 0.4


# --- mirrors

M_RNG = np.random.default_rng(4)
A7 = M_RNG.normal(size=(3, 7))
B7, W7 = A7 @ M_RNG.uniform(0.5, 1.5, size=7), M_RNG.uniform(0.5, 1.0, size=7)
POTENTIALS = {
    "quadratic": (geometry.quadratic(), lambda w: w**2 / 2),
    "entropy": (geometry.entropy(), lambda w: w * np.log(w) - w),
    "quartic": (geometry.power(4.0), lambda w: w**4 / 4),
    "hypentropy": (geometry.hypentropy(0.5), lambda w: w * np.arcsinh(w / 0.5) - np.sqrt(w**2 + 0.25)),
}


def nearest(name, start=W7):
    """The interpolator of least divergence, by a general optimizer on the kernel of A7."""
    potential, psi = POTENTIALS[name]
    base, K = np.linalg.pinv(A7) @ B7, np.linalg.svd(A7)[2][3:].T
    ones = np.linalg.lstsq(K, geometry.mirror_limit(A7, B7, geometry.entropy(), W7) - base, rcond=None)[0]

    def divergence(c):
        w = base + K @ c
        if name == "entropy" and (w <= 0).any():
            return 1e9
        return (psi(w) - potential.link(start) * w).sum()

    def slope(c):
        w = base + K @ c
        return K.T @ (potential.link(np.maximum(w, 1e-9) if name == "entropy" else w) - potential.link(start))

    return base + K @ minimize(divergence, ones, jac=slope, method="BFGS", options={"gtol": 1e-10}).x


def mirror_descent(potential, eta, k):
    theta = potential.link(W7)
    for _ in range(k):
        theta = theta + eta * A7.T @ (B7 - A7 @ potential.inverse_link(theta))
    return potential.inverse_link(theta)


@pytest.mark.parametrize("name", POTENTIALS)
def test_mirror_descent_ends_nearest_in_divergence(name):
    eta = 0.01 if name == "quartic" else 0.03
    w = mirror_descent(POTENTIALS[name][0], eta, 8000)
    check("ours-7.1-mirror", measured=w, predicted=nearest(name), atol=1e-6)
    np.testing.assert_allclose(w, geometry.mirror_limit(A7, B7, POTENTIALS[name][0], W7), atol=1e-9)


def test_mirror_descent_converges_below_two_over_M_s2():
    """h = arcsinh has slope at most M = 1; 0.98 of the edge does, 1.02 in the quadratic case does not."""
    edge = 2 / np.linalg.norm(A7, 2) ** 2
    cosh = geometry.Potential(np.sinh, np.arcsinh, lambda theta: 1 / np.sqrt(1 + theta**2))
    np.testing.assert_allclose(A7 @ mirror_descent(cosh, 0.98 * edge, 8000), B7, atol=1e-8)
    np.testing.assert_allclose(A7 @ mirror_descent(geometry.quadratic(), 0.98 * edge, 8000), B7, atol=1e-8)
    assert np.abs(mirror_descent(geometry.quadratic(), 1.02 * edge, 2000)).max() > 1e6


A3, B3 = np.array([[1, 0.5, 2], [0.3, 1, -1]]), np.array([1.4, 0.3])


def network(alpha, t):
    """The signed network from u = v = alpha, at time t."""

    def velocity(_, uv):
        pull = 2 * A3.T @ (B3 - A3 @ (uv[:3] ** 2 - uv[3:] ** 2))
        return np.r_[uv[:3] * pull, -uv[3:] * pull]

    uv = solve_ivp(velocity, (0, t), np.full(6, alpha), method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    return uv[:3] ** 2 - uv[3:] ** 2


def mirror_flow(potential, w0, t):
    theta = solve_ivp(lambda _, th: A3.T @ (B3 - A3 @ potential.inverse_link(th)), (0, t), potential.link(w0),
                      method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]  # fmt: skip
    return potential.inverse_link(theta)


@pytest.mark.parametrize("t", [0.1, 0.5, 3.0])
def test_networks_are_mirror_flows_at_all_times(t):
    signed = mirror_flow(geometry.hypentropy(0.3), np.zeros(3), 4 * t)
    check("ours-7.1-network", measured=network(0.3, t), predicted=signed, atol=1e-9)
    u0 = np.array([0.2, 0.4, 0.3])
    u = solve_ivp(lambda _, u: 2 * u * (A3.T @ (B3 - A3 @ u**2)), (0, t), u0, method="DOP853", rtol=1e-11,
                  atol=1e-13).y[:, -1]  # fmt: skip
    check("ours-7.1-network", measured=u**2, predicted=mirror_flow(geometry.entropy(), u0**2, 4 * t), atol=1e-9)


# --- the reader's own data


def cell(words):
    (source,) = [c.source for c in nbformat.read(runbook.BOOK / "1-flow" / "03_geometries.ipynb", 4).cells
                 if c.cell_type == "code" and words in c.source]  # fmt: skip
    return source


def own(**changes):
    """What the cell of "Try your own" prints, some of its lines changed: the words of each line, then the rest."""
    source = cell("X_own = ")
    for name, value in changes.items():
        source, n = re.subn(rf"(?m)^{name} = .*$", lambda m, n=name, v=value: f"{n} = {v}", source)
        assert n == 1, name
    space = {"np": np, "geometry": geometry, "maxmargin": maxmargin, "inf": INF, "unit": unit}
    for words in ("def shares(", "def run_adam("):
        exec(cell(words), space)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(source, space | {"data": changes.get("data")})
    return dict(line.split(maxsplit=1) for line in out.getvalue().splitlines())


def vector(text):
    return np.array(text.strip("[]").split(), float)


@pytest.mark.parametrize("k", [0.5, 2.0, 20.0])
def test_try_your_own_flow_and_limit_agree(k):
    for rows, labels in (
        ("np.array([[1.0, 0.2], [0.3, -1.0], [1.0, 0.5]])", "np.array([1.0, -1.0, 1.0])"),
        ("np.array([[30.0, 0.2, 1.0], [20.0, -1.0, 2.0], [-10.0, 0.5, -1.0]])", "np.array([1.0, 1.0, -1.0])"),
    ):
        out = own(X_own=rows, y_own=labels, k_own=k)
        assert np.abs(vector(out["flow"]) - vector(out["limit"])).max() < 5e-6


def test_try_your_own_copies_pull():
    base = "[[1.0, 0.2], [0.3, -1.0], [1.0, 0.5]]"
    rows, labels = "np.array({} + {} * [[1.0, 0.2]])", "np.array([1.0, -1.0, 1.0] + {} * [1.0])"
    plain, copied = (own(X_own=rows.format(base, n), y_own=labels.format(n)) for n in (0, 200))
    pull = unit(np.array([1.0, 0.2]))
    assert vector(copied["limit"]) @ pull > vector(plain["limit"]) @ pull + 0.01
    np.testing.assert_allclose(vector(copied["margin"]), vector(plain["margin"]), atol=1e-6)


def test_try_your_own_not_separable():
    with pytest.raises(ValueError, match="separable"):
        own(X_own="np.array([[1.0, 0.2], [1.0, 0.3], [-1.0, 0.4]])", y_own="np.array([1.0, -1.0, 1.0])")


def test_try_your_own_raw_columns_are_to_be_scaled():
    """The cancer data as they come: columns of the sizes 1e-3 to 1e3."""
    raw = "np.c_[__import__('sklearn.datasets').datasets.load_breast_cancer().data, np.ones(569)]"
    labels = "2.0 * __import__('sklearn.datasets').datasets.load_breast_cancer().target - 1"
    with pytest.raises((ArithmeticError, ValueError), match=r"scale|separable"):
        own(X_own=raw, y_own=labels)


def test_try_your_own_adam_wanders():
    source = cell("X_own = ")
    line = next(line for line in source.splitlines() if "Adam" in line)
    space = {"np": np, "geometry": geometry, "inf": INF}
    for words in ("def shares(", "def run_adam("):
        exec(cell(words), space)
    seen = []
    for old, new in (("500", "500"), ("500", "50"), ("(0.5, 0.9)", "(0.9, 0.999)"), ("lr=0.3", "lr=0.05")):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(line.replace(old, new), space)
        seen.append(float(re.search(r"inf: ([\d.]+)", out.getvalue())[1]))
    assert np.ptp(seen) > 0.05


# --- controls


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


CONTROLS = {
    # read of exponential tails: the limit differs, say, with the direction of the polynomial tail k = 1
    "hegde-2.7": lambda: pair(unit(late_flow(EXPONENTIAL["logistic"], Z, 640.0)),
                              geometry.polynomial_direction(Z, ONE, 1)),
    # k - 1 in place of k
    "ours-2.7-path": lambda: pair(path_direction(PATHS["1/u² log"][0], 1e12),
                                  geometry.polynomial_direction(Z, ONE, 1)),
    # the length with k² in place of k (k + 2)
    "ours-2.7-polynomial": lambda: pair(
        late_flow(power_slope(1), Z, 45.0) / np.exp(15.0), predicted_tail(1, lambda k: k**2)),
    # the exponent 1/(k + 2) without its 2
    "ours-2.7-imbalance": lambda: pair(crowd_margin(100, 4), (1 + 100 ** (1 / 6)) ** -0.5),
    # the step of the dual norm: l-infinity's direction for l1's margin
    "ours-7.2-steepest": lambda: pair(
        geometry.margin(X, Y, descend(1, 0.4 / np.sqrt(np.arange(1, 5001)), False, INF), 1), best_margin(1)),
    # the gradient instead of its sign
    "ours-7.4-adam": lambda: pair(adam(60), descend(2, np.full(60, 0.1), scaled=False)),
    # the proposition with a step beyond its assumption
    "ours-7.3-squared": lambda: pair(coordinate_descent(1.2)[0], [0.5, 0, 5 / 7]),
    # the start dropped from the divergence
    "ours-7.1-mirror": lambda: pair(mirror_descent(geometry.entropy(), 0.03, 8000), nearest("entropy", np.ones(7))),
    # twice as fast in place of four times
    "ours-7.1-network": lambda: pair(network(0.3, 0.1), mirror_flow(geometry.hypentropy(0.3), np.zeros(3), 0.2)),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    tolerance = {"hegde-2.7": 0.02, "ours-7.2-steepest": 0.02}.get(claim, 1e-3)
    with pytest.raises(CheckFailed):
        check(claim, atol=tolerance, **CONTROLS[claim]())
