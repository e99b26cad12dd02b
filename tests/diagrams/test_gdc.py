"""GDC follows SGD through eta², exactly; its penalty on networks, by loops and by enumeration."""

import itertools
import math
from fractions import Fraction as Q
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from implicitreg import FiniteProblem, nets
from implicitreg.diagrams.corollaries import gdc
from torch import nn

CROSS_ENTROPY = partial(F.cross_entropy, reduction="none")


# --- exact series: derivatives in eta, at 0, of descents over all training sets -----------------------------


def gradient(f, theta):
    return torch.autograd.grad(f(theta), theta, create_graph=True)[0]


def sgd(losses, data, theta, eta, T):
    """One example a step, in the order of the data."""
    for t in range(T):
        theta = theta - eta * gradient(losses[data[t % len(data)]], theta)
    return theta


def descent(penalty, losses, data, theta, eta, T):
    """Full batches, with a penalty that is a function of the gradients (N, d) of the training set."""
    for _ in range(T):
        g = torch.stack([gradient(losses[i], theta) for i in data])
        step = g.mean(0)
        if penalty is not None:
            step = step + torch.autograd.grad(penalty(g, eta), theta, create_graph=True)[0]
        theta = theta - eta * step
    return theta


def empirical(g, eta):
    return eta / (4 * len(g)) * (g - g.mean(0)).square().sum()


def taylor(problem, method, N, T):
    """Coefficients 0 to 2 of the mean test loss and of the mean theta."""
    values = torch.zeros(1 + problem.d, 3, dtype=torch.float64)
    for data in itertools.product(range(problem.m), repeat=N):
        eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        start = torch.from_numpy(problem.theta0.copy()).requires_grad_()
        theta = method(problem.losses, data, start, eta, T)
        loss = sum(p * f(theta) for p, f in zip(problem.probabilities, problem.losses, strict=True))
        weight = math.prod(problem.probabilities[list(data)])
        for row, value in enumerate([loss, *theta]):
            first = torch.autograd.grad(value, eta, create_graph=True)[0]
            second = torch.autograd.grad(first, eta, retain_graph=True, materialize_grads=True)[0]
            values[row] += weight * torch.stack([value, first, second / 2]).detach()
    return values.numpy()


GDC = partial(descent, empirical)
GD = partial(descent, None)
#  eta² coefficient of the mean test loss: SGD, which GDC shares, and GD (rational arithmetic)
SECOND = {
    ("a", 2): (Q(85, 24), Q(37, 12)),
    ("a", 3): (Q(95, 16), Q(241, 48)),
    ("b", 2): (Q(1718161097741, 408146688000), Q(516454575901, 136048896000)),
}


@pytest.mark.parametrize(("name", "N"), SECOND)
def test_gdc_follows_sgd_through_the_second_order_and_gd_does_not(request, name, N):
    problem = request.getfixturevalue(f"problem_{name}")
    by_sgd, by_gdc, by_gd = (taylor(problem, method, N, N) for method in (sgd, GDC, GD))
    np.testing.assert_allclose(by_gdc, by_sgd, rtol=1e-12, atol=1e-14)
    assert by_gdc[0, 2] == pytest.approx(float(SECOND[name, N][0]), rel=1e-12)
    assert by_gd[0, 2] == pytest.approx(float(SECOND[name, N][1]), rel=1e-12)
    np.testing.assert_allclose(by_gd[:, :2], by_sgd[:, :2], rtol=1e-12, atol=1e-14)
    assert (np.abs(by_gd[:, 2] - by_sgd[:, 2]) > 0.05).all()


@pytest.mark.parametrize(("name", "N"), SECOND)
def test_the_population_penalty_serves_as_well(request, name, N):
    """Its force is that of `regularizer` at every theta, to the order that counts: at the start."""
    problem = request.getfixturevalue(f"problem_{name}")
    force = torch.from_numpy(gdc.regularizer(problem, 1.0, N).gradient)

    def method(losses, data, theta, eta, T):
        for _ in range(T):
            step = torch.stack([gradient(losses[i], theta) for i in data]).mean(0)
            theta = theta - eta * (step + eta * force)
        return theta

    ours, by_sgd = taylor(problem, method, N, N), taylor(problem, sgd, N, N)
    np.testing.assert_allclose(ours, by_sgd, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("N", "T"), [(2, 2), (2, 4), (3, 3)])
