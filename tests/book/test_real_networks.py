"""The chapter on real networks: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import copy
import io
import re
from contextlib import redirect_stdout
from functools import cache, partial

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from implicitreg import datasets, gradstats, nets, runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.experiments import growth, population, preconditioner, regularized
from implicitreg.gap.gaussian import GaussianLinear, wishart_moments
from implicitreg.gap.precondition import low_rank

torch.set_num_threads(1)
loss = partial(F.cross_entropy, reduction="none")
C, TEACHER, THETA, SIGMA = np.array([[1.0, 0.6], [0.6, 2.0]]), np.array([1.5, 1.0]), np.array([-1.0, 2.5]), 0.5
LAW = GaussianLinear(C, TEACHER, SIGMA)
NOISE = GaussianLinear(np.eye(20), np.zeros(20), 1.0)
N, K, D = 40, 10, 20


@cache
def sample(size=400_000):
    """Gradients at THETA by sampling."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 2)) @ np.linalg.cholesky(C).T
    return (x @ (THETA - TEACHER) - SIGMA * rng.normal(size=size))[:, None] * x


def second_moments():
    """Entries of g g' - G G' with their standard errors."""
    g = sample()
    terms = (g[:, :, None] * g[:, None, :]).reshape(len(g), 4)
    G = C @ (THETA - TEACHER)
    return terms.mean(0) - np.outer(G, G).ravel(), terms.std(0, ddof=1) / np.sqrt(len(g))


def test_gaussian_moments_by_sampling():
    mean, se = second_moments()
    check("roberts-gaussian-moments", measured=mean, predicted=LAW.Sigma(THETA).ravel(), sigmas=4, se=se)


def two_step_gap(n_of_drift):
    """E A² - C² for N = 6 by the fourth moments of a Gaussian, entry by entry (Isserlis), against the drift."""
    fourth = np.einsum("ij,kk->ij", C, C) + 2 * C @ C
    spread = (fourth - C @ C) / 6
    u = THETA - TEACHER
    return {"measured": 0.3**2 * spread @ u, "predicted": LAW.drift(THETA, 0.3, N=n_of_drift, K=2)}


def test_two_steps_differ_by_the_drift_exactly():
    check("ours-gaussian-drift", atol=1e-12, **two_step_gap(6))


def penalty(law, theta, eta=0.1):
    """What the modified risk adds to the risk, above its least value."""
    at = lambda t: law.modified_risk(t, eta, N=N, K=K) - law.risk(t)  # noqa: E731
    return at(theta) - at(law.theta_star)


def decayed(law, dimension):
    """The penalty against weight decay, with the dimension that enters as d + 1."""
    theta = np.random.default_rng(1).normal(size=law.d)
    lam = 0.1 * (K - 1) * dimension / (2 * N)
    return {"measured": penalty(law, theta), "predicted": lam * theta @ theta / 2}


def test_penalty_is_weight_decay_for_noise_labels_and_isotropic_inputs():
    check("roberts-remark-gaussian-l2", atol=1e-12, **decayed(NOISE, D + 1))


@pytest.mark.parametrize(
    "law",
    [GaussianLinear(np.eye(D), np.eye(D)[0], 1.0), GaussianLinear(np.diag([*np.ones(19), 1.2]), np.zeros(D), 1.0)],
    ids=["teacher", "anisotropic"],
)
def test_and_in_no_other_case(law):
    """A least-squares fit of lambda/2 |theta|² plus a constant to the penalty leaves a residual."""
    thetas = np.random.default_rng(2).normal(size=(60, D))
    values = np.array([penalty(law, t) for t in thetas])
    A = np.column_stack([np.ones(60), (thetas**2).sum(1) / 2])
    residual = values - A @ np.linalg.lstsq(A, values, rcond=None)[0]
    assert np.abs(residual).max() > 1e-3 * np.abs(values).max()


def factor(eta, lam):
    return (np.polynomial.Polynomial([1 - eta * lam, -eta]) ** K).coef @ wishart_moments(D, N, K)


def orders(scale):
    """Orders in eta of GD - SGD and of GD with decay - SGD, the decay times a factor."""
    etas = 2.0 ** -np.arange(7, 13)
    lam = [scale * NOISE.weight_decay(e, N=N, K=K) for e in etas]
    plain = [abs(factor(e, 0.0) - (1 - e) ** K) for e in etas]
    ridge = [abs(factor(e, x) - (1 - e) ** K) for e, x in zip(etas, lam, strict=True)]
    return {"measured": [rate(etas, plain), rate(etas, ridge)], "predicted": [2, 3]}


