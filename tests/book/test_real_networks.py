"""The chapter on real networks: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import copy
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from implicitreg import datasets, gradstats, nets, records
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
    check("roberts-gaussian-drift", atol=1e-12, **two_step_gap(6))


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
    check("roberts-gaussian-order", atol=0.15, **orders(1.0))


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
    check("roberts-exp-7", sigmas=4, **regression(NOISE.weight_decay(0.02, N=N, K=K)))


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


def test_gradient_of_the_trace_vanishes_with_clean_labels_and_grows_with_wrong_ones():
    check("roberts-growth", atol=0.15, **vanishing(0.0))
    results = records.load("growth")["results"]
    for noise, sign in (("0", -1), ("0.2", 1), ("0.5", 1)):
        q = results[f"noise {noise}"]["train_grad_trace"]
        k = results[f"noise {noise}"]["epoch"].index(150)
        assert sure((q["mean"][k] - q["mean"][0], np.hypot(q["se"][k], q["se"][0]))) == sign


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
    check("roberts-exp-2", rtol=1e-9, **grown(1.0))


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


@pytest.mark.parametrize("sign", [1, -1], ids=["signal in quiet directions", "signal in noisy directions"])
def test_gap_per_gain_falls_if_the_signal_is_quiet_and_rises_if_not(sign):
    rng = np.random.default_rng(0)
    for _ in range(50):
        s = np.sort(rng.exponential(size=6))
        G2 = s * np.sort(rng.exponential(size=6))[:: -1 * sign]
        q = 0.1 * s.max() / (s + 0.1 * s.max())
        assert sign * (q @ s / (q @ G2)) <= sign * (s.sum() / G2.sum()) + 1e-12


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


def sure(pair):
    """The sign of a difference if it is more than four standard errors, otherwise 0."""
    return np.sign(pair[0]) * (abs(pair[0]) > 4 * pair[1])


def test_preconditioner_wins_at_equal_steps_and_hardly_at_equal_gradients():
    check("roberts-exp-6", rtol=1e-9, **raced(1.0))
    results = records.load("preconditioner")["results"]
    minus = lambda n, arm, other: sure(results[n][arm][f"minus {other}"]["test_loss"])  # noqa: E731
    assert minus("n=50", "rho=0.1 power=1", "sgd, more steps") == -1
    assert minus("n=5", "rho=0.03 power=1", "sgd, more steps") == 0
    assert minus("n=5", "pure inverse rank=127", "sgd") == 1


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


def test_penalty_helps_after_equal_steps_and_less_at_equal_loss():
    check("roberts-exp-5", rtol=1e-9, **penalized(1.0))
    half = records.load("regularized")["results"]["eta=0.5"]
    signs = lambda c: [sure(c["minus_gd"][arm]["test_loss"]) for arm in ("penalty", "penalty x 4", "sgd")]  # noqa: E731
    assert signs(half["after"]["30"]) == [-1, -1, -1]
    assert signs(half["matched"]["0.5"]) == [-1, -1, 0]


# --- controls -----------------------------------------------------------------------------------------------


def without_wick():
    """Sigma without the second pairing, Cuu'C."""
    mean, se = second_moments()
    G = LAW.G(THETA)
    return {"measured": mean, "predicted": (LAW.Sigma(THETA) - np.outer(G, G)).ravel(), "se": se, "sigmas": 4}


CONTROLS = {
    "roberts-gaussian-moments": without_wick,
    # N of another set than the data's
    "roberts-gaussian-drift": lambda: {**two_step_gap(2), "atol": 1e-12},
    # d in place of d + 1
    "roberts-remark-gaussian-l2": lambda: {**decayed(NOISE, D), "atol": 1e-12},
    # half the decay
    "roberts-gaussian-order": lambda: {**orders(0.5), "atol": 0.15},
    # half the decay
    "roberts-exp-7": lambda: {**regression(NOISE.weight_decay(0.02, N=N, K=K) / 2), "sigmas": 4},
    # biases forgotten
    "roberts-ghost": lambda: {**deep_ghost(0.0), "atol": 1e-11},
    # batch normalization
    "roberts-model-independence": lambda: {**coupling(norm=True), "atol": 1e-13},
    # n in place of n - 1
    "roberts-footnote-5": lambda: {**leading(120), "rtol": 1e-9},
    # residuals that do not vanish
    "roberts-growth": lambda: {**vanishing(1.0), "atol": 0.15},
    # 1/N in place of 1/(N - 1)
    "roberts-exp-2": lambda: {**grown(39 / 40), "rtol": 1e-9},
    # the sign as printed, with the trace
    "roberts-footnote-4": lambda: {**one_step(lambda g, test, trace: trace / 100 + g @ (test - g)), "rtol": 1e-3},
    # second moments in place of the covariance
    "roberts-exp-6": lambda: {**raced(0.0), "rtol": 1e-9},
    # the coefficient of half the step size
    "roberts-exp-5": lambda: {**penalized(0.5), "rtol": 1e-9},
    # m in place of m - 1
    "roberts-remark-inverse-sigma": lambda: {**preconditioned(1), "atol": 1e-11},
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    with pytest.raises(CheckFailed):
        check(claim, **CONTROLS[claim]())


def test_double_counting_is_noticed():
    with pytest.raises(CheckFailed):
        check("roberts-footnote-4", rtol=1e-3, **one_step(lambda g, test, trace: trace / 100 + g @ (g - test)))