def test_gdc_follows_whole_epochs_on_every_training_set(problem_b, N, T):
    """In the mean over the orders alone: the start is the same, the data are not averaged over."""
    for data in itertools.combinations_with_replacement(range(3), N):
        eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        start = torch.from_numpy(problem_b.theta0.copy()).requires_grad_()

        def second(theta, eta=eta):
            first = [torch.autograd.grad(x, eta, create_graph=True)[0] for x in theta]
            return np.array([torch.autograd.grad(f, eta, retain_graph=True)[0].item() for f in first])

        orders = list(itertools.permutations(data))
        by_sgd = sum(second(sgd(problem_b.losses, order, start, eta, T)) for order in orders) / len(orders)
        np.testing.assert_allclose(second(GDC(problem_b.losses, data, start, eta, T)), by_sgd, rtol=1e-11, atol=1e-12)


def test_fresh_examples_and_broken_epochs_are_not_followed(problem_a):
    """Four steps of GDC on two examples are no four steps on fresh ones, nor three of them an epoch and a half."""
    fresh, by_gdc = taylor(problem_a, sgd, 4, 4), taylor(problem_a, GDC, 2, 4)
    assert fresh[0, 2] == pytest.approx(35 / 4)
    assert by_gdc[0, 2] == pytest.approx(51 / 4)
    broken, by_gdc = taylor(problem_a, sgd, 2, 3), taylor(problem_a, GDC, 2, 3)
    assert abs(by_gdc[0, 2] - broken[0, 2]) > 0.3


@pytest.mark.parametrize("factor", [1 / 2, 2.0])
def test_another_factor_leaves_a_difference_of_second_order(problem_a, factor):
    method = partial(descent, lambda g, eta: factor * empirical(g, eta))
    ours, by_sgd = taylor(problem_a, method, 3, 3), taylor(problem_a, sgd, 3, 3)
    assert (np.abs(ours[:, 2] - by_sgd[:, 2]) > 0.3).all()


# --- the population -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.3, [[1.0, 1 / 3], [1 / 3, 1 / 2]]], ids=["number", "matrix"])
def test_regularizer_is_the_trace_of_the_covariance_and_its_gradient(problem_b, eta):
    metric = np.asarray(eta) * np.eye(2) if np.ndim(eta) == 0 else np.asarray(eta)

    def trace(theta):
        theta = torch.as_tensor(theta)
        p = torch.tensor(problem_b.probabilities)
        g = torch.stack([gradient(f, theta) for f in problem_b.losses])
        C = torch.einsum("m,mi,mj->ij", p, g, g) - torch.outer(p @ g, p @ g)
        return 2 / 12 * (torch.from_numpy(metric) * C).sum()

    theta = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    value = trace(theta)
    ours = gdc.regularizer(problem_b, eta, 3, theta.detach().numpy())
    assert ours.value == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(ours.gradient, torch.autograd.grad(value, theta)[0], rtol=1e-12)


def test_the_gradient_has_the_reference_values(problem_a, problem_b):
    """∂ tr C = −11/3 for A; for B as rationals; times (N − 1)/(4N)."""
    assert gdc.regularizer(problem_a, 1.0, 2).gradient == pytest.approx(-11 / 3 / 8)
    expected = np.array([-226439 / 145800, 4206523 / 2624400]) * 2 / 12
    np.testing.assert_allclose(gdc.regularizer(problem_b, 1.0, 3).gradient, expected, rtol=1e-12)


# --- networks -----------------------------------------------------------------------------------------------


def flat(parameters):
    return torch.cat([p.reshape(-1) for p in parameters])


def data(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.arange(n) % 3


NETWORKS = {
    "mlp": lambda: nets.mlp((3, 4, 3), seed=1),
    "layer-norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)).double(),
}


def by_loop(model, loss, x, y, eta):
    """The penalty, one example after the other, with the graph for a second backward pass."""
    theta = list(model.parameters())
    rows = [
        flat(torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1])[0], theta, create_graph=True))
        for i in range(len(x))
    ]
    return empirical(torch.stack(rows), eta)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_penalty_and_its_gradient_are_those_of_the_loop(network, chunk_size):
    model, (x, y) = NETWORKS[network](), data()
    theta = list(model.parameters())
    ours = gdc.gdc_penalty(model, CROSS_ENTROPY, x, y, 0.3, chunk_size=chunk_size)
    loop = by_loop(model, CROSS_ENTROPY, x, y, 0.3)
    torch.testing.assert_close(ours.detach(), loop.detach(), rtol=1e-12, atol=0)
    found, right = (flat(torch.autograd.grad(value, theta)) for value in (ours, loop))
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12 * float(right.abs().max()))


