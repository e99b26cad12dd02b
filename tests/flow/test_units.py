"""What happens to every public function of `flow` when its data are measured in other units: X -> aX, y -> by.

The table below names each function, with its result in units in which it must not change. A new function that is
missing from it fails `test_every_public_function_has_units`.
"""

import importlib
import inspect
import pkgutil

import implicitreg.flow
import numpy as np
import pytest
from implicitreg.flow import diagonal, factorization, geometry, incremental, maxmargin, minnorm, neuron
from implicitreg.flow import homogeneous as hom
from scipy.integrate import solve_ivp

SMALL, LARGE = 1e-12, 1e12
UNITS = [(a, b) for a in (SMALL, 1.0, LARGE) for b in (SMALL, 1.0, LARGE) if (a, b) != (1, 1)]
UNITS_OF_X = [(SMALL, 1.0), (1e-5, 1.0), (1e5, 1.0), (LARGE, 1.0)]

rng = np.random.default_rng(20)
X, Y, W0 = rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=5)
POSITIVE, ALPHA = np.abs(W0) + 0.1, 0.3
D = np.diag(np.arange(1.0, 6))
Z, ONES = np.abs(rng.normal(size=(6, 3))) + rng.normal(size=(6, 3)) / 3, np.ones(6)
TIMES, LOG_T = np.array([0.1, 0.0, 2.0]), np.array([0.0, 1.0, 12.0])
A = np.array([M + M.T for M in rng.normal(size=(2, 3, 3))])
FACTORS = [rng.normal(size=(2, 3)), rng.normal(size=(4, 2))]
TARGET = rng.normal(size=(4, 3))
SQUARE = rng.normal(size=(3, 3))
LEAKY = neuron.leaky_relu(0.3)

NO_UNITS = {
    "factorization.completion_example", "factorization.razin_cohen", "geometry.entropy", "geometry.hypentropy",
    "geometry.power", "geometry.quadratic", "homogeneous.xor_certificate",
    "maxmargin.degenerate_example", "neuron.leaky_relu", "neuron.relu_example",
}  # fmt: skip
"""Constructors and examples: their numbers stand for themselves."""

TABLE = {}


def units(*names, over=UNITS, rtol=1e-9):
    """Enter a function of (a, b), which calls the functions named and takes the units out of the result."""

    def enter(function):
        TABLE[function.__name__] = function, names, over, rtol
        return function

    return enter


def later(log_t, a):
    """log(1 + t/a²) for log(1 + t)."""
    return np.log1p(np.expm1(log_t) / a**2)


def flat(*parts):
    return np.concatenate([np.ravel(part) for part in parts])


# --- least squares --------------------------------------------------------------------------------------------------


@units("minnorm.limit", "minnorm.preconditioned_limit", "minnorm.step_sizes")
def least_squares_limits(a, b):
    w0, steps = b / a * W0, minnorm.step_sizes(a * X)
    ends = [minnorm.limit(a * X, b * Y, w0), minnorm.preconditioned_limit(a * X, b * Y, D, w0)]
    return flat(*ends) * a / b, steps.critical * a**2, steps.best * a**2, steps.rate


@units("minnorm.gradient_flow", "minnorm.gradient_descent", "minnorm.stochastic_gradient_descent")
def least_squares_paths(a, b):
    w0, eta = b / a * W0, 0.1 / a**2
    paths = [
        minnorm.gradient_flow(a * X, b * Y, TIMES / a**2, w0),
        minnorm.gradient_descent(a * X, b * Y, eta, 7, w0, momentum=0.5),
        minnorm.stochastic_gradient_descent(a * X, b * Y, eta, [0, 2, 1, 1], w0),
    ]
    return flat(*paths) * a / b


@units("minnorm.ridge", "minnorm.early_stopping_penalty")
def penalties(a, b):
    w0, Q = b / a * W0, minnorm.early_stopping_penalty(a * X, 0.7 / a**2)
    ends = [minnorm.ridge(a * X, b * Y, 0.3 * a**2, w0), minnorm.ridge(a * X, b * Y, a**2 * D, w0)]
    return flat(*ends) * a / b, Q / a**2


