"""The low-rank inverse covariance: against dense linear algebra, in its limits and symmetries, and as an optimizer."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from implicitreg.gap.precondition import InverseCovariance, low_rank

torch.set_num_threads(1)
ROWS = torch.tensor([[1.0, 2, 0], [0, 1, -1], [3, 1, 1], [-1, 0, 2]], dtype=torch.float64)
DIGITS = partial(F.cross_entropy, reduction="none")


def random_rows(m, p, seed=0, spread=1.5):
    g = torch.Generator().manual_seed(seed)
    scales = spread ** -torch.arange(p, dtype=torch.float64)
    return torch.randn(m, p, generator=g, dtype=torch.float64) * scales + torch.randn(
        p, generator=g, dtype=torch.float64
    )


def dense(rows, rank, lam, power):
    """The formula by NumPy's covariance and an eigendecomposition of it: lam^a (S_r + lam)^-a."""
    S = np.cov(rows.numpy(), rowvar=False)
    s, Q = np.linalg.eigh(S)
    s[: len(s) - rank] = 0
    return (Q * (lam / (s + lam)) ** power) @ Q.T


def test_the_reference_numbers():
    """R8: rank 2, lambda = 1/2."""
    P = low_rank(ROWS, rank=2, lam=0.5)
    expected = [-0.05035461816903254, 0.8603635291227501, 0.4152940431404366]
    np.testing.assert_allclose(P.apply(ROWS.mean(0)), expected, atol=1e-12)
    np.testing.assert_allclose(P.eigenvalues, [3.181517897653799, 1.840818624331837], atol=1e-12)


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
@pytest.mark.parametrize(("m", "p", "rank"), [(4, 3, 2), (6, 10, 5), (30, 8, 3), (30, 8, 8)])
def test_P_is_the_regularized_inverse_of_the_truncated_covariance(m, p, rank, power):
    rows = random_rows(m, p)
    P = low_rank(rows, rank=rank, lam=0.3, power=power)
    np.testing.assert_allclose(P.dense(), dense(rows, rank, 0.3, power), atol=1e-12)
    assert np.abs(P.dense().numpy() - dense(rows, rank, 0.3 * (m - 1) / m, power)).max() > 1e-4  # 1/m: seen


def test_rho_is_relative_to_the_leading_eigenvalue():
    rows = random_rows(12, 5)
    s1 = np.linalg.eigvalsh(np.cov(rows.numpy(), rowvar=False))[-1]
    np.testing.assert_allclose(
        low_rank(rows, rank=3, rho=0.2).dense(), low_rank(rows, rank=3, lam=0.2 * s1).dense(), atol=1e-13
    )


@pytest.mark.parametrize("P", [low_rank(ROWS, rank=0, rho=0.1), low_rank(ROWS, rank=3, rho=1e14)], ids=["r=0", "rho"])
def test_P_tends_to_the_identity(P):
    np.testing.assert_allclose(P.dense(), np.eye(3), atol=1e-13)


@pytest.mark.parametrize("rho", [1e-6, 0.1, 10.0])
def test_P_lies_between_zero_and_the_identity(rho):
    eigenvalues = torch.linalg.eigvalsh(low_rank(random_rows(9, 6), rank=4, rho=rho).dense())
    assert eigenvalues.min() > 0
    assert eigenvalues.max() <= 1 + 1e-13


def test_V_has_orthonormal_rows_and_P_is_the_identity_off_them():
    P = low_rank(random_rows(9, 40), rank=5, rho=0.1)
    np.testing.assert_allclose(P.V @ P.V.T, np.eye(5), atol=1e-12)
    g = random_rows(2, 40, seed=1)
    off = g - g @ P.V.T @ P.V
    np.testing.assert_allclose(P.apply(off), off, atol=1e-12)


def test_rank_is_cut_at_m_minus_one_and_negligible_eigenvalues_are_dropped():
    assert len(low_rank(random_rows(4, 10), rank=10, rho=0.1).eigenvalues) == 3
    flat = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.cat([flat, 1e-8 * flat[:, :1] ** 2], 1)
    P = low_rank(rows, rank=3, rho=1e-9)
    assert len(P.eigenvalues) == 2
    assert len(low_rank(rows * torch.tensor([1.0, 1.0, 1e3]), rank=3, rho=1e-9).eigenvalues) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_gradients_leave_P_the_identity(dtype):
    rows = torch.full((7, 3), 1 / 3, dtype=dtype) * torch.tensor([1.0, 100.0, -7.0])
    P = low_rank(rows, rank=3, rho=0.1)
    assert torch.equal(P.apply(rows), rows)


