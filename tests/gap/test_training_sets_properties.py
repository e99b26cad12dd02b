"""Drift in the mean over training sets, on random problems and schedules: each formula by its other definition."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg.gap import onestep, training_sets
from strategies import finite_problems

FEW = settings(max_examples=settings().max_examples // 4)
MOMENTA = st.sampled_from([0.0, 0.5, 0.875])

PLANS = st.sampled_from([(2, 1), (2, 2), (3, 3), (4, 2), (4, 4)])


@st.composite
def plans(draw):
    """Step sizes and batches; an index may stand several times."""
    T = draw(st.integers(1, 4))
    etas = np.array(draw(st.lists(st.integers(1, 8), min_size=T, max_size=T))) / 8
    return etas, [draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)) for _ in range(T)]


def shares(batch, N):
    return np.bincount(batch, minlength=N) / len(batch)


@given(plans(), MOMENTA)
def test_pair_sum_is_what_a_linear_recursion_leaves(plan, momentum):
    """The steps' effects by running heavy ball on unit pushes: a_{t,s} is where a push of step s has led by step t."""
    etas, batches = plan
    T, N = len(etas), 4

    def reach(s, t):
        v, moved = 0.0, 0.0
        for r in range(t):
            v = momentum * v + (r == s)
            moved += etas[r] * v
        return moved

    W = np.array([shares(b, N) for b in batches])
    expected = sum(reach(k, T) * reach(j, k) * (1 / N - W[j] @ W[k]) for k in range(T) for j in range(k))
    assert training_sets.pair_sum(etas, batches, N, momentum=momentum) == pytest.approx(expected, rel=1e-11, abs=1e-13)


@FEW
@given(finite_problems(), plans(), MOMENTA)
def test_schedule_drift_is_the_pair_sum_along_the_slope_of_the_trace(problem, plan, momentum):
    at = onestep.moments(problem)
    expected = at.grad_trace / 2 * training_sets.pair_sum(*plan, 4, momentum=momentum)
    found = training_sets.schedule_drift(problem, *plan, 4, momentum=momentum)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@FEW
@given(finite_problems(), PLANS, st.sampled_from([1, 2]), MOMENTA, st.booleans())
def test_drift_is_the_mean_of_the_drifts_of_all_orders(problem, plan, epochs, momentum, reshuffle):
    N, K = plan
    eta, n = 1 / 8, N // K
    orders = [[order[k : k + n] for k in range(0, N, n)] for order in permutations(range(N))]
    later = orders if reshuffle and epochs == 2 else orders[:1]  # by symmetry the first epoch may have one order
    runs = [orders[0] + order if epochs == 2 else order for order in later]
    mean = np.mean([training_sets.pair_sum([eta] * (K * epochs), run, N, momentum=momentum) for run in runs])
    found = training_sets.drift(problem, eta, N=N, K=K, epochs=epochs, momentum=momentum, reshuffle=reshuffle)
    np.testing.assert_allclose(found, onestep.moments(problem).grad_trace / 2 * mean, rtol=1e-10, atol=1e-12)


@given(st.integers(1, 12), MOMENTA)
def test_modified_coefficient_makes_the_two_sums_agree(K, momentum):
    a = np.cumsum(momentum ** np.arange(K))
    W = sum(a[m] * a[k] for m, k in product(range(K), repeat=2) if m + k + 2 <= K)
    assert training_sets.modified_coefficient(K, momentum) == pytest.approx(W / (2 * a.sum()), rel=1e-12)