# --- diagonal networks ----------------------------------------------------------------------------------------------


@units("diagonal.limit", "diagonal.untied_limit")
def diagonal_limits(a, b):
    found = [
        diagonal.limit(a * X, b * y, ALPHA * (b / a) ** (1 / depth), depth=depth, signed=signed)
        for y, depth, signed in ((Y, 2, True), (Y, 3, True), (X @ POSITIVE, 2, False), (X @ POSITIVE, 3, False))
    ]
    root = (b / a) ** 0.5
    found.append(diagonal.untied_limit(a * X, b * Y, root * W0, root * np.ones(5)))
    return flat(*(f.w for f in found)) * a / b, flat(*(f.dual for f in found)) * a


@units("diagonal.basis_pursuit", "diagonal.recovery_exponent")
def sparse_solutions(a, b):
    w = diagonal.basis_pursuit(a * X, b * Y)
    positive = diagonal.basis_pursuit(a * X, b * (X @ POSITIVE), nonnegative=True)
    return flat(w, positive) * a / b, diagonal.recovery_exponent(a * X, w)


@units("diagonal.potential", "diagonal.potential_gradient")
def potentials(a, b):
    options = [(b ** (1 / depth) * ALPHA, depth, signed) for depth in (2, 3) for signed in (True, False)]
    values = [diagonal.potential(b * POSITIVE, alpha, depth=L, signed=s) for alpha, L, s in options]
    slopes = [diagonal.potential_gradient(b * POSITIVE, alpha, depth=L, signed=s) for alpha, L, s in options]
    return np.array(values) / b, flat(*slopes)


@units("diagonal.trajectory", rtol=1e-7)
def diagonal_paths(a, b):
    def path(depth, signed, late):
        t = TIMES * late / (a * b * (b / a) ** (1 - 2 / depth))
        return diagonal.trajectory(a * X, b * Y, t, ALPHA * (b / a) ** (1 / depth), depth=depth, signed=signed)

    return flat(path(2, True, 1), path(2, True, 1e4), path(2, False, 1), path(3, True, 1)) * a / b


@units("diagonal.gradient_descent", "diagonal.mirror_descent", "diagonal.stochastic_gradient_descent")
def diagonal_descents(a, b):
    data, eta, alpha = (a * X, b * Y), 0.02 / (a * b), ALPHA * (b / a) ** 0.5
    runs = [diagonal.gradient_descent(*data, eta, 9, alpha), diagonal.mirror_descent(*data, eta, 9, alpha),
            diagonal.stochastic_gradient_descent(*data, eta, [0, 2, 1], alpha)]  # fmt: skip
    return flat(*(part for run in runs for part in (run.u, run.v))) * (a / b) ** 0.5


@units("incremental.activation_time", "incremental.toy_path", "incremental.depth_separation")
def lone_weights(_, c):
    def alpha(L):
        return c ** (1 / L) * ALPHA

    times = [incremental.activation_time(2 * c, alpha(L), L) * c ** (2 - 2 / L) for L in (1, 2, 3, 4)]
    paths = [incremental.toy_path(TIMES * c ** (2 / L - 2), 2 * c, alpha(L), L) / c for L in (1, 2, 3, 4)]
    starts = [incremental.depth_separation(2 * c, c, L) / c for L in (1, 2, 3, 4)]
    return flat(times, *paths, starts)


@units("incremental.first_activation_time", "incremental.thresholding_time", "incremental.crossing_times")
def dates(a, b):
    first = incremental.first_activation_time(a * X, b * Y, ALPHA) * a * b
    threshold = [incremental.thresholding_time(b, ALPHA, L) * b for L in (2, 3)]
    path = np.linspace([0.0, 0.0], [1.0, -3.0], 7)
    return flat(first, threshold, incremental.crossing_times(a * np.arange(7), b * path, b * np.array([0.3, 0.7])) / a)