def test_invariances():
    rows, shift = random_rows(9, 6), torch.arange(6.0, dtype=torch.float64)
    P = low_rank(rows, rank=4, rho=0.1).dense()
    Q = torch.linalg.qr(random_rows(6, 6, seed=3))[0]
    same = partial(np.testing.assert_allclose, atol=1e-11)
    same(low_rank(7.0 * rows, rank=4, rho=0.1).dense(), P)
    same(low_rank(rows + shift, rank=4, rho=0.1).dense(), P)
    same(low_rank(rows.flip(0), rank=4, rho=0.1).dense(), P)
    same(low_rank(rows @ Q.T, rank=4, rho=0.1).dense(), Q @ P @ Q.T)
    assert (low_rank(7.0 * rows, rank=4, lam=0.1).dense() - low_rank(rows, rank=4, lam=0.1).dense()).abs().max() > 1e-3


@pytest.mark.parametrize("exponent", [-1060, -549, 515, 1020])
def test_the_scale_of_the_gradients_leaves_P_as_it_is(exponent):
    """By a power of two, to the last bit where no entry is rounded; the squares are out of range."""
    rows = (64 * random_rows(9, 6)).round() / 64
    P, Q = (low_rank(r, rank=4, rho=0.1) for r in (rows, torch.ldexp(rows, torch.tensor(exponent))))
    assert torch.equal(Q.V, P.V)
    assert torch.equal(Q.shrink, P.shrink)
    assert torch.equal(Q.apply(rows), P.apply(rows))
    assert float(low_rank(rows * 1e-60, rank=1, lam=float(P.eigenvalues[0]) * 1e-120).shrink) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e25, 1e37])
def test_the_scale_of_gradients_in_float32(scale):
    rows = random_rows(9, 6).float()
    P, Q = (low_rank(r, rank=4, rho=0.1).dense() for r in (rows, rows * scale))
    assert float((P - Q).abs().max()) < (1e-2 if scale == 1e-40 else 1e-5)  # digits of subnormal numbers are few


def test_a_regularizer_out_of_all_proportion():
    rows = random_rows(9, 6)
    assert torch.equal(low_rank(rows * 1e-165, rank=4, lam=1.0).dense(), torch.eye(6, dtype=torch.float64))
    stopped = low_rank(rows * 1e165, rank=5, lam=1.0)
    assert torch.equal(stopped.shrink, torch.ones(5, dtype=torch.float64))
    assert torch.equal(low_rank(rows.float(), rank=4, lam=1e300).dense(), torch.eye(6))


# --- the optimizer ------------------------------------------------------------------------------------------


def network(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).to(dtype)