def test_weight_decay_leaves_a_difference_of_third_order():
    check("ours-gaussian-order", atol=0.15, **orders(1.0))


@cache
def epochs(sets=2000, eta=0.02, seed=5):
    """GD - SGD and decayed GD - SGD in the direction of the start; GD by the powers of I - eta A."""
    rng, start = np.random.default_rng(seed), np.eye(D)[0]
    X, y = rng.normal(size=(sets, N, D)), rng.normal(size=(sets, N))
    A, b = np.einsum("sni,snj->sij", X, X) / N, np.einsum("sni,sn->si", X, y) / N
    sgd = np.tile(start, (sets, 1))
    for k in range(K):
        Xk, yk = X[:, 4 * k : 4 * k + 4], y[:, 4 * k : 4 * k + 4]
        sgd = sgd - eta * np.einsum("sni,sn->si", Xk, np.einsum("sni,si->sn", Xk, sgd) - yk) / 4
    ends = []
    for lam in (0.0, NOISE.weight_decay(eta, N=N, K=K)):
        w, M = np.tile(start, (sets, 1)), (1 - eta * lam) * np.eye(D) - eta * A
        for _ in range(K):
            w = np.einsum("sij,sj->si", M, w) + eta * b
        ends.append(w[:, 0] - sgd[:, 0])
    return np.array(ends)


def regression(decay):
    d = epochs()
    exact = [factor(0.02, x) - 0.98**K for x in (0.0, decay)]
    return {"measured": d.mean(1), "predicted": exact, "se": d.std(1, ddof=1) / np.sqrt(d.shape[1])}


def test_gaussian_regression_follows_the_exact_means():
    check("ours-gaussian-epoch", sigmas=4, **regression(NOISE.weight_decay(0.02, N=N, K=K)))


# --- networks -----------------------------------------------------------------------------------------------


@cache
def digits():
    data = datasets.load("digits")
    return torch.from_numpy(data.images.reshape(-1, 64)).double(), torch.from_numpy(data.labels)


def rows_by_loop(model, x, y):
    rows = []
    for xi, yi in zip(x, y, strict=True):
        grads = torch.autograd.grad(loss(model(xi[None]), yi[None])[0], list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def deep_ghost(bias):
    """Ghost products of a network with three layers, by hooks; against the loop."""
    model, (x, y) = nets.mlp((64, 12, 8, 10), seed=3), digits()
    x, y, kept = x[:25], y[:25], []
    hooks = [m.register_forward_hook(lambda _, a, z: kept.append((a[0], z))) for m in model[::2]]
    total = loss(model(x), y).sum()
    deltas = torch.autograd.grad(total, [z for _, z in kept])
    for hook in hooks:
        hook.remove()
    products = sum((d @ d.T) * (a @ a.T + bias) for d, (a, _) in zip(deltas, kept, strict=True))
    rows = rows_by_loop(model, x, y)
    return {"measured": products.detach(), "predicted": rows @ rows.T}


def test_ghost_products_are_those_of_the_gradients():
    check("roberts-ghost", atol=1e-11, **deep_ghost(1.0))
    model, (x, y) = nets.mlp((64, 12, 8, 10), seed=3), digits()
    rows = rows_by_loop(model, x[:25], y[:25])
    check("roberts-ghost", measured=gradstats.gram(model, loss, x[:25], y[:25]), predicted=rows @ rows.T, atol=1e-11)


def coupling(norm):
    """The mean over pairs of examples of a pair's gradient, against the gradient of all: equal if nothing couples."""
    x, y = digits()
    model = nets.mlp((64, 6, 10), seed=1)
    if norm:
        model = torch.nn.Sequential(model[0], torch.nn.BatchNorm1d(6, dtype=torch.float64), *model[1:])
    parameters = list(model.parameters())

    def batch(i):
        grads = torch.autograd.grad(loss(model(x[i]), y[i]).mean(), parameters)
        return torch.cat([g.flatten() for g in grads])

    pairs = [batch([i, j]) for i in range(5) for j in range(i)]
    return {"measured": torch.stack(pairs).mean(0), "predicted": batch(list(range(5)))}


def test_batch_gradients_are_means_unless_examples_are_coupled():
    check("roberts-model-independence", atol=1e-13, **coupling(norm=False))
    model = torch.nn.Sequential(torch.nn.Linear(64, 10).double(), torch.nn.BatchNorm1d(10).double())
    with pytest.raises(ValueError, match="batch"):
        gradstats.moments(model, loss, digits()[0][:8], digits()[1][:8])


def leading(normalization):
    """Leading eigenvalues of the covariance of gradients from a Gram matrix, and from singular values."""
    rows = rows_by_loop(nets.mlp((64, 16, 10)), *(z[:120] for z in digits())).numpy()
    gram = rows @ rows.T
    centre = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    return {"measured": np.linalg.eigvalsh(centre / normalization)[:-11:-1], "predicted": singular[:10] ** 2 / 119}


def test_leading_eigenvalues_come_from_a_small_matrix_and_are_few():
    check("roberts-footnote-5", rtol=1e-9, **leading(119))
    spectrum = leading(119)["predicted"]
    assert spectrum.sum() ** 2 / (spectrum**2).sum() < 12


def one_step(formula, eta=1e-6):
    """Change of test minus training loss in a step of GD per unit of step size, by the loss itself."""
    x, y = digits()
    model, y = nets.mlp((64, 16, 10), seed=2), y.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        loss(model(x[:100]), y[:100]).mean().backward()
        optimizer.step()
    train, test = rows_by_loop(model, x[:100], y[:100]), rows_by_loop(model, x[100:400], y[100:400])
    moved = copy.deepcopy(model)
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(model.parameters()) - eta * train.mean(0),
                                        moved.parameters())  # fmt: skip
    gap = lambda m: loss(m(x[100:400]), y[100:400]).mean() - loss(m(x[:100]), y[:100]).mean()  # noqa: E731
    predicted = formula(train.mean(0), test.mean(0), train.var(0).sum())
    return {"measured": ((gap(moved) - gap(model)) / eta).item(), "predicted": predicted.item()}


