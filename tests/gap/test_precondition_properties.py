"""The low-rank preconditioner of random gradients: equal rows, one direction, zeros, more rows than columns."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from implicitreg.gap import precondition
from strategies import designs, triangular, vectors

POWERS = st.sampled_from([0.5, 1.0, 2.0])
LAMBDAS = st.sampled_from([1 / 16, 1.0, 8.0])


def covariance(J):
    return np.atleast_2d(np.cov(J.T))


@given(designs(max_n=5, max_d=4).filter(lambda J: len(J) > 1), LAMBDAS, POWERS, st.data())
def test_at_full_rank_it_is_the_power_of_the_matrix(J, lam, power, data):
    P = precondition.low_rank(torch.from_numpy(J), rank=len(J), lam=lam, power=power)
    s, V = np.linalg.eigh(covariance(J))
    expected = (V * (lam / (s.clip(0) + lam)) ** power) @ V.T
    np.testing.assert_allclose(P.dense().numpy(), expected, rtol=0, atol=1e-10)
    g = data.draw(vectors(J.shape[1]))
    np.testing.assert_allclose(P.apply(torch.from_numpy(g)).numpy(), expected @ g, rtol=0, atol=1e-9)
    rows = torch.from_numpy(np.vstack([g, 2 * g]))
    np.testing.assert_allclose(P.apply(rows).numpy(), np.vstack([g, 2 * g]) @ expected, rtol=0, atol=1e-9)


@given(designs(max_n=5, max_d=4).filter(lambda J: len(J) > 1), st.integers(0, 3), LAMBDAS, POWERS)
def test_a_lower_rank_leaves_the_other_directions_alone(J, rank, lam, power):
    """Where the next eigenvalue is clearly smaller, so that the leading space is defined."""
    s, V = np.linalg.eigh(covariance(J))
    s, V = s[::-1].clip(0), V[:, ::-1]
    assume(rank >= len(s) or rank == 0 or s[rank - 1] - s[rank] > 1e-3)
    P = precondition.low_rank(torch.from_numpy(J), rank=rank, lam=lam, power=power).dense().numpy()
    shrink = np.where(np.arange(len(s)) < rank, (lam / (s + lam)) ** power, 1.0)
    np.testing.assert_allclose(P, (V * shrink) @ V.T, rtol=0, atol=1e-9)
    values = np.linalg.eigvalsh(P)
    assert values[0] > 0
    assert values[-1] <= 1 + 1e-12


@given(designs(max_n=5, max_d=3).filter(lambda J: len(J) > 1), POWERS, st.data())
def test_it_does_not_see_a_common_vector_and_follows_scale_and_rotation(J, power, data):
    assume(np.linalg.eigvalsh(covariance(J))[-1] > 1e-3)

    def make(rows):
        return precondition.low_rank(torch.from_numpy(rows), rank=len(rows), rho=0.25, power=power).dense().numpy()

    P, shift = make(J), data.draw(vectors(J.shape[1]))
    Q = np.linalg.qr(data.draw(triangular(J.shape[1])) + np.triu(np.ones((J.shape[1],) * 2), 1))[0]
    np.testing.assert_allclose(make(J + shift), P, rtol=0, atol=1e-9)
    np.testing.assert_allclose(make(64 * J), P, rtol=0, atol=1e-9)
    np.testing.assert_allclose(make(J @ Q.T), Q @ P @ Q.T, rtol=0, atol=1e-9)
    s = np.linalg.eigvalsh(covariance(J))[-1]
    lam = precondition.low_rank(torch.from_numpy(J), rank=len(J), rho=0.25, power=power).lam
    assert float(lam) == pytest.approx(0.25 * s, rel=1e-10)