def examples(m, seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(m, 5, generator=g, dtype=dtype), torch.randint(3, (m,), generator=g)


def flat(model, what=lambda p: p):
    return torch.cat([what(p).detach().flatten() for p in model.parameters()])


def one_by_one(model, inputs, targets):
    """Per-example gradients by a loop of backward passes."""
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        model.zero_grad()
        DIGITS(model(x[None]), y[None])[0].backward()
        rows.append(flat(model, lambda p: p.grad))
    model.zero_grad()
    return torch.stack(rows)


def backward(model, seed=5):
    inputs, targets = examples(10, seed)
    model.zero_grad()
    DIGITS(model(inputs), targets).mean().backward()
    return flat(model, lambda p: p.grad)


@pytest.mark.parametrize("settings", [{}, {"rank": 3, "rho": 0.01}, {"power": 0.5}], ids=str)
def test_a_step_is_minus_lr_P_g(settings):
    model = network()
    optimizer = InverseCovariance(model.parameters(), lr=0.3, **settings)
    inputs, targets = examples(12, 1)
    rows = one_by_one(model, inputs, targets)
    optimizer.refresh(model, DIGITS, inputs, targets)
    before, g = flat(model).clone(), backward(model)
    optimizer.step()
    P = low_rank(rows, **({"rank": 20, "rho": 0.1} | settings))
    np.testing.assert_allclose(flat(model), before - 0.3 * P.apply(g), atol=1e-12)
    assert (before - 0.3 * g - flat(model)).abs().max() > 1e-3  # and no plain step


def test_before_the_first_refresh_it_is_SGD():
    ours, plain = network(), network()
    backward(ours), backward(plain)
    InverseCovariance(ours.parameters(), lr=0.3).step()
    torch.optim.SGD(plain.parameters(), lr=0.3).step()
    assert torch.equal(flat(ours), flat(plain))


def test_state_dict_carries_P():
    model, copy = network(), network()
    optimizer = InverseCovariance(model.parameters(), lr=0.3, rank=4)
    optimizer.refresh(model, DIGITS, *examples(12, 1))
    other = InverseCovariance(copy.parameters(), lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    for m, o in ((model, optimizer), (copy, other)):
        backward(m)
        o.step()
    assert torch.equal(flat(model), flat(copy))


def test_closure_and_missing_gradients():
    model = network()
    optimizer = InverseCovariance(model.parameters(), lr=0.3)
    optimizer.refresh(model, DIGITS, *examples(12, 1))
    before = flat(model).clone()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(flat(model), before)

    def closure():
        backward(model)
        return torch.tensor(2.0)

    assert optimizer.step(closure) == 2.0
    assert not torch.equal(flat(model), before)


def test_parameters_that_need_no_gradient_stay():
    model = network()
    model[0].bias.requires_grad_(False)
    optimizer = InverseCovariance(model.parameters(), lr=0.3)
    optimizer.refresh(model, DIGITS, *examples(12, 1))
    bias, weight = model[0].bias.clone(), model[0].weight.detach().clone()
    DIGITS(model(examples(5, 2)[0]), examples(5, 2)[1]).mean().backward()
    optimizer.step()
    assert torch.equal(model[0].bias, bias)
    assert not torch.equal(model[0].weight, weight)


def test_float32_and_schedulers_work():
    model = network(torch.float32)
    optimizer = InverseCovariance(model.parameters(), lr=0.3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    inputs, targets = examples(40, 1, torch.float32)
    losses = []
    for _ in range(5):
        optimizer.refresh(model, DIGITS, inputs[:20], targets[:20])
        optimizer.zero_grad()
        loss = DIGITS(model(inputs[20:]), targets[20:]).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 / 32)


BAD_LOW_RANK = {
    "one row": {"rows": ROWS[:1]},
    "no columns": {"rows": torch.zeros(4, 0, dtype=torch.float64)},
    "a vector": {"rows": ROWS[0]},
    "NaN": {"rows": ROWS * torch.nan},
    "rank negative": {"rank": -1},
    "rho zero": {"rho": 0.0},
    "rho NaN": {"rho": float("nan")},
    "rho and lam": {"lam": 1.0},
    "neither": {"rho": None},
    "lam negative": {"rho": None, "lam": -1.0},
    "power zero": {"power": 0.0},
}


@pytest.mark.parametrize("changed", BAD_LOW_RANK.values(), ids=BAD_LOW_RANK)
def test_low_rank_refuses(changed):
    arguments = {"rows": ROWS, "rank": 2, "rho": 0.1} | changed
    with pytest.raises(ValueError, match="expected"):
        low_rank(arguments.pop("rows"), **arguments)


@pytest.mark.parametrize(
    "changed",
    [{"rows": ROWS.numpy()}, {"rows": ROWS.long()}, {"rank": 2.0}, {"rho": "0.1"}, {"power": None}],
    ids=["array", "integers", "rank", "rho", "power"],
)
def test_low_rank_wants_numbers(changed):
    arguments = {"rows": ROWS, "rank": 2, "rho": 0.1} | changed
    with pytest.raises(TypeError, match="expected"):
        low_rank(arguments.pop("rows"), **arguments)


def test_apply_wants_vectors_of_the_same_length():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 3\)"):
        low_rank(ROWS, rank=2, rho=0.1).apply(torch.ones(4))


@pytest.mark.parametrize(
    "changed",
    [{"lr": 0.0}, {"lr": float("inf")}, {"rank": -1}, {"rho": 0.0}, {"power": -1.0}],
    ids=str,
)
def test_the_optimizer_refuses(changed):
    arguments = {"lr": 0.1} | changed
    with pytest.raises(ValueError, match="expected"):
        InverseCovariance(network().parameters(), **arguments)


def test_several_groups_are_refused():
    model = network()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    with pytest.raises(ValueError, match="several groups: expected one"):
        InverseCovariance(groups, lr=0.1)


def test_another_models_parameters_are_refused():
    optimizer = InverseCovariance(network().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="other parameters"):
        optimizer.refresh(network(), DIGITS, *examples(12, 1))