def test_gap_of_a_step_on_a_trained_network():
    check("roberts-footnote-4", rtol=1e-3, **one_step(lambda g, test, _: g @ (g - test)))


@pytest.mark.parametrize("size", [1.0, 1e-3, 0.0], ids=["far", "near", "interpolating"])
def test_gradient_of_the_trace_is_bounded_by_the_trace(size):
    X = np.random.default_rng(0).normal(size=(6, 8))
    w = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    g = (torch.tensor(X) @ w + size)[:, None] * torch.tensor(X)
    trace = g.var(0).sum()
    slope = torch.autograd.grad(trace, w)[0].norm().item()
    largest = (X**2).sum(1).max()
    assert slope <= 2 * largest * np.sqrt(6 / 5 * trace.item()) + 1e-15
    assert (slope == 0) == (size == 0)


def vanishing(spread):
    """The order in the distance to the teacher with which the gradient of tr S vanishes; spread: of the residuals."""
    rng = np.random.default_rng(0)
    X, direction = torch.from_numpy(rng.normal(size=(6, 8))), torch.from_numpy(rng.normal(size=8))
    noise, sizes, slopes = torch.from_numpy(rng.normal(size=6)) * spread, 2.0 ** -np.arange(6), []
    for size in sizes:
        w = (size * direction).requires_grad_()
        g = (X @ w - noise)[:, None] * X
        slopes.append(torch.autograd.grad(g.var(0).sum(), w)[0].norm().item())
    return {"measured": rate(sizes, slopes), "predicted": 1.0}


def test_gradient_of_the_trace_vanishes_with_the_residuals():
    check("ours-penalty-off", atol=0.15, **vanishing(0.0))


