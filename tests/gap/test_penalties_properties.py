"""Penalties on random gradients, and the modified loss of models with written-down losses."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg.gap import penalties
from strategies import designs, quadratics

FEW = settings(max_examples=settings().max_examples // 2)


@given(designs(max_n=4, max_d=3).filter(lambda g: len(g) > 1), st.sampled_from([1 / 8, 1.0]), st.data())
def test_the_penalty_of_gd_is_the_mean_of_smiths_less_that_of_barrett_and_dherin(g, eta, data):
    N = len(g)
    n = data.draw(st.sampled_from([k for k in range(1, N + 1) if N % k == 0]))
    means = np.array([[g[list(o[k : k + n])].mean(0) for k in range(0, N, n)] for o in permutations(range(N))])
    smith = [penalties.smith_penalty(batch_means, eta) for batch_means in means]
    np.testing.assert_allclose(smith, eta / 4 * (means**2).sum(2).mean(1), rtol=1e-11, atol=1e-14)
    whole = penalties.barrett_dherin_penalty(g, eta)
    assert whole == pytest.approx(eta / 4 * np.sum(g.mean(0) ** 2), rel=1e-11, abs=1e-14)
    found = penalties.roberts_penalty(g, eta, batch_size=n)
    assert found == pytest.approx(np.mean(smith) - whole, rel=1e-10, abs=1e-12)


@st.composite
def plans(draw, least=2):
    """A model with quadratic losses, eta, and a batch size; the loss, gradient and Hessian of every example."""
    case = draw(quadratics(least))
    N = len(case.g)
    n = draw(st.sampled_from([k for k in range(1, N + 1) if N % k == 0]))
    return case, draw(st.sampled_from([1 / 8, 1.0])), n


@FEW
@given(plans())
def test_modified_loss_is_the_mean_over_shuffles_of_the_loss_with_smiths_penalty(plan):
    """Less that of Barrett and Dherin; every order is listed, no covariance is formed."""
    case, eta, n = plan
    N = len(case.g)
    orders = permutations(range(N))
    smith = [
        eta / 4 * np.mean([np.sum(case.g[list(o[k : k + n])].mean(0) ** 2) for k in range(0, N, n)]) for o in orders
    ]
    expected = case.losses.mean() + np.mean(smith) - eta / 4 * np.sum(case.g.mean(0) ** 2)
    found = penalties.modified_loss(*case.arguments, eta=eta, batch_size=n)
    assert found.shape == ()
    assert float(found) == pytest.approx(
        expected, abs=1e-12 * (1 + np.abs(case.g).max() ** 2 + np.abs(case.losses).max())
    )


@FEW
@given(plans())
def test_modified_gradient_is_the_slope_of_the_modified_loss(plan):
    """Quadratic losses make tr S quadratic: a central difference with the step 1 is exact. And by pairs of examples."""
    case, eta, n = plan
    N, p = case.g.shape
    found = penalties.modified_gradient(*case.arguments, eta=eta, batch_size=n).numpy()

    def value(move):
        model, *rest = case.arguments
        with torch.no_grad():
            model.theta += torch.from_numpy(move)
            loss = float(penalties.modified_loss(model, *rest, eta=eta, batch_size=n))
            model.theta -= torch.from_numpy(move)
        return loss

    size = 1 + (np.abs(case.g).max() + np.abs(case.h).max()) ** 2
    slope = [(value(e) - value(-e)) / 2 for e in np.eye(p)]
    np.testing.assert_allclose(found, slope, rtol=0, atol=1e-12 * size)
    pairs = [(case.h[i] - case.h[j]) @ (case.g[i] - case.g[j]) for i, j in combinations(range(N), 2)]
    expected = case.g.mean(0) + eta / 4 * (1 / n - 1 / N) * 2 * sum(pairs) / (N * (N - 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * size)


@FEW
@given(plans())
def test_whole_batches_need_no_penalty_and_half_the_step_has_half(plan):
    case, eta, n = plan
    N = len(case.g)
    size = 1 + (np.abs(case.g).max() + np.abs(case.h).max()) ** 2
    one, half = (penalties.modified_gradient(*case.arguments, eta=e, batch_size=n).numpy() for e in (eta, eta / 2))
    whole = penalties.modified_gradient(*case.arguments, eta=eta, batch_size=N).numpy()
    np.testing.assert_allclose(whole, case.g.mean(0), rtol=0, atol=1e-13 * size)
    np.testing.assert_allclose(one - whole, 2 * (half - whole), rtol=0, atol=1e-12 * size)


def test_the_penalty_of_smith_alone_is_another_loss():
    """At gradients 1 and 3 and batches of one: 10/8 more, not 10/8 - 8/8."""
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.ones_(model.weight)
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    found = float(penalties.modified_loss(model, lambda out, _: out[:, 0], x, x, eta=1.0, batch_size=1))
    assert found == pytest.approx(2 + 5 / 4 - 1, abs=1e-14)
    assert abs(found - (2 + penalties.smith_penalty([[1.0], [3.0]], 1.0))) > 0.9
