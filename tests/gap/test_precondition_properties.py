"""The low-rank preconditioner of random gradients: equal rows, one direction, zeros, more rows than columns."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from implicitreg.gap import precondition
from strategies import Quadratic, designs, quadratics, triangular, vectors

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


@given(designs(max_n=5, max_d=4).filter(lambda J: len(J) > 1), LAMBDAS, st.data())
def test_powers_add_up_at_one_lambda_and_order_and_copies_do_not_matter_at_one_rho(J, lam, data):
    """Copies of all rows multiply the covariance by 2(m - 1)/(2m - 1), which a relative regularizer does not see."""

    def make(rows, power, **regularizer):
        P = precondition.low_rank(torch.from_numpy(rows), rank=len(rows), power=power, **regularizer)
        return P, P.dense().numpy()

    (half, P), (_, Q) = make(J, 0.5, lam=lam), make(J, 1.0, lam=lam)
    np.testing.assert_allclose(P @ P, Q, rtol=0, atol=1e-12)
    lost = 1 - np.linalg.eigvalsh(P)[: len(half.shrink)]
    np.testing.assert_allclose(np.sort(half.shrink), np.sort(lost), rtol=0, atol=1e-10)
    assume(np.linalg.eigvalsh(covariance(J))[-1] > 1e-3)
    order = list(data.draw(st.permutations(range(2 * len(J)))))
    twice = make(np.vstack([J, J])[order], 1.0, rho=0.25)[1]
    np.testing.assert_allclose(twice, make(J, 1.0, rho=0.25)[1], rtol=0, atol=1e-10)


class Parts(Quadratic):
    """The parameter in two pieces, and a third that no loss sees, all between them."""

    def __init__(self, theta):
        super().__init__(theta)
        del self.theta
        self.first = torch.nn.Parameter(torch.from_numpy(theta[:1].copy()))
        self.unused = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.rest = torch.nn.Parameter(torch.from_numpy(theta[1:].copy()))

    @property
    def theta(self):
        return torch.cat([self.first, self.rest])


RULE = st.fixed_dictionaries({"rank": st.integers(0, 5), "rho": st.sampled_from([1 / 16, 1.0]), "power": POWERS})


@given(quadratics(), RULE, st.booleans())
def test_inverse_covariance_steps_by_the_power_of_the_matrix(case, rule, stale):
    """Two steps on quadratic losses: plain before the first refresh; then P at theta, kept or estimated anew."""
    theta, eta = case.arguments[0].theta.detach().numpy().copy(), 1 / 8
    model, (_, loss, inputs, targets) = Parts(theta), case.arguments
    optimizer = precondition.InverseCovariance(model.parameters(), lr=eta, **rule)
    b = case.g - case.h @ theta

    def step():
        optimizer.zero_grad()
        loss(model(inputs), targets).mean().backward()
        optimizer.step()

    def powers(theta):
        """P, and whether the leading space is defined."""
        s, V = np.linalg.eigh(np.atleast_2d(np.cov((b + case.h @ theta).T)))
        s, V = s[::-1].clip(0), V[:, ::-1]
        r = min(rule["rank"], len(s))
        clear = s[0] > 1e-3 and (r in (0, len(s)) or s[r - 1] - s[r] > 1e-3 * s[0])
        if not s[0] > 1e-3:
            return np.eye(len(s)), s[0] < 1e-20
        lam = rule["rho"] * s[0]
        return (V * np.where(np.arange(len(s)) < r, (lam / (s + lam)) ** rule["power"], 1.0)) @ V.T, clear

    P = np.eye(len(theta))
    for k in range(3):
        if k == 1 or (k == 2 and not stale):
            optimizer.refresh(model, loss, inputs, targets)
            P, clear = powers(theta)
            assume(clear)
        step()
        theta = theta - eta * P @ (b + case.h @ theta).mean(0)
        size = 1 + np.abs(theta).max()
        np.testing.assert_allclose(model.theta.detach().numpy(), theta, rtol=0, atol=1e-9 * size)
        assert not model.unused.any()
    other = Parts(model.theta.detach().numpy())
    again = precondition.InverseCovariance(other.parameters(), lr=1.0)
    again.load_state_dict(optimizer.state_dict())
    loss(other(inputs), targets).mean().backward()
    again.step()
    step()
    np.testing.assert_allclose(other.theta.detach().numpy(), model.theta.detach().numpy(), rtol=0, atol=1e-12 * size)


def test_another_power_or_the_covariance_of_the_law_steps_elsewhere():
    """Gradients 1 and 9 at theta = 1: s = 32 with 1/(m - 1), not 16; rho sees no difference, lambda does."""
    rows = torch.tensor([[1.0], [9.0]], dtype=torch.float64)
    dense = lambda **rule: precondition.low_rank(rows, rank=1, **rule).dense().item()  # noqa: E731
    assert dense(rho=1.0) == pytest.approx(1 / 2, rel=1e-12)
    assert dense(rho=1.0, power=0.5) == pytest.approx(0.5**0.5, rel=1e-12)
    assert dense(lam=32.0) == pytest.approx(1 / 2, rel=1e-12)
    assert abs(dense(lam=16.0) - 1 / 2) > 0.1