def trained(share, seeds, epochs, N=500, n=10, eta=0.1):
    """SGD on digits, a share of the labels redrawn, one network a seed: backpropagation by hand, all seeds at once."""
    x, y = (z.numpy() for z in digits())
    rng = [np.random.default_rng([7, seed]) for seed in seeds]
    rows = np.stack([r.permutation(len(y))[:N] for r in rng])
    X, Y = x[rows], y[rows]
    for r, labels in zip(rng, Y, strict=True):
        chosen = r.permutation(N)[: round(share * N)]
        labels[chosen] = r.integers(10, size=len(chosen))
    W, V = (np.stack([r.normal(size=shape) for r in rng]) / np.sqrt(shape[0] - 1) for shape in ((65, 16), (17, 10)))
    W[:, -1] = V[:, -1] = 0
    one, who = np.ones((len(rng), n, 1)), np.arange(len(rng))[:, None]
    starts = W.copy(), V.copy()
    for _ in range(epochs):
        for batch in np.stack([r.permutation(N) for r in rng]).reshape(len(rng), -1, n).swapaxes(0, 1):
            a = np.concatenate([X[who, batch], one], 2)
            h = np.concatenate([np.tanh(a @ W), one], 2)
            z = np.exp(h @ V)
            top = z / z.sum(2, keepdims=True) - np.eye(10)[Y[who, batch]]
            low = (top @ V[:, :-1].swapaxes(1, 2)) * (1 - h[..., :-1] ** 2)
            V -= eta / n * h.swapaxes(1, 2) @ top
            W -= eta / n * a.swapaxes(1, 2) @ low
    return X, Y, starts, (W, V)


@cache
def log_growth(share, seeds, epochs):
    """Seed by seed, the log of |gradient of tr S| on the training set, end over start."""
    X, Y, *both = trained(share, seeds, epochs)
    model, sizes = nets.mlp((64, 16, 10)), []
    for W, V in both:
        for k in range(len(X)):
            parts = [p for A in (W[k], V[k]) for p in (torch.tensor(A[:-1].T.copy()), torch.tensor(A[-1].copy()))]
            for p, value in zip(model.parameters(), parts, strict=True):
                p.data = value
            slope = gradstats.grad_trace(model, loss, torch.from_numpy(X[k]), torch.from_numpy(Y[k]))
            sizes.append(slope.norm().item())
    start, end = np.reshape(sizes, (2, -1))
    return np.log(end / start)


STUDENT = {3: 5.84, 5: 4.03, 7: 3.50}  # two-sided 99 %, by degrees of freedom


def surely(values):
    """A mean of paired differences, its standard error, and Student's quantile in place of a number of them."""
    se = np.std(values, ddof=1) / np.sqrt(len(values))
    return {"measured": np.mean(values), "se": se, "sigmas": STUDENT[len(values) - 1]}


def grows(share):
    """The claim of the wrong labels, after 200 epochs; of clean ones it is false."""
    return {**surely(log_growth(share, range(4), 200)), "above": 0}


def test_gradient_of_the_trace_grows_with_wrong_labels_and_falls_with_clean_ones():
    check("roberts-growth", **grows(0.5))
    check("roberts-growth", **surely(log_growth(0.0, range(4), 200)), below=0)


def grown(factor):
    """The size of the gradient of tr S at two starts in the experiment, and by a loop over the examples."""
    settings = {**growth.SETTINGS, "N": 40, "n": 10, "epochs": [0], "seeds": [3, 4], "limit": 60}
    images, sizes = population(settings, torch.device("cpu")), []
    for seed in (3, 4):
        train = growth._split(images, 0.2, 40, seed)[0]
        sizes.append(gradstats.naive.grad_trace(nets.mlp((64, 16, 10), seed=seed), loss, *train).norm().item())
    run = growth.measure("noise 0.2", settings, torch.device("cpu"))
    return {"measured": run["train_grad_trace"]["mean"][0], "predicted": factor * np.mean(sizes)}


def test_growth_measures_the_gradient_of_the_trace():
    check("roberts-growth", rtol=1e-9, **grown(1.0))
    with pytest.raises(CheckFailed):  # 1/N in place of 1/(N - 1)
        check("roberts-growth", rtol=1e-9, **grown(39 / 40))


# --- the preconditioner -------------------------------------------------------------------------------------


def preconditioned(power_of_m):
    """P of rank 5 by the Gram matrix, and by NumPy's covariance."""
    rows = np.random.default_rng(0).normal(size=(12, 7)) * np.arange(1, 8) + 1
    s, Q = np.linalg.eigh(np.cov(rows.T) * (11 / 12) ** power_of_m)
    s[:2] = 0
    P = (Q * (0.7 / (s + 0.7))) @ Q.T
    return {"measured": low_rank(torch.from_numpy(rows), rank=5, lam=0.7).dense(), "predicted": P}


def test_preconditioner_is_the_regularized_inverse():
    check("roberts-remark-inverse-sigma", atol=1e-11, **preconditioned(0))
    with pytest.raises(CheckFailed):  # m in place of m - 1
        check("roberts-remark-inverse-sigma", atol=1e-11, **preconditioned(1))