# --- classification: y holds labels, which have no units -----------------------------------------------------------


@units("maxmargin.hard_margin", "maxmargin.margin", "maxmargin.hinge_threshold", "maxmargin.soft_margin",
       over=UNITS_OF_X)  # fmt: skip
def margins(a, _):
    svm, w = maxmargin.hard_margin(a * Z, ONES), np.array([1.0, 2.0, 3.0]) / a
    soft = maxmargin.soft_margin(a * Z, ONES, 0.01 / a**2)
    C = maxmargin.hinge_threshold(a * Z, ONES)
    return svm.w * a, svm.margin / a, svm.dual * a**2, maxmargin.margin(a * Z, ONES, w) / a, C * a**2, soft * a


@units("maxmargin.asymptotics", over=UNITS_OF_X)
def late(a, _):
    found = maxmargin.asymptotics(a * np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]), np.ones(3))
    offset = found.offset * a - 2 * np.log(a) * found.w * a  # w* log(a² t) is what w* log t was
    return found.w * a, found.margin / a, found.dual * a**2, offset, found.margin_rate / a


@units("maxmargin.gradient_flow", over=UNITS_OF_X, rtol=1e-7)
def margin_flows(a, _):
    w0 = W0[:3] / a
    paths = [maxmargin.gradient_flow(a * Z, ONES, later(LOG_T, a), loss, w0) for loss in ("exp", "logistic")]
    return flat(*paths) * a


@units("maxmargin.gradient_descent", "maxmargin.normalized_gradient_descent", "maxmargin.momentum_gradient_descent",
       over=UNITS_OF_X)  # fmt: skip
def margin_descents(a, _):
    w0, eta = W0[:3] / a, 0.05 / a**2
    ends = [maxmargin.gradient_descent(a * Z, ONES, eta, [3, 9], "logistic", w0),
            maxmargin.normalized_gradient_descent(a * Z, ONES, eta, 9, w0),
            maxmargin.momentum_gradient_descent(a * Z, ONES, 9, w0)]  # fmt: skip
    return flat(*ends) * a


@units("maxmargin.margin_gap_bound", "maxmargin.normalized_margin_gap_bound", "maxmargin.momentum_margin_gap_bound",
       over=UNITS_OF_X)  # fmt: skip
def gap_bounds(a, _):
    plain = maxmargin.margin_gap_bound(0.5 * a, 7, later(np.array([4.0, 9.0]), a))
    eta = 0.1 / a**2
    normalised = maxmargin.normalized_margin_gap_bound(0.5 * a, 7, eta, 5)
    return flat(plain, normalised, maxmargin.momentum_margin_gap_bound(0.5 * a, 7, 2 * a, 5)) / a


@units("geometry.margin", "geometry.margin_direction", over=UNITS_OF_X, rtol=1e-8)
def lp_margins(a, _):
    found = [geometry.margin_direction(a * Z, ONES, p) for p in (1, 1.5, 2, 3, np.inf)]
    own = [geometry.margin(a * Z, ONES, np.ones(3) / a, p) / a for p in (1, 1.5, 2, 3, np.inf)]
    return flat(*(f.w * a for f in found)), flat(*(f.dual for f in found)), [f.margin / a for f in found], own


@units("geometry.polynomial_direction", "geometry.polynomial_flow", over=UNITS_OF_X, rtol=1e-7)
def polynomial_tails(a, _):
    path = geometry.polynomial_flow(a * Z, ONES, later(LOG_T, a), 1.5, W0[:3] / a)
    return flat(path) * a, geometry.polynomial_direction(a * Z, ONES, 1.5)


@units("geometry.steepest_step", "geometry.steepest_descent")
def steepest(a, b):
    orders = (1, 1.5, 2, 3, np.inf)
    steps = [geometry.steepest_step(b * W0, p) / b for p in orders]
    ends = [geometry.steepest_descent(a * Z, ONES, p, 0.1 / a**2, 9) * a for p in orders]
    return flat(*steps), flat(*ends)


