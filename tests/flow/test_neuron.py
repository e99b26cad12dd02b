"""One neuron: where its flow ends, how fast, and the ReLU counterexample."""

import pickle

import numpy as np
import pytest
from implicitreg.flow import neuron
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

ARCTAN = neuron.Activation(lambda u: -np.arctan(u), lambda v: -np.tan(v), lambda u: -1 / (1 + u**2))
SMOOTH = {"sigmoid": neuron.sigmoid, "tanh": neuron.tanh, "softplus": neuron.softplus, "minus arctan": ARCTAN}
STRICT = SMOOTH | {"leaky ReLU": neuron.leaky_relu(0.1)}
RELU = neuron.Activation(lambda u: np.maximum(u, 0), lambda v: v, lambda u: np.where(u >= 0, 1.0, 0.0))


def each(activations):
    return pytest.mark.parametrize("psi", activations.values(), ids=activations.keys())


def problem(psi, seed=5, n=4, d=7, rank=None):
    """Attainable targets, for a design of the given rank; seed 5 is one on which leaky ReLU does not slide."""
    g = np.random.default_rng(seed)
    X = g.normal(size=(n, d))
    if rank is not None:
        X = g.normal(size=(n, rank)) @ X[:rank] / np.sqrt(rank)
    return X, psi.value(0.8 * X @ g.normal(size=d) / np.sqrt(d)), 0.3 * g.normal(size=d)


def flow(X, y, t, psi, w0=None):
    return neuron.gradient_flow(X, y, t, psi.value, psi.derivative, w0)


# Reference values


def test_sigmoid_reference_limit_has_its_printed_digits():
    w = neuron.limit([[1, 2, 0], [0.5, -1, 1]], [0.2, 0.9], neuron.sigmoid.inverse)
    np.testing.assert_allclose(w, [0.514446136220578, -0.950370248670235, 0.989631260555696], rtol=1e-12)


def test_relu_reference_problem_has_its_printed_digits():
    example = neuron.relu_example(3.0)
    assert example.switch_off == pytest.approx(0.413289220947873, rel=1e-12)
    np.testing.assert_allclose(example.w, [1, 1, -0.0699320440184380], rtol=1e-12)


@pytest.mark.parametrize(("c", "w3"), [(2, -0.02796331), (3, -0.06993204), (10, -0.10731227), (30, -0.11022328)])
def test_relu_table_of_limits(c, w3):
    assert neuron.relu_example(c).w[2] == pytest.approx(w3, abs=5e-9)  # eight printed digits


# Strictly monotone activations


@each(STRICT)
@pytest.mark.parametrize("start", ["from zero", "from w0"])
def test_flow_ends_at_the_formula(psi, start):
    X, y, w0 = problem(psi)
    w0 = w0 if start == "from w0" else None
    w = flow(X, y, [1e5], psi, w0)[0]
    np.testing.assert_allclose(w, neuron.limit(X, y, psi.inverse, w0), atol=1e-8)  # leaky ReLU crosses its kink


@each(SMOOTH)
def test_limit_needs_no_full_rank(psi):
    X, y, w0 = problem(psi, n=6, d=5, rank=3)
    np.testing.assert_allclose(flow(X, y, [1e5], psi, w0)[0], neuron.limit(X, y, psi.inverse, w0), atol=1e-8)


@each(SMOOTH)
def test_limit_is_the_nearest_zero_loss_point_by_constrained_optimisation(psi):
    X, y, w0 = problem(psi, n=2, d=4)
    zero_loss = {"type": "eq", "fun": lambda w: psi.value(X @ w) - y}
    nearest = minimize(lambda w: np.sum((w - w0) ** 2), w0, constraints=[zero_loss], tol=1e-14, method="SLSQP")
    np.testing.assert_allclose(neuron.limit(X, y, psi.inverse, w0), nearest.x, atol=1e-6)  # SLSQP stops there


def test_limit_without_w0_fails_from_another_start():
    psi = neuron.tanh
    X, y, w0 = problem(psi)
    assert np.linalg.norm(flow(X, y, [1e5], psi, w0)[0] - neuron.limit(X, y, psi.inverse)) > 0.1


@each(STRICT)
def test_flow_against_the_gradient_by_finite_differences(psi):
    X, y, w0 = problem(psi)

    def loss(w):
        return 0.5 * np.sum((y - psi.value(X @ w)) ** 2)

    h, eye = 1e-4, np.eye(X.shape[1])
    w = flow(X, y, h * np.arange(5), psi, w0)
    speed = np.array([-25, 48, -36, 16, -3]) @ w / (12 * h)
    gradient = np.array([(loss(w0 + h * e) - loss(w0 - h * e)) / (2 * h) for e in eye])
    np.testing.assert_allclose(speed, -gradient, atol=1e-7)  # h²
    assert np.linalg.norm(speed + gradient / len(y)) > 0.05  # a mean instead of the sum