def test_added_to_a_loss_it_adds_its_gradient():
    model, (x, y) = NETWORKS["mlp"](), data()
    theta = list(model.parameters())
    (CROSS_ENTROPY(model(x), y).mean() + 2 * gdc.gdc_penalty(model, CROSS_ENTROPY, x, y, 0.3)).backward()
    expected = CROSS_ENTROPY(model(x), y).mean() + 2 * by_loop(model, CROSS_ENTROPY, x, y, 0.3)
    right = torch.autograd.grad(expected, theta)
    for p, g in zip(theta, right, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-12, atol=1e-14)


def test_frozen_parameters_do_not_count():
    model, (x, y) = NETWORKS["mlp"](), data()
    model[0].requires_grad_(False)
    penalty = gdc.gdc_penalty(model, CROSS_ENTROPY, x, y, 0.3)
    penalty.backward()
    assert model[0].weight.grad is None
    rows = []
    for i in range(6):
        g = torch.autograd.grad(CROSS_ENTROPY(model(x[i : i + 1]), y[i : i + 1])[0], list(model[2].parameters()))
        rows.append(flat(g))
    torch.testing.assert_close(penalty.detach(), empirical(torch.stack(rows), 0.3), rtol=1e-12, atol=0)


def test_without_gradients_it_is_a_number():
    model, (x, y) = NETWORKS["mlp"](), data()
    with torch.no_grad():
        penalty = gdc.gdc_penalty(model, CROSS_ENTROPY, x, y, 0.3)
    assert not penalty.requires_grad
    torch.testing.assert_close(penalty, by_loop(model, CROSS_ENTROPY, x, y, 0.3).detach(), rtol=1e-12, atol=0)


def test_a_second_derivative_is_refused():
    model, (x, y) = NETWORKS["mlp"](), data()
    penalty = gdc.gdc_penalty(model, CROSS_ENTROPY, x, y, 0.3)
    g = torch.autograd.grad(penalty, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(g[0].sum(), list(model.parameters()))


class OfProblem(nn.Module):
    """A finite problem as a torch model: theta, once an example; the target is the example's index."""

    def __init__(self, problem):
        super().__init__()
        self.theta = nn.Parameter(torch.from_numpy(problem.theta0.copy()))

    def forward(self, x):
        return self.theta.expand(len(x), -1)


def loss_of(problem):
    """All losses of every row, of which the target chooses one."""

    def loss(outputs, targets):
        every = torch.stack([torch.stack([f(theta) for f in problem.losses]) for theta in outputs])
        return every.gather(1, targets[:, None])[:, 0]

    return loss


def value_and_gradient(penalty, model):
    return np.append(torch.autograd.grad(penalty, model.theta)[0].numpy(), penalty.item())


def mean_over_training_sets(problem, N, penalty):
    """Value and gradient of a penalty, in the mean over all training sets."""
    model, total = OfProblem(problem), 0
    for rows in itertools.product(range(problem.m), repeat=N):
        y = torch.tensor(rows)
        value = penalty(model, loss_of(problem), torch.zeros(N, 1, dtype=torch.float64), y, 0.3)
        total += math.prod(problem.probabilities[list(rows)]) * value_and_gradient(value, model)
    return total


@pytest.mark.parametrize("N", [2, 3])
def test_the_penalty_is_unbiased_over_all_training_sets(problem_b, N):
    at = gdc.regularizer(problem_b, 0.3, N)
    expected = np.append(at.gradient, at.value)
    ours = mean_over_training_sets(problem_b, N, gdc.gdc_penalty)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    # with 1/(N − 1), as in the sample covariance, it would be too large by N/(N − 1)
    assert np.abs(ours * N / (N - 1) / expected - 1).min() > 0.4


@pytest.mark.parametrize("N", [2, 4])
def test_half_splits_are_unbiased_over_all_training_sets(problem_a, N):
    at = gdc.regularizer(problem_a, 0.3, N)
    ours = mean_over_training_sets(problem_a, N, gdc.half_split_penalty)
    np.testing.assert_allclose(ours, np.append(at.gradient, at.value), rtol=1e-12)


def test_half_splits_of_the_same_examples_are_unbiased_for_the_penalty():
    model, (x, y) = NETWORKS["mlp"](), data()
    theta = list(model.parameters())
    full = gdc.gdc_penalty(model, CROSS_ENTROPY, x, y, 0.3)
    values, gradients = [], []
    for first in itertools.combinations(range(6), 3):
        order = torch.tensor([*first, *(i for i in range(6) if i not in first)])
        penalty = gdc.half_split_penalty(model, CROSS_ENTROPY, x[order], y[order], 0.3)
        values.append(penalty.item())
        gradients.append(flat(torch.autograd.grad(penalty, theta)))
    assert np.mean(values) == pytest.approx(full.item(), rel=1e-12)
    right = flat(torch.autograd.grad(full, theta))
    mean = torch.stack(gradients).mean(0)
    torch.testing.assert_close(mean, right, rtol=1e-11, atol=1e-13)
    assert np.std(values) > 0.1 * full.item()


def test_the_printed_estimator_has_half_of_the_mean(problem_b):
    """(g_x − g_y) · g_x / 2 over all pairs, and without its 1/2; and the stop-gradient without its 2."""
    p = problem_b.probabilities
    _, g, h = problem_b.derivatives(2)
    weights = np.outer(p, p)
    differences = g[:, None] - g[None]
    printed = (weights * (differences * g[:, None]).sum(2)).sum() / 2
    stopped = np.einsum("xy,xij,xyj->i", weights, h, differences)
    at = gdc.regularizer(problem_b, 1.0, 2)  # tr C / 8
    assert printed == pytest.approx(8 * at.value / 2, rel=1e-12)
    np.testing.assert_allclose(stopped, 8 * at.gradient / 2, rtol=1e-12)


def test_a_loss_with_constant_gradients_has_no_force():
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    for penalty in (gdc.gdc_penalty, gdc.half_split_penalty):
        value = penalty(model, lambda outputs, _: outputs[:, 0], x, x, 1.0)
        assert torch.autograd.grad(value, model.weight)[0].item() == 0
    assert gdc.gdc_penalty(model, lambda outputs, _: outputs[:, 0], x, x, 1.0).item() == 2 / 8


# --- bad input ----------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("penalty", [gdc.gdc_penalty, gdc.half_split_penalty])


@BOTH
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(3)], ids=["dropout", "batch-norm"])
def test_training_mode_is_refused(penalty, layer):
    model = nn.Sequential(nn.Linear(3, 3), layer, nn.Tanh(), nn.Linear(3, 3)).double()
    with pytest.raises(ValueError, match=r"expected eval\(\) mode"):
        penalty(model, CROSS_ENTROPY, *data(), 0.1)