def slowed(lam):
    """How much of a step is left in each direction, the noisiest first: it must increase, and begin below one half."""
    rows = np.random.default_rng(0).normal(size=(40, 5)) * np.arange(5, 0, -1)
    Q = np.linalg.eigh(np.cov(rows.T))[1]
    left = np.diag(Q.T @ low_rank(torch.from_numpy(rows), rank=5, lam=lam).dense().numpy() @ Q)[::-1]
    return {"measured": [-np.diff(left).min(), left[0]], "below": [0, 0.5]}


def test_preconditioner_slows_noisy_directions_down():
    check("roberts-remark-inverse-sigma", **slowed(1.0))


def prices(sign):
    """The gap per gain over that of SGD, 50 times; the signal in quiet directions, or (-1) in noisy ones."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(50):
        s = np.sort(rng.exponential(size=6))
        G2 = s * np.sort(rng.exponential(size=6))[:: -1 * sign]
        q = 0.1 * s.max() / (s + 0.1 * s.max())
        ratios.append(q @ s / (q @ G2) / (s.sum() / G2.sum()))
    return {"measured": ratios, "atol": 1e-12}


def test_gap_per_gain_falls_if_the_signal_is_quiet_and_rises_if_not():
    check("ours-signal-and-noise", **prices(1), below=1)
    check("ours-signal-and-noise", **prices(-1), above=1)


CPU = torch.device("cpu")


def raced(correction, steps=25):
    """The training loss of a run of an arm, and of the same by dense matrices (correction 0: not centred)."""
    settings = {**preconditioner.SETTINGS, "train": 200, "validation": 50, "test": 50}
    split = preconditioner.Split.of(settings, CPU)
    (x, y), _ = split.draw(preconditioner._generator(3), settings)
    model = nets.mlp(split.widths, seed=3)
    orders = preconditioner.batches(5, 200, preconditioner._generator(3, 1))
    refreshes = preconditioner._generator(3, 2)
    for step in range(steps):
        if step % 20 == 0:
            i = torch.randperm(200, generator=refreshes)[:128]
            rows = rows_by_loop(model, x[i], y[i])
            s, Q = torch.linalg.eigh((rows - rows.mean(0) * correction).T @ (rows - rows.mean(0) * correction))
            s[:-20] = 0
            P = (Q * (0.1 * s[-1] / (s + 0.1 * s[-1]))) @ Q.T
        i = next(orders)
        theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        theta = theta - 0.5 * P @ rows_by_loop(model, x[i], y[i]).mean(0)
        torch.nn.utils.vector_to_parameters(theta, model.parameters())
    run = preconditioner.trained(preconditioner.Arm(5, steps, 20, 0.1), 0.5, 3, split, settings)
    measured = run[preconditioner.METRICS.index("train_loss")]
    return {"measured": measured.item(), "predicted": loss(model(x), y).mean().item()}


def test_preconditioned_run_by_dense_matrices():
    check("roberts-works-well", rtol=1e-9, **raced(1.0))
    with pytest.raises(CheckFailed):  # second moments in place of the covariance
        check("roberts-works-well", rtol=1e-9, **raced(0.0))


@cache
def race_losses(rho, rank, lr, seeds=range(60, 64)):
    """Test losses at batch 50, seed by seed; rank 0 is SGD, rho 0 the pure inverse."""
    split = preconditioner.Split.of(preconditioner.SETTINGS, CPU)
    arm = preconditioner.Arm(50, 200, rank, rho)
    return np.array([
        preconditioner.trained(arm, lr, seed, split, preconditioner.SETTINGS)[0].item() for seed in seeds
    ])  # fmt: skip


def loses(rho, lr):
    """The claim of the pure inverse: a test loss at least 0.1 above that of SGD."""
    rank = 127 if rho == 0 else 20
    return {**surely(race_losses(rho, rank, lr) - race_losses(1.0, 0, 1.0)), "above": 0.1}


def test_pure_inverse_loses():
    check("roberts-works-well", **loses(0.0, 8.0))


def counted(factor):
    """Gradients in a run of the race over those of SGD, counted at the optimizer and at the batches."""
    ratios = []
    for n in (5, 50):
        arm, settings = preconditioner.Arm(n, 200, 20), preconditioner.SETTINGS
        refreshes = sum(1 for step in range(arm.steps) if step % settings["refresh_every"] == 0)
        ratios.append((200 * n + factor * refreshes * settings["refresh_size"]) / (200 * n))
    costs = [preconditioner.cost(preconditioner.Arm(n, 200, 20), preconditioner.SETTINGS) / (200 * n) for n in (5, 50)]
    return {"measured": costs, "predicted": ratios}


def test_refreshes_are_counted(monkeypatch):
    check("roberts-practical", rtol=1e-12, **counted(1))
    settings, sizes = {**preconditioner.SETTINGS, "steps": 41}, []
    refresh = preconditioner.InverseCovariance.refresh

    def counting(self, model, loss, x, y):
        sizes.append(len(x))
        refresh(self, model, loss, x, y)

    monkeypatch.setattr(preconditioner.InverseCovariance, "refresh", counting)
    arm = preconditioner.Arm(5, 41, 20)
    preconditioner.trained(arm, 0.5, 1, preconditioner.Split.of(settings, CPU), settings)
    assert sum(sizes) + 41 * 5 == preconditioner.cost(arm, settings)


def penalized(scale):
    """The training loss after an epoch of GD with the penalty, and by the exact gradient of tr S of one network."""
    settings = {**regularized.SETTINGS, "seeds": [4], "train": 40, "n": 10, "validation": 20, "test": 20}
    draw = regularized.drawn(settings, CPU)
    model, (x, y) = nets.mlp((64, 16, 10), seed=4), (draw.train.inputs[0], draw.train.targets[0])
    for _ in range(4):
        slope = gradstats.naive.grad_trace(model, loss, x, y)
        theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        step = rows_by_loop(model, x, y).mean(0) + scale * 0.5 / 4 * (1 / 10 - 1 / 40) * slope
        torch.nn.utils.vector_to_parameters(theta - 0.5 * step, model.parameters())
    end = regularized.path(1.0, 0.5, 1, draw, settings)[1]
    measured = end[regularized.METRICS.index("train_loss"), 0]
    return {"measured": measured.item(), "predicted": loss(model(x), y).mean().item()}


def test_penalized_run_by_exact_gradients():
    check("ours-penalty-on-new-data", rtol=1e-9, **penalized(1.0))
    with pytest.raises(CheckFailed):  # the coefficient of half the step size
        check("ours-penalty-on-new-data", rtol=1e-9, **penalized(0.5))


@cache
def leads(eta, epochs, at, redrawn=0.2):
    """Test loss with four times the penalty minus that of GD after some epochs, seed by seed."""
    settings = {**regularized.SETTINGS, "seeds": list(range(60, 66)), "redrawn": redrawn, "test": 600, "validation": 9}
    draw = regularized.drawn(settings, CPU)
    ends = [regularized.path(c, eta, epochs, draw, settings)[at] for c in (4.0, 0.0)]
    return (ends[0] - ends[1])[regularized.METRICS.index("test_loss")].numpy()


def test_penalty_is_behind_before_the_best_epoch_and_ahead_after_it():
    check("ours-penalty-on-new-data", **surely(leads(0.5, 2, 2)), above=0)
    check("ours-penalty-on-new-data", **surely(leads(0.5, 30, 30)), below=0)
    check("ours-penalty-on-new-data", **surely(leads(0.2, 10, 10)), above=0)


# --- try your own -------------------------------------------------------------------------------------------


@cache
def chapter():
    path = runbook.ROOT / "book/2-gap/03_real_networks.ipynb"
    return {c["id"]: c.source for c in nbformat.read(path, 4).cells}


def own(lines=()):
    """What the cell prints, with lines changed: tr S, |G|², r_eff, N*, penalty over loss."""
    import implicitreg as ir

    pixels, labels = digits()
    names = {"ir": ir, "torch": torch, "F": F, "np": np, "loss": loss, "pixels": pixels, "labels": labels}
    source = chapter()["real_networks-086"]
    exec(chapter()["real_networks-037"], names)
    for line, new in dict(lines).items():
        assert source.count(line) == 1
        source = source.replace(line, new)
    with redirect_stdout(io.StringIO()) as out:
        exec(source, names)
    words = r"tr S |\|G\|² |r_eff |N\* = \(tr Σ\)²/GᵀΣG |penalty / loss "
    return [float(x) for x in re.sub(words, "", out.getvalue()).split()]


def test_try_your_own_widths_and_share():
    values = own(lines={"(64, 32, 10), 0.0": "(64, 8, 6, 10), 0.5"})
    assert len(values) == 5
    assert np.isfinite(values).all()


def test_try_your_own_estimates_are_those_of_a_loop():
    rows = rows_by_loop(nets.mlp((64, 32, 10), seed=1), *(z[:300] for z in digits()))
    trace = rows.var(0).sum().item()
    values = own()
    assert values[0] == pytest.approx(trace, abs=1e-3)
    assert values[1] == pytest.approx((rows.mean(0).square().sum() - trace / 300).item(), abs=1e-3)


@cache
def handfuls():
    """The cell on a hundred samples of four images."""
    cut = lambda k: {f"{z}[:300]": f"{z}[{k}:{k} + 4]" for z in ("pixels", "labels")}  # noqa: E731
    return np.array([own(cut(k)) for k in range(0, 400, 4)])


def test_try_your_own_effective_rank_of_a_handful_is_far_off():
    assert np.median(handfuls()[:, 2]) > 10 * own()[2]


def test_try_your_own_sample_star_can_be_negative():
    assert handfuls()[:, 3].min() < 0


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"labels[:300]": "labels[:299]"}, "299"),
        ({"labels[:300]": "labels[:3]", "pixels[:300]": "pixels[:3]"}, "n >= 4"),
        ({"gram(own, loss,": "gram(own, F.cross_entropy,"}, "per-example|one loss|example"),
        ({"ir.nets.mlp(widths, seed=1)": "torch.nn.Sequential(torch.nn.Linear(64, 10).double(), "
          "torch.nn.BatchNorm1d(10).double())"}, "batch"),
    ],
    ids=["lengths", "three images", "mean loss", "batch normalization"],
)  # fmt: skip
def test_try_your_own_refusals(lines, words):
    with pytest.raises(ValueError, match=words):
        own(lines=lines)


# --- controls -----------------------------------------------------------------------------------------------


def without_wick():
    """Sigma without the second pairing, Cuu'C."""
    mean, se = second_moments()
    G = LAW.G(THETA)
    return {"measured": mean, "predicted": (LAW.Sigma(THETA) - np.outer(G, G)).ravel(), "se": se, "sigmas": 4}


