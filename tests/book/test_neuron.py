"""The chapter on one neuron: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import itertools

import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.flow import neuron
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

SIGMOID = neuron.sigmoid
X = np.array([[1.0, 2, 0], [0.5, -1, 1]])
y, W0 = np.array([0.2, 0.9]), np.array([1.0, -0.5, 2.0])
rng = np.random.default_rng(3)
XR = rng.normal(size=(3, 2)) @ rng.normal(size=(2, 4))  # rank 2
WR, W0R = rng.normal(size=4), 0.5 * rng.normal(size=4)
FALLING = neuron.Activation(lambda u: -np.arctan(u), lambda v: -np.tan(v), lambda u: -1 / (1 + u**2))
TIMES = {"sigmoid": 3e3, "tanh": 300, "softplus": 800, "falling": 300}  # to within 1e-9 of the end
SMOOTH = {"sigmoid": SIGMOID, "tanh": neuron.tanh, "softplus": neuron.softplus, "falling": FALLING}


def velocity(psi, X, y):
    return lambda _, w: X.T @ (psi.derivative(X @ w) * (y - psi.value(X @ w)))


def integrate(X, y, psi, w0, T):
    """An explicit method in full coordinates; the package integrates implicitly in the row space."""
    return solve_ivp(velocity(psi, X, y), (0, T), w0, "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]


def told_to_be_short(psi=SIGMOID, X=X, y=y):
    """The shortest zero-loss point by constrained optimization."""
    constraint = {"type": "eq", "fun": lambda w: psi.value(X @ w) - y}
    return minimize(lambda w: w @ w, np.ones(3), method="SLSQP", tol=1e-14, constraints=constraint).x


def project(X, v, w0, sign=1.0):
    """The solution of Xw = v nearest to w0 by least squares; sign = -1 is a mistake."""
    return w0 + sign * np.linalg.lstsq(X, v - X @ w0, rcond=1e-10)[0]


def step(X, y, psi, eta, w, rows=slice(None)):
    u = X[rows] @ w
    return w + eta * X[rows].T @ (psi.derivative(u) * (y[rows] - psi.value(u)))


def descend(X, y, psi, eta, k, w):
    for _ in range(k):
        w = step(X, y, psi, eta, w)
    return w


def three(c, x3=(1.0, -2.0, 1.0)):
    return np.array([[c, 0, 0], [0, 1, 0], x3]), np.array([c, 1.0, 0])


def relu_by_events(c, silent_after=True):
    """Integrate the active examples only, and drop the third when it falls silent (or, a mistake, keep it)."""
    X, y = three(c)

    def silent(t, w):
        return X[2] @ w if t > 1e-6 else 1.0

    silent.terminal, silent.direction = silent_after, -1
    solve = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
    first = solve_ivp(lambda _, w: X.T @ (y - X @ w), (0, 400), np.zeros(3), events=silent, **solve)
    if not silent_after:
        return first.y[:, -1]
    Z = X[:2]
    return solve_ivp(lambda _, w: Z.T @ (y[:2] - Z @ w), (0, 40), first.y[:, -1], **solve).y[:, -1]


def relu_path(c, t):
    X, y = three(c)
    return neuron.gradient_flow(X, y, t, lambda u: np.maximum(u, 0), lambda u: np.where(u >= 0, 1.0, 0.0))


def half_square_speed(w, goal, power=1):
    """Minus the sum of the P_i; with power = 0 the slope is forgotten."""
    u, v = X @ w, X @ goal
    return -np.sum(SIGMOID.derivative(u) ** power * (SIGMOID.value(u) - SIGMOID.value(v)) * (u - v))


def measured_speed(w, goal, h=1e-4):
    """Central difference of half the squared distance along two small steps of the flow, forwards and backwards."""
    f = velocity(SIGMOID, X, y)
    ends = [solve_ivp(f, (0, s * h), w, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1] for s in (1, -1)]
    return (np.sum((ends[0] - goal) ** 2) - np.sum((ends[1] - goal) ** 2)) / (4 * h)


# The printed theorem, and its assumptions


def test_flow_from_zero_ends_at_the_shortest_zero_loss_point():
    check("hegde-theorem-3", measured=integrate(X, y, SIGMOID, np.zeros(3), 3000.0), predicted=told_to_be_short(),
          atol=1e-5)  # fmt: skip


def test_limit_is_the_zero_loss_point_nearest_to_the_start():
    w = neuron.limit(X, y, SIGMOID.inverse, W0)
    check("ours-neuron-nearest", measured=integrate(X, y, SIGMOID, W0, 5000.0), predicted=w, atol=1e-8)
    kernel = np.cross(X[0], X[1]) / np.linalg.norm(np.cross(X[0], X[1]))
    for a in (-1.0, -1e-3, 1e-3, 1.0):
        assert np.linalg.norm(w + a * kernel - W0) > np.linalg.norm(w - W0)


def test_cube_does_not_leave_zero():
    cube = neuron.Activation(lambda u: u**3, np.cbrt, lambda u: 3 * u**2)
    assert np.abs(integrate(X, y, cube, np.zeros(3), 1e3)).max() == 0
    start = project(X, np.array([1.0, 1.0]), W0)  # it arrives from here, at the nearest solution
    np.testing.assert_allclose(integrate(X, y, cube, start, 400.0), project(X, np.cbrt(y), start), atol=1e-8)


# Convergence


def test_distance_falls_at_the_stated_speed():
    goal = neuron.limit(X, y, SIGMOID.inverse)
    for w in (np.zeros(3), W0, -W0, 3 * W0):
        measured = measured_speed(w, goal + 2 * np.cross(X[0], X[1]))  # any zero-loss point will do
        check("ours-neuron-distance", measured=measured, predicted=half_square_speed(w, goal), rtol=1e-6)
        assert measured < 0


def test_sigmoid_arrives_from_its_plateaus():
    goal = neuron.limit(X, y, SIGMOID.inverse)
    for u in ([5.0, -5.0], [-6.0, 6.0], [5.0, 5.0]):  # the slopes there are 7e-3 and 2e-3
        start = np.linalg.pinv(X) @ np.array(u)
        check("hegde-5.1-sigmoid", measured=integrate(X, y, SIGMOID, start, 2e5), predicted=goal, atol=1e-8)


def test_unattainable_labels_make_two_minima():
    Xc, yc = np.array([[1.0], [10.0]]), np.array([SIGMOID.value(5.0), 0.7])
    grid = np.linspace(-1, 8, 9001)
    loss = ((SIGMOID.value(grid[:, None] * Xc[:, 0]) - yc) ** 2).sum(axis=1)
    minima = grid[1:-1][(loss[1:-1] < loss[:-2]) & (loss[1:-1] < loss[2:])]
    ends = [neuron.gradient_flow(Xc, yc, [1e6], SIGMOID.value, SIGMOID.derivative, [w])[0, 0] for w in (0.0, 6.0)]
    np.testing.assert_allclose(ends, minima, atol=2e-3)


def plateau_path(slopes=SIGMOID.derivative):
    """Distance to the limit from a plateau, and the bound, with the slopes on the way (or a mistake for them)."""
    start, goal, t = np.linalg.pinv(X) @ np.array([5.0, -5.0]), neuron.limit(X, y, SIGMOID.inverse), np.linspace(0, 400)
    path = solve_ivp(velocity(SIGMOID, X, y), (0, 400), start, "DOP853", t, rtol=1e-11, atol=1e-12).y.T
    distance = np.linalg.norm(path - goal, axis=1)
    rate = neuron.contraction_rate(X, y, SIGMOID.inverse, slopes, start)
    return {"measured": distance, "below": distance[0] * np.exp(-rate * t)}


def test_distance_from_a_plateau_stays_below_the_bound():
    check("ours-neuron-rate", **plateau_path(), atol=1e-9)


@pytest.mark.parametrize("name", SMOOTH)
def test_flow_ends_at_the_formula_for_any_rank_and_start(name):
    psi = SMOOTH[name]
    labels = psi.value(XR @ WR)
    check("hegde-5.1", measured=integrate(XR, labels, psi, W0R, TIMES[name]),
          predicted=neuron.limit(XR, labels, psi.inverse, W0R), atol=1e-8)  # fmt: skip


@pytest.mark.parametrize("psi", SMOOTH.values(), ids=SMOOTH.keys())
def test_distance_stays_below_the_bound(psi):
    labels, t = psi.value(XR @ WR), np.linspace(0, 100, 60)
    path = solve_ivp(velocity(psi, XR, labels), (0, 100), W0R, "DOP853", t, rtol=1e-11, atol=1e-12).y.T
    goal = project(XR, XR @ WR, W0R)
    distance = np.linalg.norm(path - goal, axis=1)
    rate = neuron.contraction_rate(XR, labels, psi.inverse, psi.derivative, W0R)
    assert rate > 0
    assert (distance <= distance[0] * np.exp(-rate * t) + 1e-10).all()


def test_smoothing_the_labels_only_scales_the_limit():
    s = np.array([1.0, -1.0])
    limits = [neuron.limit(X, 0.5 + q * s, SIGMOID.inverse) for q in (0.1, 0.4, 0.49)]
    for q, w in zip((0.1, 0.4, 0.49), limits, strict=True):
        np.testing.assert_allclose(w, np.log((1 + 2 * q) / (1 - 2 * q)) * X.T @ np.linalg.solve(X @ X.T, s), atol=1e-12)


# Steps and corners


@pytest.mark.parametrize("fraction", [0.2, 0.99])
def test_steps_contract_and_end_at_the_formula(fraction):
    eta, goal, w = fraction * 32 / np.linalg.norm(X, 2) ** 2, neuron.limit(X, y, SIGMOID.inverse, W0), W0
    reach = np.linalg.norm(X, axis=1) * np.linalg.norm(W0 - goal)
    grid = SIGMOID.derivative(np.linspace(X @ goal - reach, X @ goal + reach, 2001))
    c, C, s = grid.min(), grid.max(), np.linalg.svd(X)[1]
    factor = 1 - eta * (2 - eta * C**2 * s[0] ** 2) * (c * s[-1]) ** 2
    for _ in range(300):
        old, w = w, step(X, y, SIGMOID, eta, w)
        assert np.sum((w - goal) ** 2) <= factor * np.sum((old - goal) ** 2) + 1e-28
    check("ours-neuron-steps", measured=descend(X, y, SIGMOID, eta, 4000, w), predicted=goal, atol=1e-9)


def test_sgd_contracts_in_the_mean_over_all_sequences():
    eta, goal = 0.9 * 32 / (X**2).sum(1).max(), neuron.limit(X, y, SIGMOID.inverse, W0)
    squares = {(): np.sum((W0 - goal) ** 2)}
    points = {(): W0}
    for k, i in itertools.product(range(6), range(2)):
        for order in [o for o in points if len(o) == k]:
            points[(*order, i)] = step(X, y, SIGMOID, eta, points[order], slice(i, i + 1))
            squares[(*order, i)] = np.sum((points[(*order, i)] - goal) ** 2)
            assert squares[(*order, i)] <= squares[order] + 1e-15
    mean = [np.mean([v for o, v in squares.items() if len(o) == k]) for k in range(7)]
    reach = np.linalg.norm(X, axis=1) * np.linalg.norm(W0 - goal)
    c = SIGMOID.derivative(np.abs(X @ goal) + reach).min()
    q = 1 - eta * (2 - eta * (X**2).sum(1).max() / 16) * (c * np.linalg.svd(X)[1][-1]) ** 2 / 2
    assert (np.array(mean) <= q ** np.arange(7) * mean[0]).all()


def leaky_problem():
    g, psi = np.random.default_rng(0), neuron.leaky_relu(0.1)  # a problem whose flow slides along the corner
    Z = g.normal(size=(4, 7))
    return Z, psi.value(0.8 * Z @ g.normal(size=7) / np.sqrt(7)), psi, 0.3 * g.normal(size=7)


@pytest.mark.parametrize("at_corner", [0.1, 0.6, 1.0])
def test_leaky_relu_does_not_mind_its_corner(at_corner):
    Z, labels, psi, w0 = leaky_problem()
    psi = neuron.Activation(psi.value, psi.inverse, lambda u: np.where(u == 0, at_corner, np.where(u > 0, 1, 0.1)))
    for w, goal in ((w0, project(Z, psi.inverse(labels), w0)), (np.zeros(7), np.linalg.pinv(Z) @ psi.inverse(labels))):
        end = descend(Z, labels, psi, 1.9 / np.linalg.norm(Z, 2) ** 2, 12_000, w)
        check("hegde-5.1-leaky", measured=end, predicted=goal, atol=1e-9)


# ReLU


@pytest.mark.parametrize("c", [1.5, 2.0, 3.0, 10.0])
def test_three_points_by_events(c):
    check("hegde-5.2", measured=relu_by_events(c), predicted=neuron.relu_example(c).w, atol=1e-9)


@pytest.mark.parametrize("c", [0.5, 1.0, 1.41])
def test_small_c_goes_to_the_shortest_point(c):
    np.testing.assert_allclose(relu_path(c, [400.0])[0], [1, 1, 0], atol=1e-9)


def test_one_zero_loss_set_many_limits():
    cs = (1.415, 1.42, 1.5, 2, 3, 10, 100)
    limits = np.array([neuron.relu_example(c).w for c in cs])
    for c, w in zip(cs, limits, strict=True):
        Z, labels = three(c)
        assert np.abs(np.maximum(limits @ Z.T, 0) - labels).max() < 1e-9
        assert -(c**2 - 2) / 4 <= w[2] < 0
    assert np.diff(limits[:, 2]).max() < -1e-8


def never_below_what_follows(point, c=10.0):
    distance = np.linalg.norm(relu_path(c, np.linspace(0, 30, 200)) - point, axis=1)
    return {"measured": np.maximum.accumulate(distance[::-1])[::-1], "predicted": distance}


def test_relu_limit_is_at_most_twice_as_long_as_the_shortest():
    for a in (-5.0, -1.0, 0.0, 1.0):
        check("ours-neuron-factor", **never_below_what_follows([1, 1, a]), atol=1e-9)
    g, arrived = np.random.default_rng(1), 0
    for _ in range(20):  # gradient descent on random problems with some labels zero, where it reaches zero loss
        Z = g.normal(size=(4, 6)) + 0.5
        labels = np.maximum(Z @ g.normal(size=6), 0)
        relu = neuron.Activation(lambda u: np.maximum(u, 0), lambda v: v, lambda u: 1.0 * (u >= 0))
        w = descend(Z, labels, relu, 2 / np.linalg.norm(Z, 2) ** 2 * 0.9, 3000, np.zeros(6))
        if np.abs(np.maximum(Z @ w, 0) - labels).max() < 1e-6 and labels.any():
            on = labels > 0
            told = minimize(lambda v: v @ v, w, method="SLSQP", tol=1e-12, constraints=[
                {"type": "eq", "fun": lambda v, A=Z[on], b=labels[on]: A @ v - b},
                {"type": "ineq", "fun": lambda v, A=Z[~on]: -A @ v}])  # fmt: skip
            assert np.linalg.norm(w - told.x) <= np.linalg.norm(told.x) + 1e-6
            assert np.linalg.norm(w) < 2 * np.linalg.norm(told.x)
            arrived += 1
    assert arrived >= 5


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def least_squares_of_the_labels():
    return project(XR, SIGMOID.value(XR @ WR), W0R)


def sgd_without_attainable_labels():
    """The same example twice with two labels: a constant step does not settle."""
    Z, labels, w = X[[0, 0]], np.array([0.2, 0.6]), np.zeros(3)
    for k in range(2000):
        w = step(Z, labels, SIGMOID, 1.0, w, slice(k % 2, k % 2 + 1))
    return w


def two_ends_of_clashing_labels():
    Xc, yc = np.array([[1.0], [10.0]]), np.array([SIGMOID.value(5.0), 0.7])
    return pair(*(neuron.gradient_flow(Xc, yc, [1e6], SIGMOID.value, SIGMOID.derivative, [w])[0] for w in (0.0, 6.0)))


def length_along_the_fit(labels):
    """The end of the flow for these labels, in units of the least-norm fit to labels 1 and -1."""
    fit = np.linalg.pinv(X) @ np.array([1.0, -1.0])
    return integrate(X, np.array(labels), SIGMOID, np.zeros(3), 3e3) @ fit / (fit @ fit)


CONTROLS = {
    # ReLU is monotonic, too
    "hegde-theorem-3": lambda: pair(relu_by_events(3.0), [1.0, 1.0, 0.0]),
    # the start forgotten
    "ours-neuron-nearest": lambda: pair(integrate(X, y, SIGMOID, W0, 5000.0), project(X, SIGMOID.inverse(y), 0 * W0)),
    # labels that no weights produce
    "hegde-5.1-sigmoid": two_ends_of_clashing_labels,
    # the slope forgotten
    "ours-neuron-distance": lambda: pair(
        measured_speed(W0, project(X, SIGMOID.inverse(y), W0)),
        half_square_speed(W0, project(X, SIGMOID.inverse(y), W0), power=0),
    ),
    # the activation forgotten
    "hegde-5.1": lambda: pair(
        integrate(XR, SIGMOID.value(XR @ WR), SIGMOID, W0R, 3e3), least_squares_of_the_labels()
    ),
    # the largest slope of the sigmoid in place of the least on the way
    "ours-neuron-rate": lambda: plateau_path(lambda u: np.full(u.shape, 0.25)),
    # labels that no weights produce
    "ours-neuron-steps": lambda: pair(
        sgd_without_attainable_labels(), project(X[[0]], SIGMOID.inverse(np.array([0.4])), np.zeros(3))
    ),
    # the slope below the corner forgotten
    "hegde-5.1-leaky": lambda: (
        lambda Z, labels, psi, w0: pair(descend(Z, labels, psi, 1 / np.linalg.norm(Z, 2) ** 2, 9000, w0),
                                        project(Z, labels, w0))
    )(*leaky_problem()),
    # the third example never falls silent
    "hegde-5.2": lambda: pair(relu_by_events(3.0, silent_after=False), neuron.relu_example(3.0).w),
    # the distance to a point that is not of zero loss
    "ours-neuron-factor": lambda: never_below_what_follows([1.0, 1.0, 20.0]),
    # the sigmoid linearized at one half
    "ours-neuron-labels": lambda: pair(length_along_the_fit([0.9, 0.1]), 4 * 0.4),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    with pytest.raises(CheckFailed):
        check(claim, **CONTROLS[claim](), atol=1e-4)  # no check of the chapter allows more


def test_length_along_the_fit_is_the_one_of_the_corollary():
    for q in (0.1, 0.4):
        check("ours-neuron-labels", measured=length_along_the_fit([0.5 + q, 0.5 - q]), atol=1e-8,
              predicted=np.log((1 + 2 * q) / (1 - 2 * q)))  # fmt: skip


# What "Try your own" promises


def own(**changes):
    """Run the cell of the chapter with other data; what it leaves behind."""
    cells = nbformat.read(runbook.BOOK / "1-flow/07_neuron.ipynb", 4).cells
    setup = next(c.source for c in cells if c.cell_type == "code")
    code = cells[next(i for i, c in enumerate(cells) if c.source.startswith("## Try your own")) + 1].source
    for line, other in changes.items():
        old = next(row for row in code.splitlines() if row.startswith(line))
        code = code.replace(old, other)
    left = {}
    exec(f"{setup}\n{code}", left)
    return left


@pytest.mark.parametrize(
    ("psi", "labels"),
    [("sigmoid", "0.3, 0.6"), ("tanh", "0.3, -0.6"), ("softplus", "0.3, 2.0"), ("leaky_relu(0.5)", "1.3, -0.6")],
    ids=["sigmoid", "tanh", "softplus", "leaky"],
)
@pytest.mark.parametrize("start", ["np.zeros(3)", "np.array([1.0, -1.0, 0.5])"], ids=["from zero", "elsewhere"])
def test_try_your_own_arrives(psi, labels, start):
    changes = {"y_own": f"y_own = np.array([{labels}])"}
    rate = own(**changes, psi_own=f"psi_own, start, horizon_own = neuron.{psi}, {start}, 1e4")["rate"]
    left = own(**changes, psi_own=f"psi_own, start, horizon_own = neuron.{psi}, {start}, {max(1e4, 30 / rate)}")
    assert np.linalg.norm(left["reached"] - left["own"]) < 1e-8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_own": "y_own = np.array([0.3, -1.2])"}, r"y\[1\] = -1.2.*expected targets in the range"),
        ({"y_own": "y_own = np.array([1.0, -0.6])"}, r"y\[0\] = 1,.*expected targets in the range"),
        ({"X_own": "X_own = np.array([[1.0, 2, 3], [1, 2, 3]])"}, "off by .* from every Xw"),
    ],
    ids=["outside", "on the edge", "not produced"],
)
def test_try_your_own_refuses_labels(changes, words):
    with pytest.raises(ValueError, match=words):
        own(**changes)


def test_try_your_own_says_so_where_leaky_relu_slides():
    with pytest.raises(RuntimeError, match="slide along a kink"):
        own(X_own="g = np.random.default_rng(0); X_own = g.normal(size=(4, 7))",
            y_own="y_own = neuron.leaky_relu(0.1).value(0.8 * X_own @ g.normal(size=7) / np.sqrt(7))",
            psi_own="psi_own, start, horizon_own = neuron.leaky_relu(0.1), 0.3 * g.normal(size=7), 1e4")  # fmt: skip
