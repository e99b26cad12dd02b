"""The laws of sampling vectors as lists of atoms, written down from their definitions: the tests' second method.

Gaussian noise is replaced by the three Gauss-Hermite nodes, which have its moments through the fifth, so that
covariances and fourth cumulants come out exactly.
"""

import itertools
import math

import numpy as np

HERMITE = [(-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6)]
SIGNS = [(-1.0, 1 / 2), (1.0, 1 / 2)]


def product(atoms, k):
    """Values (m, k) and probabilities (m,) of k independent coordinates."""
    rows = list(itertools.product(atoms, repeat=k))
    return np.array([[v for v, _ in row] for row in rows]), np.array([math.prod(p for _, p in row) for row in rows])


def batches(n, b, replacement):
    """Every ordered batch: index arrays (m, b), all of equal probability."""
    draws = itertools.product(range(n), repeat=b) if replacement else itertools.permutations(range(n), b)
    return np.array(list(draws))


def counts(n, b, replacement=True):
    """W of SGD: counts / b."""
    i = batches(n, b, replacement)
    return np.stack([(i == k).sum(1) for k in range(n)], 1) / b, np.full(len(i), 1 / len(i))


def dense(n, b, atoms, centred):
    values, p = product(atoms, n)
    noise = values - values.mean(1, keepdims=True) if centred else values
    return 1 / n + noise / math.sqrt(b * n), p


def sparse(n, b, B, centred):
    """Noise on every subset of size B."""
    values, p = product(HERMITE, B)
    noise = values / math.sqrt(b * B)
    if centred:
        noise = (values - values.mean(1, keepdims=True)) * math.sqrt((n - 1) / (b * n * (B - 1)))
    W = []
    for S in itertools.combinations(range(n), B):
        part = np.full((len(p), n), 1 / n)
        part[:, S] += noise
        W.append(part)
    return np.concatenate(W), np.tile(p, len(W)) / len(W)


def independent(n, b, trials, chance):
    """n independent Binomial(trials, chance) / b."""
    law = [(k, math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k)) for k in range(trials + 1)]
    values, p = product(law, n)
    return values / b, p


def law(kind, n, b, B=None):
    """Atoms (m, n) and probabilities (m,) of the kind, or of a law with its first four moments (t: first three)."""
    return {
        "gd": lambda: (np.full((1, n), 1 / n), np.ones(1)),
        "sgd": lambda: counts(n, b),
        "sgd_without_replacement": lambda: counts(n, b, replacement=False),
        "gaussian_cov": lambda: dense(n, b, HERMITE, True),
        "gaussian_fisher": lambda: dense(n, b, HERMITE, False),
        "bernoulli": lambda: independent(n, b, 1, b / n),
        "binomial": lambda: independent(n, b, b, 1 / n),
        "sparse_fisher": lambda: sparse(n, b, B, False),
        "sparse_cov": lambda: sparse(n, b, B, True),
        "rademacher": lambda: dense(n, b, SIGNS, True),
        "student_t": lambda: dense(n, b, HERMITE, True),
    }[kind]()


def printed_sparse(n, b, B, replacement, centre=True):
    """The source's sparse kind, 1/n + sqrt(B/b) V ε with V = W - 1/n of SGD-B; ``centre=False`` takes W for V."""
    V, chance = counts(n, B, replacement)
    V = V - 1 / n if centre else V
    eps, p = product(SIGNS, n)
    W = 1 / n + math.sqrt(B / b) * V[:, None] * eps
    return W.reshape(-1, n), np.outer(chance, p).ravel()


def minibatch(n, B, s, centred, replacement, ghost=None):
    """Algorithm 2 with two-point noise: every ordered outer batch, every sign."""
    eps, p = product(SIGNS, B)
    if centred:
        m = ghost or B
        eps = eps - np.repeat(eps.reshape(len(eps), -1, m).mean(2), m, axis=1)
    w, i = 1 / B + s * eps, batches(n, B, replacement)
    W = np.einsum("vk,ikj->ivj", w, np.eye(n)[i])
    return W.reshape(-1, n), np.tile(p, len(i)) / len(i)


def moments(W, p):
    """Mean and covariance of atoms."""
    mean = p @ W
    return mean, ((W - mean) * p[:, None]).T @ (W - mean)


def cumulants(values, p):
    """Second to fourth cumulants of numbers."""
    v = values - p @ values
    k2, k3, k4 = p @ v**2, p @ v**3, p @ v**4
    return k2, k3, k4 - 3 * k2**2