CONTROLS = {
    "roberts-gaussian-moments": without_wick,
    # N of another set than the data's
    "ours-gaussian-drift": lambda: {**two_step_gap(2), "atol": 1e-12},
    # d in place of d + 1
    "roberts-remark-gaussian-l2": lambda: {**decayed(NOISE, D), "atol": 1e-12},
    # half the decay
    "ours-gaussian-order": lambda: {**orders(0.5), "atol": 0.15},
    # half the decay
    "ours-gaussian-epoch": lambda: {**regression(NOISE.weight_decay(0.02, N=N, K=K) / 2), "sigmas": 4},
    # biases forgotten
    "roberts-ghost": lambda: {**deep_ghost(0.0), "atol": 1e-11},
    # batch normalization
    "roberts-model-independence": lambda: {**coupling(norm=True), "atol": 1e-13},
    # n in place of n - 1
    "roberts-footnote-5": lambda: {**leading(120), "rtol": 1e-9},
    # residuals that do not vanish
    "ours-penalty-off": lambda: {**vanishing(1.0), "atol": 0.15},
    # clean labels: nothing grows
    "roberts-growth": lambda: grows(0.0),
    # the sign as printed, with the trace
    "roberts-footnote-4": lambda: {**one_step(lambda g, test, trace: trace / 100 + g @ (test - g)), "rtol": 1e-3},
    # a regularizer so large that nothing is slowed down
    "roberts-remark-inverse-sigma": lambda: slowed(1e6),
    # the signal in the noisy directions
    "ours-signal-and-noise": lambda: {**prices(-1), "below": 1},
    # a regularized inverse does not lose
    "roberts-works-well": lambda: loses(0.1, 2.0),
    # refreshes for nothing
    "roberts-practical": lambda: {**counted(0), "rtol": 1e-12},
    # no label is wrong: the lead after 30 epochs
    "ours-penalty-on-new-data": lambda: {**surely(leads(0.5, 30, 30, redrawn=0.0)), "below": 0},
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    with pytest.raises(CheckFailed):
        check(claim, **CONTROLS[claim]())


def test_double_counting_is_noticed():
    with pytest.raises(CheckFailed):
        check("roberts-footnote-4", rtol=1e-3, **one_step(lambda g, test, trace: trace / 100 + g @ (g - test)))
