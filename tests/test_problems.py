"""A finite distribution over losses: derivatives by hand and by differences, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem


def parabola(t):
    return (t**2).sum() / 2


def slope(t):
    return 3 * t[0]


def hinge_with_branch(t):
    if t[0] < 1:
        return 1 - t[0]
    return torch.zeros((), dtype=torch.float64)


THETAS = np.array([[0.5, -1.0], [2.0, 3.0], [-1.5, 0.25]])


def test_values_and_gradients_of_polynomials_are_those_by_hand():
    problem = FiniteProblem([parabola, slope], [1 / 4, 3 / 4], [1.0, 2.0])
    values = problem.values(THETAS)
    np.testing.assert_allclose(values, np.stack([(THETAS**2).sum(1) / 2, 3 * THETAS[:, 0]], 1), rtol=1e-15)
    gradients = problem.gradients(THETAS)
    np.testing.assert_array_equal(gradients[:, 0], THETAS)
    np.testing.assert_array_equal(gradients[:, 1], np.tile([3.0, 0.0], (3, 1)))
    assert problem.loss([1.0, 2.0]) == 5 / 8 + 9 / 4
    assert (problem.m, problem.d) == (2, 2)


def test_gradients_agree_with_central_differences(problem_b):
    thetas, h = THETAS / 4, 1e-5
    gradients = problem_b.gradients(thetas)
    for j, e in enumerate(np.eye(2)):
        difference = (problem_b.values(thetas + h * e) - problem_b.values(thetas - h * e)) / (2 * h)
        # the third derivative times h^2 / 6 is 1e-10, rounding is eps / h = 1e-11
        np.testing.assert_allclose(gradients[:, :, j], difference, atol=1e-9)


def test_a_loss_with_control_flow_on_the_value_of_theta_falls_back_to_a_loop():
    problem = FiniteProblem([hinge_with_branch], [1.0], [0.0])
    thetas = np.array([[0.25], [1.5], [-2.0]])
    np.testing.assert_array_equal(problem.values(thetas), [[0.75], [0.0], [3.0]])
    np.testing.assert_array_equal(problem.gradients(thetas), [[[-1.0]], [[0.0]], [[-1.0]]])
    np.testing.assert_array_equal(problem.gradients([[2.0]]), [[[0.0]]])


def test_a_constant_loss_has_zero_gradient():
    problem = FiniteProblem([lambda t: torch.ones((), dtype=torch.float64), slope], [0.5, 0.5], [0.0, 0.0])
    np.testing.assert_array_equal(problem.gradients(THETAS)[:, 0], np.zeros((3, 2)))


def test_gradients_do_not_depend_on_the_callers_grad_mode(problem_a):
    with torch.no_grad():
        inside = problem_a.gradients([[0.3]])
    np.testing.assert_array_equal(inside, problem_a.gradients([[0.3]]))


def test_tensors_are_welcome_as_parameters():
    problem = FiniteProblem([parabola], torch.ones(1), torch.tensor([1.0, 2.0], requires_grad=True))
    assert problem.loss(torch.tensor([3.0, 4.0])) == 12.5


def test_a_problem_does_not_change():
    start = np.array([1.0, 2.0])
    problem = FiniteProblem([parabola], [1.0], start)
    start[0] = 7
    assert problem.theta0[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        problem.theta0[0] = 2
    with pytest.raises(AttributeError):
        problem.theta0 = start


def test_importing_the_package_loads_no_torch():
    code = "import sys, implicitreg; dir(implicitreg); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


BAD = {
    "no loss": (ValueError, "losses is empty", [], [], [0.0]),
    "losses not a sequence": (TypeError, "sequence of callables", slope, [1.0], [0.0]),
    "loss not callable": (TypeError, r"losses\[1\] = 3", [slope, 3], [0.5, 0.5], [0.0]),
    "another number of parameters": (
        ValueError,
        r"losses\[0\]\(theta0\) with 1 parameters",
        [lambda t: t[1]],
        [1.0],
        [0.0],
    ),
    "made of NumPy": (ValueError, r"losses\[0\]\(theta0\)", [lambda t: np.sin(t[0])], [1.0], [0.0]),
    "too few probabilities": (ValueError, r"probabilities has shape \(1,\)", [slope, slope], [1.0], [0.0]),
    "probabilities sum to 0.9": (ValueError, "sums to 0.9", [slope, slope], [0.5, 0.4], [0.0]),
    "zero probability": (ValueError, r"probabilities\[1\] = 0", [slope, slope], [1.0, 0.0], [0.0]),
    "negative probability": (ValueError, r"probabilities\[0\] = -0.5", [slope, slope], [-0.5, 1.5], [0.0]),
    "NaN probability": (ValueError, "probabilities", [slope, slope], [np.nan, 1.0], [0.0]),
    "NaN start": (ValueError, "theta0", [slope], [1.0], [np.nan]),
    "scalar start": (ValueError, "theta0 has shape", [slope], [1.0], 0.0),
    "matrix start": (ValueError, "theta0 has shape", [slope], [1.0], [[0.0]]),
    "empty start": (ValueError, "theta0 has shape", [slope], [1.0], []),
    "text start": (TypeError, "theta0", [slope], [1.0], ["a"]),
    "loss is a vector": (
        ValueError,
        r"losses\[1\]\(theta0\) has shape \(2,\)",
        [slope, lambda t: t],
        [0.5, 0.5],
        [0.0, 0.0],
    ),
    "loss is float32": (ValueError, "torch.float32", [lambda t: t[0].float()], [1.0], [0.0]),
    "loss is a float": (TypeError, r"losses\[0\]\(theta0\) is a float", [lambda t: 1.0], [1.0], [0.0]),
    "loss is infinite": (ValueError, r"losses\[0\]\(theta0\) = inf", [lambda t: 1 / t[0]], [1.0], [0.0]),
    "loss is NaN": (ValueError, r"losses\[0\]\(theta0\) = nan", [lambda t: t[0].log()], [1.0], [-1.0]),
    "gradient is infinite": (ValueError, r"losses\[0\] has the gradient", [lambda t: t[0].sqrt()], [1.0], [0.0]),
    "gradient is severed": (ValueError, "carries no gradient", [lambda t: (t.detach() ** 2).sum()], [1.0], [1.0]),
}


@pytest.mark.parametrize(("error", "message", "losses", "p", "theta0"), BAD.values(), ids=BAD.keys())
def test_bad_problems_are_refused_by_name(error, message, losses, p, theta0):
    with pytest.raises(error, match=message):
        FiniteProblem(losses, p, theta0)


@pytest.mark.parametrize(
    ("method", "argument", "message"),
    [
        ("loss", [0.0], r"theta has shape \(1,\): expected \(2,\)"),
        ("loss", [0.0, np.inf], r"theta\[1\] = inf"),
        ("values", [0.0, 0.0], r"thetas has shape \(2,\)"),
        ("gradients", [[0.0]], r"thetas has shape \(1, 1\)"),
        ("gradients", [[0.0, np.nan]], r"thetas\[0, 1\] = nan"),
    ],
)
def test_bad_parameters_are_refused_by_name(problem_b, method, argument, message):
    with pytest.raises(ValueError, match=message):
        getattr(problem_b, method)(argument)


def test_derivatives_are_those_of_nested_forward_mode():
    from torch.func import grad, jacfwd

    def loss(t):
        return torch.tanh(t).prod() + (t**4).sum() + torch.exp(t[0] * t[1])

    theta = [0.3, 0.2, -0.5]
    found = FiniteProblem([loss, lambda t: t[0]], [0.5, 0.5], theta).derivatives(4)
    f, at = loss, torch.tensor(theta, dtype=torch.float64)
    assert [tensor.shape for tensor in found] == [(2, *(3,) * k) for k in range(5)]
    for k, tensor in enumerate(found):
        np.testing.assert_allclose(tensor[0], f(at), rtol=1e-12, atol=1e-12)
        f = grad(f) if k == 0 else jacfwd(f)
    assert [np.abs(tensor[1]).sum() for tensor in found] == [0.3, 1, 0, 0, 0]


def test_derivatives_elsewhere_and_with_control_flow():
    problem = FiniteProblem([lambda t: t[0] ** 3 if t[0] > 0 else t[0] ** 2], [1.0], [1.0])
    assert [float(tensor.squeeze()) for tensor in problem.derivatives(3)] == [1, 3, 6, 6]
    assert [float(tensor.squeeze()) for tensor in problem.derivatives(3, [-1.0])] == [1, -2, 2, 0]


def test_a_derivative_that_is_not_finite_is_named():
    problem = FiniteProblem([lambda t: t[0] ** 2.5, lambda t: t[0]], [0.5, 0.5], [0.0])
    with pytest.raises(ValueError, match=r"losses\[0\] has the derivative of order 3 .*: expected finite numbers"):
        problem.derivatives(3)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "hardtanh", "abs", "max", "clamp"])
def test_kinks_are_found(name):
    loss = {"abs": torch.abs, "max": torch.amax, "clamp": lambda t: t.clamp(min=0)}.get(
        name, getattr(torch.nn.functional, name, None)
    )
    assert FiniteProblem([lambda t: loss(t * t).sum() ** 2], [1.0], [0.3, 0.2]).kinks()


@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu", "silu", "sigmoid"])
def test_smooth_losses_have_no_kinks(name):
    assert not FiniteProblem([lambda t: getattr(torch.nn.functional, name)(t).sum()], [1.0], [0.3, 0.2]).kinks()


def normalised(norm):
    """A loss of four parameters with a normalisation of their products."""

    def loss(t):
        x = torch.tanh(torch.outer(t, torch.arange(1.0, 4, dtype=t.dtype)))
        return (norm(x) ** 2 * torch.arange(12.0, dtype=t.dtype).reshape(4, 3)).sum() + torch.sin(norm(x)).sum()

    return FiniteProblem([loss], [1.0], [0.3, -0.2, 0.5, 0.7])


def layer_norm_written_out(x):
    c = x - x.mean(1, keepdim=True)
    return c / torch.sqrt((c * c).mean(1, keepdim=True) + 1e-5)


def test_wrong_higher_derivatives_of_a_normalisation_are_refused():
    # torch's third derivatives of layer_norm are off by a tenth here; the first two are right
    fused, written = normalised(lambda x: torch.nn.functional.layer_norm(x, (3,))), normalised(layer_norm_written_out)
    for ours, theirs in zip(fused.derivatives(2), written.derivatives(2), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match=r"losses\[0\]: automatic differentiation is wrong .* of order 3"):
        fused.derivatives(3)
    assert np.isfinite(written.derivatives(4)[4]).all()
