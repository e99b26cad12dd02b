"""One neuron on random data: ranks, copies, zero columns, one example, each strictly monotone activation."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicitreg.flow import neuron
from scipy.integrate import solve_ivp
from strategies import designs, fractions, orthogonal, spread, vectors

FEW = settings(max_examples=settings().max_examples // 4)
LEAKY = neuron.leaky_relu(0.5)
ACTIVATIONS = st.sampled_from([neuron.sigmoid, neuron.tanh, neuron.softplus, LEAKY])


@st.composite
def problems(draw):
    """X, an activation, y = psi(Xw) with |Xw| of order one, and a start."""
    X, activation = draw(designs(max_n=3, max_d=3)), draw(ACTIVATIONS)
    w = draw(vectors(X.shape[1])) / (1 + np.abs(X).sum())
    return X, activation, activation.value(X @ w), draw(vectors(X.shape[1])) / (1 + np.abs(X).sum())


def in_rows(X, v):
    return np.abs(v - np.linalg.pinv(X, rcond=1e-9) @ (X @ v)).max()


@given(st.lists(fractions(12), min_size=1, max_size=4).map(np.array), ACTIVATIONS)
def test_inverse_and_derivative_belong_to_the_value(u, activation):
    np.testing.assert_allclose(activation.inverse(activation.value(u)), u, rtol=0, atol=1e-12)
    u = u[u != 0]  # the kink
    h = 1e-4
    slope = (8 * (activation.value(u + h) - activation.value(u - h)) - activation.value(u + 2 * h)
             + activation.value(u - 2 * h)) / (12 * h)  # fmt: skip
    np.testing.assert_allclose(activation.derivative(u), slope, rtol=1e-9, atol=1e-10)


@given(problems())
def test_limit_reaches_the_labels_by_a_move_in_the_row_space(problem):
    X, activation, y, w0 = problem
    w = neuron.limit(X, y, activation.inverse, w0)
    np.testing.assert_allclose(activation.value(X @ w), y, rtol=0, atol=1e-12 * spread(X) ** 2)
    assert in_rows(X, w - w0) < 1e-12 * spread(X) ** 2
    copies = neuron.limit(np.vstack([X, X]), np.r_[y, y], activation.inverse, w0)
    np.testing.assert_allclose(copies, w, rtol=0, atol=1e-12 * spread(X) ** 2)


@FEW
@given(problems(), st.sampled_from([1 / 4, 1.0, 4.0]))
def test_flow_falls_at_the_stated_rate_and_stays_in_the_row_space(problem, t):
    X, activation, y, w0 = problem
    end = neuron.limit(X, y, activation.inverse, w0)
    w, start, half = neuron.gradient_flow(X, y, [t, 0.0, t / 2], activation.value, activation.derivative, w0)
    np.testing.assert_array_equal(start, w0)
    assert in_rows(X, w - w0) < 1e-9
    far, rate = np.linalg.norm(w0 - end), neuron.contraction_rate(X, y, activation.inverse, activation.derivative, w0)
    if X.any():
        assert np.linalg.norm(w - end) <= np.exp(-rate * t) * far + 1e-8
    else:
        assert rate == np.inf
    again = neuron.gradient_flow(X, y, [t / 2], activation.value, activation.derivative, half)[0]
    np.testing.assert_allclose(again, w, rtol=0, atol=1e-8)


@given(problems())
def test_contraction_rate_is_the_least_slope_on_a_grid(problem):
    """c² sigma², with c over the intervals around the solution in which the flow stays."""
    X, activation, y, w0 = problem
    assume(X.any())
    end = neuron.limit(X, y, activation.inverse, w0)
    reach = np.linalg.norm(X, axis=1) * np.linalg.norm(w0 - end)
    u = activation.inverse(y)[:, None] + reach[:, None] * np.linspace(-1, 1, 401)
    c = np.abs(activation.derivative(u)).min()
    s = np.linalg.svd(X, compute_uv=False)
    expected = c**2 * s[s > 1e-9 * s[0]][-1] ** 2
    found = neuron.contraction_rate(X, y, activation.inverse, activation.derivative, w0)
    assert found == pytest.approx(expected, rel=1e-8 * spread(X) ** 2)


@given(st.integers(1, 64).map(lambda k: 2**0.5 + k / 8))
def test_the_three_points_obey_their_linear_flow_up_to_the_switch(c):
    """w_3(T) by the exponential of the linear flow: u_3 is 0 at T, the first two examples have their labels in the
    end."""
    found = neuron.relu_example(c)
    X, y, T = found.X, found.y, found.switch_off
    values, vectors_ = np.linalg.eigh(X.T @ X)
    end = np.linalg.solve(X, y)
    at = end - vectors_ @ (np.exp(-T * values) * (vectors_.T @ end))
    assert T > 0
    assert X[2] @ at == pytest.approx(0, abs=1e-9 * c**2)
    np.testing.assert_allclose(found.w, [1, 1, at[2]], rtol=0, atol=1e-9)
    assert at[2] < 0


@FEW
@given(problems(), st.sampled_from([1 / 4, 1.0]), st.data())
def test_the_flow_solves_its_equation_and_follows_a_rotation(problem, t, data):
    """Smooth activations, labels that need not be reached."""
    X, activation, y, w0 = problem
    assume(activation.inverse is not LEAKY.inverse)
    y = y + np.linspace(0, 1 / 4, len(y))
    slope = lambda _, w: X.T @ (activation.derivative(X @ w) * (y - activation.value(X @ w)))  # noqa: E731
    run = solve_ivp(slope, (0, t), w0, "DOP853", rtol=1e-11, atol=1e-13)
    found = neuron.gradient_flow(X, y, [t], activation.value, activation.derivative, w0)[0]
    np.testing.assert_allclose(found, run.y[:, -1], rtol=0, atol=1e-9)
    Q = data.draw(orthogonal(X.shape[1]))
    turned = neuron.gradient_flow(X @ Q.T, y, [t], activation.value, activation.derivative, Q @ w0)[0]
    np.testing.assert_allclose(turned, Q @ found, rtol=0, atol=1e-9)