@units("geometry.mirror_limit", "geometry.mirror_descent")
def mirrors(a, b):
    y, c = X @ POSITIVE, b / a
    cases = [(geometry.quadratic(), 1), (geometry.power(3.0), 2), (geometry.power(1.5), 0.5), (geometry.entropy(), 0),
             (geometry.hypentropy(ALPHA * c**0.5), 0)]  # fmt: skip
    ends = [geometry.mirror_limit(a * X, b * y, potential, c * np.ones(5)) for potential, _ in cases]
    runs = [geometry.mirror_descent(a * X, b * y, potential, 0.01 * c**degree / (a * b), 9, c * np.ones(5))
            for potential, degree in cases]  # fmt: skip
    return flat(*ends, *runs) / c


# --- one neuron, networks, matrices ---------------------------------------------------------------------------------


@units("neuron.limit", "neuron.contraction_rate")
def neuron_limits(a, b):
    w0 = b / a * W0
    rate = neuron.contraction_rate(a * X, b * Y, LEAKY.inverse, LEAKY.derivative, w0)
    return neuron.limit(a * X, b * Y, LEAKY.inverse, w0) * a / b, rate / a**2


@units("neuron.gradient_flow", rtol=1e-7)
def neuron_flows(a, b):
    start = -np.linalg.pinv(X) @ np.ones(3)  # all units stay below the kink
    leaky = neuron.gradient_flow(a * X, -b * np.abs(Y), TIMES / a**2, LEAKY.value, LEAKY.derivative, b / a * start)
    smooth = neuron.gradient_flow(a * X, [0.2, 0.5, 0.9], TIMES / a**2, neuron.sigmoid.value, neuron.sigmoid.derivative)
    small = neuron.gradient_flow(a * X, SMALL * Y, TIMES / a**2, neuron.tanh.value, neuron.tanh.derivative)
    return flat(leaky) * a / b, flat(smooth) * a, flat(small) * a / SMALL


def nets(a):
    return [hom.DeepLinear(a * Z, ONES, [2]), hom.Diagonal(a * Z, ONES, 3), hom.ReLU(a * Z, ONES, 4)]


def parameters(net):
    return np.sort(np.random.default_rng(1).uniform(0.1, 1, size=net.size))[::-1].copy()


@units("homogeneous.log_inverse_loss", "homogeneous.smoothed_margin", "homogeneous.normalized_margin",
       "homogeneous.kkt_residual", over=UNITS_OF_X)  # fmt: skip
def network_margins(a, _):
    rows = []
    for net in nets(a):
        theta = parameters(net) * a ** (-1 / net.degree)
        kkt = hom.kkt_residual(net, theta)
        rows += [hom.log_inverse_loss(net, theta), hom.smoothed_margin(net, theta) / a]
        rows += [hom.normalized_margin(net, theta) / a, kkt.stationarity, kkt.slackness]
        rows += list(kkt.dual * a ** (2 / net.degree))
    return np.array(rows)


@units("homogeneous.gradient_flow", over=UNITS_OF_X, rtol=1e-7)
def network_flows(a, _):
    paths = []
    for net in nets(a):
        unit = a ** (-1 / net.degree)
        paths.append(hom.gradient_flow(net, parameters(net) * unit, [0.0, 0.3], None if net.smooth else 0.01) / unit)
    return flat(*paths)


@units("homogeneous.layer_imbalance", "homogeneous.neuron_imbalance", "homogeneous.alignment",
       "homogeneous.deep_linear_margin", "homogeneous.relu_margin_bound")  # fmt: skip