@each(SMOOTH)
def test_flow_against_an_explicit_method_in_full_coordinates(psi):
    X, y, w0 = problem(psi)
    times = [0.3, 2.0, 10.0]
    run = solve_ivp(
        lambda _, w: X.T @ (psi.derivative(X @ w) * (y - psi.value(X @ w))),
        (0, 10), w0, "DOP853", times, rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(flow(X, y, times, psi, w0), run.y.T, atol=1e-9)


@each(STRICT)
def test_distance_to_every_zero_loss_point_never_grows(psi):
    X, y, w0 = problem(psi)
    w = flow(X, y, np.linspace(0, 40, 400), psi, w0)
    kernel = np.linalg.svd(X)[2][len(X) :]
    g = np.random.default_rng(0)
    for _ in range(5):
        zero_loss = neuron.limit(X, y, psi.inverse, w0) + g.normal(size=len(kernel)) @ kernel
        assert np.diff(np.linalg.norm(w - zero_loss, axis=1)).max() <= 1e-10  # the solver's tolerance


@each(STRICT)
def test_distance_stays_below_the_exponential_bound(psi):
    X, y, w0 = problem(psi)
    t = np.linspace(0, 200, 400)
    limit = neuron.limit(X, y, psi.inverse, w0)
    rate = neuron.contraction_rate(X, y, psi.inverse, psi.derivative, w0)
    distance = np.linalg.norm(flow(X, y, t, psi, w0) - limit, axis=1)
    assert rate > 0
    assert (distance <= distance[0] * np.exp(-rate * t) + 1e-10).all()


def test_exponential_bound_is_attained_by_one_linear_example_and_no_larger_rate_is_a_bound():
    identity = neuron.Activation(lambda u: u, lambda v: v, np.ones_like)
    X, y, t = np.array([[3.0, 4.0]]), [25.0], 0.1
    rate = neuron.contraction_rate(X, y, identity.inverse, identity.derivative)
    distance = np.linalg.norm(flow(X, y, [t], identity)[0] - [3, 4]) / 5
    assert distance == pytest.approx(np.exp(-rate * t), abs=1e-10)
    assert distance > 1.1 * np.exp(-1.1 * rate * t)  # so the bound cannot be improved by a factor


def test_rate_takes_the_worst_slope_that_the_flow_can_meet():
    g = np.random.default_rng(5)
    X, y, w0 = problem(neuron.tanh)
    limit = neuron.limit(X, y, neuron.tanh.inverse, w0)
    ball = g.normal(size=(20000, len(w0)))
    ball = limit + np.linalg.norm(w0 - limit) * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    slope = neuron.tanh.derivative(ball @ X.T).min()
    sigma = np.linalg.svd(X, compute_uv=False)[-1]
    rate = neuron.contraction_rate(X, y, neuron.tanh.inverse, neuron.tanh.derivative, w0)
    assert rate <= slope**2 * sigma**2 <= 3 * rate  # a sample of the sphere comes near the worst point


def test_a_design_of_zeros_does_not_move():
    psi = neuron.tanh
    assert neuron.contraction_rate([[0.0, 0.0]], [0.0], psi.inverse, psi.derivative) == np.inf
    np.testing.assert_array_equal(flow([[0.0, 0.0]], [0.0], [5.0], psi, [1.0, 2.0]), [[1, 2]])
    np.testing.assert_array_equal(neuron.limit([[0.0, 0.0]], [0.0], psi.inverse, [1.0, 2.0]), [1, 2])


def test_saturated_sigmoid_converges_after_very_long_times():
    psi, X = neuron.sigmoid, np.eye(2)
    v = np.array([6.0, -6.0])
    w = flow(X, psi.value(v), [1e3, 1e9], psi)
    assert np.abs(w[0] - v).max() > 0.1
    np.testing.assert_allclose(w[1], v, atol=1e-7)


def test_times_come_back_in_the_order_asked():
    X, y, w0 = problem(neuron.tanh)
    w = flow(X, y, [2.0, 0.0, 1.0, 2.0], neuron.tanh, w0)
    np.testing.assert_allclose(w[1], w0, atol=1e-15)
    np.testing.assert_array_equal(w[0], w[3])
    np.testing.assert_allclose(w[2], flow(X, y, [1.0], neuron.tanh, w0)[0], atol=1e-9)


@each(STRICT)
def test_inverse_and_derivative_belong_to_the_activation(psi):
    u = np.linspace(-3, 3, 41)[np.abs(np.linspace(-3, 3, 41)) > 0.01]
    np.testing.assert_allclose(psi.inverse(psi.value(u)), u, atol=1e-12)
    slope = (psi.value(u + 1e-5) - psi.value(u - 1e-5)) / 2e-5
    np.testing.assert_allclose(psi.derivative(u), slope, atol=1e-9)


# What breaks without strict monotonicity


def relu_by_events(c):
    """Integrate the three rows separately from the moment when the third falls silent."""
    X, y = np.array([[c, 0, 0], [0, 1, 0], [1, -2, 1.0]]), np.array([c, 1, 0.0])

    def silent(t, w):
        return X[2] @ w if t > 1e-6 else 1.0

    silent.terminal, silent.direction = True, -1
    first = solve_ivp(
        lambda _, w: X.T @ (y - X @ w), (0, 5), np.zeros(3), "DOP853", events=silent, rtol=1e-12, atol=1e-14
    )
    Z = X[:2]
    rest = solve_ivp(lambda _, w: Z.T @ (y[:2] - Z @ w), (0, 40), first.y[:, -1], "DOP853", rtol=1e-12, atol=1e-14)
    assert (X[2] @ rest.y[:, 1:] < 0).all()  # and it stays silent
    return first.t[-1], rest.y[:, -1]


@pytest.mark.parametrize("c", [1.5, 2, 3, 10])
def test_relu_example_against_integration_with_an_event(c):
    example = neuron.relu_example(c)
    T, w = relu_by_events(c)
    assert example.switch_off == pytest.approx(T, abs=1e-9)
    np.testing.assert_allclose(example.w, w, atol=1e-9)


@pytest.mark.parametrize("c", [2, 10])
def test_relu_flow_ends_at_the_example_s_limit(c):
    example = neuron.relu_example(c)
    np.testing.assert_allclose(flow(example.X, example.y, [60.0], RELU)[0], example.w, atol=1e-9)


def test_relu_limit_is_not_the_nearest_zero_loss_point():
    example = neuron.relu_example(3.0)
    nearest = np.array([1.0, 1, 0])
    assert np.abs(RELU.value(example.X @ nearest) - example.y).max() == 0
    assert np.linalg.norm(example.w - nearest) > 0.05
    with_the_formula_for_strict_activations = neuron.limit(example.X, example.y, RELU.inverse)
    assert np.linalg.norm(example.w - with_the_formula_for_strict_activations) > 1


def test_relu_limits_differ_on_one_zero_loss_set():
    limits = np.array([neuron.relu_example(c).w for c in (2, 3, 10, 30)])
    for c in (2, 3, 10, 30):
        X, y = neuron.relu_example(c).X, neuron.relu_example(c).y
        assert np.abs(RELU.value(limits @ X.T) - y).max() < 1e-12  # every limit fits every c
    assert np.diff(limits[:, 2]).max() < -1e-3


def test_relu_limit_is_at_most_twice_as_long_as_the_shortest():
    for c in (1.5, 3, 100):
        w = neuron.relu_example(c).w
        assert np.linalg.norm(w - [1, 1, 0]) <= np.sqrt(2)
        assert np.linalg.norm(w) <= 2 * np.sqrt(2)


def test_leaky_relu_on_the_same_points_obeys_the_formula():
    psi, X = neuron.leaky_relu(0.1), neuron.relu_example(3.0).X
    w = flow(X, [3.0, 1.0, 0.0], [1e4], psi)[0]
    np.testing.assert_allclose(w, neuron.limit(X, [3.0, 1.0, 0.0], psi.inverse), atol=1e-8)


def test_leaky_relu_can_slide_along_its_kink_and_rounded_off_ends_at_the_same_formula():
    psi, beta = neuron.leaky_relu(0.1), 500.0
    rounded = neuron.Activation(
        lambda u: 0.1 * u + 0.9 * np.logaddexp(0, beta * u) / beta,
        psi.inverse,  # to e^(−500|u|), and no |u| at the end is below 0.05
        lambda u: 0.1 + 0.9 * neuron.sigmoid.value(beta * u),
    )
    X, y, w0 = problem(psi, seed=0)
    limit = neuron.limit(X, y, psi.inverse, w0)
    assert np.abs(X @ limit).min() > 0.05
    np.testing.assert_allclose(flow(X, y, [1e5], rounded, w0)[0], limit, atol=1e-8)
    with pytest.raises(RuntimeError, match="slide along a kink"):
        flow(X, y, [1e3], psi, w0)


def test_cube_is_strictly_monotone_but_its_flow_is_stuck_at_zero():
    cube = neuron.Activation(lambda u: u**3, np.cbrt, lambda u: 3 * u**2)
    assert np.abs(flow([[1.0, 2.0]], [5.0], [1e3], cube)).max() == 0
    assert np.abs(neuron.limit([[1.0, 2.0]], [5.0], cube.inverse)).min() > 0.3


def test_target_on_the_edge_of_the_range_sends_the_weights_to_infinity():
    w = flow([[1.0]], [1.0], [1e2, 1e4, 1e6], neuron.sigmoid)[:, 0]
    assert np.diff(w).min() > 1.5


# Bad input


X2, Y2 = [[1.0, 2.0], [0.5, -1.0]], [0.2, 0.9]
LOGIT = neuron.sigmoid.inverse


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda: neuron.limit([[1.0, np.nan]], [0.2], LOGIT), ValueError, r"X\[0, 1\] = nan", id="nan X"),
        pytest.param(lambda: neuron.limit([1.0, 2.0], [0.2], LOGIT), ValueError, "X has shape", id="flat X"),
        pytest.param(lambda: neuron.limit(np.empty((0, 2)), [], LOGIT), ValueError, "X has shape", id="empty X"),
        pytest.param(lambda: neuron.limit("abc", [0.2], LOGIT), TypeError, "X has dtype", id="text X"),
        pytest.param(lambda: neuron.limit(X2, [0.2], LOGIT), ValueError, "y has shape", id="short y"),
        pytest.param(lambda: neuron.limit(X2, Y2, LOGIT, [0.0]), ValueError, "w0 has shape", id="short w0"),
        pytest.param(lambda: neuron.limit(X2, [0.2, 1.5], LOGIT), ValueError, r"y\[1\] = 1.5.*range", id="y above"),
        pytest.param(lambda: neuron.limit(X2, [0.0, 0.5], LOGIT), ValueError, r"y\[0\] = 0.*range", id="y on the edge"),
        pytest.param(
            lambda: neuron.limit(X2, [0.5, -1], neuron.softplus.inverse), ValueError, r"y\[1\] = -1", id="softplus"
        ),
        pytest.param(lambda: neuron.limit(X2, Y2, 3.0), TypeError, "inverse = 3.0", id="inverse not callable"),
        pytest.param(lambda: neuron.limit(X2, Y2, np.sum), ValueError, "inverse maps", id="inverse not vectorised"),
        pytest.param(
            lambda: neuron.limit([[1.0], [1.0]], [0.2, 0.9], LOGIT), ValueError, "inverse.y. is off", id="inconsistent"
        ),
        pytest.param(
            lambda: neuron.gradient_flow(X2, Y2, [-1.0], np.tanh, np.cos),
            ValueError,
            r"t\[0\] = -1",
            id="negative time",
        ),
        pytest.param(
            lambda: neuron.gradient_flow(X2, Y2, [], np.tanh, np.cos), ValueError, "t has shape", id="no times"
        ),
        pytest.param(
            lambda: neuron.gradient_flow(X2, Y2, [1.0], None, np.cos), TypeError, "activation = None", id="activation"
        ),
        pytest.param(
            lambda: neuron.gradient_flow(X2, Y2, [1.0], np.tanh, np.sum), ValueError, "derivative maps", id="derivative"
        ),
        pytest.param(
            lambda: neuron.gradient_flow(X2, Y2, [1.0], np.log, np.cos),
            ValueError,
            "activation.* = -inf",
            id="log of 0",
        ),
        pytest.param(
            lambda: neuron.contraction_rate(X2, Y2, LOGIT, lambda u: u * np.inf), ValueError, "derivative", id="slope"
        ),
        pytest.param(lambda: neuron.relu_example(1.41), ValueError, "c = 1.41", id="c too small"),
        pytest.param(lambda: neuron.relu_example(np.inf), ValueError, "c = inf", id="c infinite"),
        pytest.param(lambda: neuron.leaky_relu(0.0), ValueError, "slope = 0.0", id="slope zero"),
        pytest.param(lambda: neuron.leaky_relu(1.5), ValueError, "slope = 1.5", id="slope above one"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("unit", [0.25, 0.5, 1.0, 2.0, 3.0, 4.0])
def test_a_flow_that_crosses_a_kink_arrives(unit):
    """Leaky ReLU from the side of both kinks on which the second target is not."""
    X, y, psi = np.array([[1.0, 2.0, 3.0], [1.0, 0.0, -1.0]]), [1.3, -0.6], neuron.leaky_relu(0.5)
    w0 = np.array([1.0, -1.0, 0.5])
    w = neuron.gradient_flow(unit * X, y, [1e4 / unit**2], psi.value, psi.derivative, w0 / unit)[0]
    np.testing.assert_allclose(w, neuron.limit(unit * X, y, psi.inverse, w0 / unit), atol=1e-8)


@pytest.mark.parametrize("activation", [neuron.sigmoid, neuron.tanh, neuron.softplus, neuron.leaky_relu(0.2)])
def test_an_activation_can_be_sent_to_another_process(activation):
    there, x = pickle.loads(pickle.dumps(activation)), np.array([0.2, 0.7])
    for name in ("value", "inverse", "derivative"):
        assert np.array_equal(getattr(there, name)(x), getattr(activation, name)(x))