def hard_examples(outputs, targets):
    """The harder half of the batch counts."""
    losses = CROSS_ENTROPY(outputs, targets)
    return losses * (losses >= losses.detach().median())


@BOTH
def test_losses_that_couple_the_examples_are_refused(penalty):
    with pytest.raises(ValueError, match="couples the examples"):
        penalty(NETWORKS["mlp"](), hard_examples, *data(), 0.1)


@BOTH
@pytest.mark.parametrize(("eta", "error"), [(0.0, ValueError), (math.inf, ValueError), (np.eye(2), TypeError)])
def test_step_sizes_are_positive_numbers(penalty, eta, error):
    with pytest.raises(error, match="eta = "):
        penalty(NETWORKS["mlp"](), CROSS_ENTROPY, *data(), eta)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, x, y: gdc.gdc_penalty(m, CROSS_ENTROPY, x[:1], y[:1], 0.1), ValueError, "at least 2"),
        (lambda m, x, y: gdc.gdc_penalty("net", CROSS_ENTROPY, x, y, 0.1), TypeError, "model is a str"),
        (lambda m, x, y: gdc.half_split_penalty(m, CROSS_ENTROPY, x[:3], y[:3], 0.1), ValueError, "an even number"),
        (lambda m, x, y: gdc.half_split_penalty(m, CROSS_ENTROPY, x, y[:4], 0.1), ValueError, "targets has shape"),
        (lambda m, x, y: gdc.half_split_penalty(m, CROSS_ENTROPY, x.numpy(), y, 0.1), TypeError, "inputs is a ndarray"),
        (lambda m, x, y: gdc.half_split_penalty("net", CROSS_ENTROPY, x, y, 0.1), TypeError, "model is a str"),
    ],
)
def test_bad_input_of_penalties_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(NETWORKS["mlp"](), *data())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((1.0, 0), ValueError, "N = 0"),
        ((-1.0, 2), ValueError, "eta = -1.0"),
        (([[1.0, 2.0], [2.0, 1.0]], 2), ValueError, "eta has the eigenvalue -1"),
        ((1.0, 2, [1.0]), ValueError, r"theta has shape \(1,\)"),
    ],
)
def test_bad_input_of_the_regularizer_is_named(problem_b, arguments, error, words):
    with pytest.raises(error, match=words):
        gdc.regularizer(problem_b, *arguments)


def test_a_problem_is_expected():
    with pytest.raises(TypeError, match="expected a FiniteProblem"):
        gdc.regularizer([abs], 1.0, 2)


def test_one_example_has_no_regularizer():
    problem = FiniteProblem([lambda t: t[0] ** 2, lambda t: t[0]], [0.5, 0.5], [1.0])
    assert gdc.regularizer(problem, 1.0, 1).value == 0