def layers(a, c):
    W = [c * M for M in FACTORS]
    found = hom.alignment(W)
    bound = hom.relu_margin_bound(a * Z[:, :2], ONES, ONES / 6) / a
    imbalance = [*hom.layer_imbalance(W), hom.neuron_imbalance(c * TARGET, c * np.ones(4))]
    deep = hom.deep_linear_margin(a * Z, ONES, 3) / a
    return flat(*imbalance) / c**2, found.rank_ratio, found.overlap, found.norms / c, deep, bound


@units("factorization.min_trace", "factorization.commuting_limit")
def matrix_limits(a, b):
    U = np.linalg.qr(SQUARE)[0]
    y = np.einsum("ijk,jk->i", A, SQUARE @ SQUARE.T)
    commuting = np.array([(U * d) @ U.T for d in ([1, 2, 0], [0, 1, 1])])
    found = factorization.min_trace(a * A, b * y)
    end = factorization.commuting_limit(a * commuting, b * np.array([2.0, 1.0]), ALPHA * (b / a) ** 0.5)
    return found.X * a / b, found.dual * a, end * a / b


@units("factorization.gradient_flow", "factorization.deep_gradient_flow", rtol=1e-7)
def matrix_flows(a, b):
    sensing = factorization.gradient_flow(a * A, b * Y[:2], TIMES / (a * b), (b / a) ** 0.5 * SQUARE)
    deep = factorization.deep_gradient_flow([b**0.5 * M for M in FACTORS], lambda W: W - b * TARGET, TIMES / b)
    return flat(sensing) * a / b, flat(deep) / b


@units("factorization.balanced_factors", "factorization.singular_value_rates")
def products(_, c):
    rates = factorization.singular_value_rates(c * TARGET, c * TARGET[::-1], 3) / c ** (7 / 3)
    return flat(*factorization.balanced_factors(c * TARGET, 3)) / c ** (1 / 3), rates


# --- the tests ------------------------------------------------------------------------------------------------------


def public_functions():
    """Names MODULE.FUNCTION: what ``__all__`` lists, or what is defined in the module without an underscore."""
    names = set()
    for info in pkgutil.iter_modules(implicitreg.flow.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"implicitreg.flow.{info.name}")
        own = [n for n, f in vars(module).items() if n[0] != "_" and getattr(f, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", own):
            if inspect.isfunction(getattr(module, name)):
                names.add(f"{info.name}.{name}")
    return names


def test_every_public_function_has_units():
    entered = NO_UNITS.union(*(names for _, names, _, _ in TABLE.values()))
    assert public_functions() == entered


@pytest.mark.parametrize("entry", TABLE)
def test_functions_do_what_they_are_entered_for(entry, monkeypatch):
    """Each entry calls all the functions that it is entered for."""
    function, names, _, _ = TABLE[entry]
    called = set()
    for name in names:
        module = importlib.import_module(f"implicitreg.flow.{name.split('.')[0]}")
        original = getattr(module, name.split(".")[1])

        def spy(*args, name=name, original=original, **kwargs):
            called.add(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name.split(".")[1], spy)
    function(1.0, 1.0)
    assert called == set(names)


@pytest.mark.parametrize("entry", TABLE)
def test_results_do_not_depend_on_the_units_of_the_data(entry):
    function, _, over, rtol = TABLE[entry]
    expected = function(1.0, 1.0)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for a, b in over:
        found = function(a, b)
        for part, other in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(part, other, rtol=rtol, atol=rtol * scale, err_msg=f"a = {a:g}, b = {b:g}")


def test_control_an_absolute_tolerance_would_be_seen():
    """With an absolute tolerance of 1e-13 in w, at a = 1e12, where the weights are of the size 1e-12."""

    def flow(a):
        velocity = lambda t, w: a * Z.T @ np.exp(-a * Z @ w)  # noqa: E731
        return a * solve_ivp(velocity, (0, 1 / a**2), np.zeros(3), rtol=1e-10, atol=1e-13).y[:, -1]

    assert np.abs(flow(1e3) - flow(1.0)).max() < 1e-8
    assert np.abs(flow(LARGE) - flow(1.0)).max() > 1e-5
