"""Penalties on the gradient's variance: their flows against the mean over shuffles, and networks by autograd."""

import numpy as np
import pytest
import torch
from enumerated import data_set, weights_of
from implicitreg import FiniteProblem
from implicitreg.gap import one_data_set, penalties
from scipy.integrate import solve_ivp

ETAS = 0.08 / 2.0 ** np.arange(5)


@pytest.mark.parametrize("K", [2, 4])
def test_penalties_differ_by_the_trace(problem_b, K):
    g = data_set(problem_b, [0, 1, 2, 0]).gradients(problem_b.theta0[None])[0]
    batches = weights_of("epochs", 4, K, 1) @ g
    smith = np.mean([penalties.smith_penalty(b, 0.3) for b in batches])
    flow = penalties.barrett_dherin_penalty(g, 0.3)
    assert smith - flow == pytest.approx(penalties.roberts_penalty(g, 0.3, batch_size=4 // K), rel=1e-13)
    assert penalties.roberts_penalty(g, 0.3, batch_size=4) == 0
    biased = 0.3 / 4 * (K / 4 - 1 / 4) * np.trace(np.cov(g.T, ddof=0))
    assert abs(smith - flow - biased) > 0.1 * (smith - flow)


@pytest.mark.parametrize("K", [2, 4])
def test_flow_on_smiths_loss_follows_the_mean_over_shuffles(problem_b, K):
    """Flow for time K eta on the mean over shuffles of Smith's loss; without the penalty only through eta."""
    data, small = data_set(problem_b, [0, 1, 2, 0]), ETAS / 8
    W = weights_of("epochs", 4, K, 1)
    first = np.unique(W.reshape(-1, K * 4).round(12), axis=0).reshape(-1, K, 4)

    def slope(theta, eta, step=1e-5):
        def loss(t):
            g = data.gradients(t[None])[0]
            return data.loss(t) + np.mean([penalties.smith_penalty(w @ g, eta) for w in first])

        return np.array([(loss(theta + h) - loss(theta - h)) / (2 * step) for h in step * np.eye(2)])

    off = []
    for eta in small[:1].tolist() + small[4:].tolist():
        flow = solve_ivp(lambda _, t, e=eta: -slope(t, e), (0, K * eta), data.theta0, rtol=1e-9, atol=1e-12).y[:, -1]
        off.append(np.abs(flow - one_data_set.paths(data, eta, W)[:, -1].mean(axis=0)).max())
    assert off[0] / off[1] == pytest.approx(16**3, rel=0.35)


def small_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    inputs, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])
    return model, torch.nn.CrossEntropyLoss(reduction="none"), inputs, targets


def naive_modified_loss(model, loss, inputs, targets, eta, n):
    """By the definition, one example at a time, with a graph."""
    N, parameters = len(inputs), list(model.parameters())
    losses = [loss(model(x[None]), y[None])[0] for x, y in zip(inputs, targets, strict=True)]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(each, parameters, create_graph=True)]) for each in losses
    ]
    centred = torch.stack(rows) - torch.stack(rows).mean(0)
    return sum(losses) / N + eta / 4 * (1 / n - 1 / N) * (centred**2).sum() / (N - 1)


def test_modified_gradient_of_a_network_is_the_gradient_of_the_modified_loss():
    model, loss, inputs, targets = small_model()
    value = naive_modified_loss(model, loss, inputs, targets, 0.5, 2)
    got = penalties.modified_loss(model, loss, inputs, targets, eta=0.5, batch_size=2)
    assert got.item() == pytest.approx(value.item(), rel=1e-13)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])
    got = penalties.modified_gradient(model, loss, inputs, targets, eta=0.5, batch_size=2)
    torch.testing.assert_close(got, gradient, rtol=1e-12, atol=1e-13)


def test_network_and_finite_problem_agree():
    """One weight, two examples: the torch gradient is the step of data_modified_gd."""
    data = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [0.7])
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, 0.7)
    h = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    loss = lambda w, h: (h * w**2 / 2).squeeze(1)  # noqa: E731
    g = penalties.modified_gradient(model, loss, torch.ones_like(h), h, eta=0.2, batch_size=1)
    assert 0.7 - 0.2 * g.item() == pytest.approx(one_data_set.data_modified_gd(data, 0.2, K=2)[1, 0], rel=1e-13)


MODEL = small_model()

BAD = {
    "smith-nan": (ValueError, "gradients", lambda: penalties.smith_penalty([[np.nan]], 0.1)),
    "barrett-empty": (ValueError, "gradients", lambda: penalties.barrett_dherin_penalty(np.zeros((0, 2)), 0.1)),
    "roberts-one": (ValueError, "at least two", lambda: penalties.roberts_penalty([[1.0]], 0.1, batch_size=1)),
    "roberts-batch": (ValueError, "batch_size = 2",
                      lambda: penalties.roberts_penalty(np.ones((3, 1)), 0.1, batch_size=2)),
    "model-eta": (ValueError, "eta", lambda: penalties.modified_gradient(*MODEL, eta=0, batch_size=2)),
    "model-batch": (ValueError, "batch_size", lambda: penalties.modified_loss(*MODEL, eta=0.1, batch_size=4)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, words, call = BAD[case]
    with pytest.raises(error, match=words):
        call()
