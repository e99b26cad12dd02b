r"""Sampling vectors: stochastic gradients as random weights on the examples.

With the gradients :math:`G = (g_1, \ldots, g_n)` of the n training examples as columns, one step is

.. math:: \theta_{t+1} = \theta_t - \eta\, G(\theta_t)\, W, \qquad \mathbb E\, W = \tfrac1n\mathbf 1,

with W drawn independently of theta: one backward pass of the loss :math:`\sum_i W_i\,\ell_i`. Plain SGD is the case of
counts over b; Gaussian or two-point weights make other noise of the same, or nearly the same, covariance. Here g is the
mean gradient, :math:`F = \frac1n GG^\top` the second moment of one example's gradient (the *empirical* Fisher matrix,
with the observed labels), :math:`P = \frac1n\mathbf{11}^\top`, and b is the batch size whose noise is meant.

===========================  ============================================================  ==================  ====================================
kind                         W                                                             sum of W            Var W
===========================  ============================================================  ==================  ====================================
``gd``                       1/n                                                           1                   0
``sgd``                      counts/b of b draws with replacement                          1                   (I − P)/(bn)
``sgd_without_replacement``  1/b on a uniform subset of size b                             1                   (n − b)/(bn(n − 1)) (I − P)
``gaussian_cov``             1/n + (ε − mean of ε)/√(bn)                                   1                   (I − P)/(bn)
``gaussian_fisher``          1/n + ε/√(bn)                                                 1 + ξ/√b            I/(bn)
``bernoulli``                independent, 1/b with probability b/n, else 0                 Bin(n, b/n)/b       (n − b)/(bn²) I
``binomial``                 independent Bin(b, 1/n)/b                                     Bin(nb, 1/n)/b      (n − 1)/(bn²) I
``sparse_fisher``            1/n + ε/√(bB) on a uniform subset S of size B, 1/n off it     random              I/(bn)
``sparse_cov``               the same with ε less its mean over S, and the factor          1                   (I − P)/(bn)
                             √((n − 1)/(bn(B − 1)))
``rademacher``               as ``gaussian_cov``, with signs ε = ±1                        1                   (I − P)/(bn)
``student_t``                as ``gaussian_cov``, with ε of Student's t(4), variance 1     1                   (I − P)/(bn)
===========================  ============================================================  ==================  ====================================

ε and ξ are standard normal unless said otherwise.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from implicitreg import _validate
from implicitreg.noise._minibatch import (
    MAX_NUMBERS,
    MAX_SQUARE,
    centre,
    compensation,
    draw_minibatch,
    generator,
    minibatch_covariance,
    subsets,
)
from numpy.typing import ArrayLike

__all__ = [
    "KINDS",
    "centre",
    "compensation",
    "covariance",
    "draw",
    "draw_minibatch",
    "gradient_covariance",
    "minibatch_covariance",
]


MAX_BATCH = 2**63 - 1  # what NumPy's generators take


def draw(
    kind: str, n: int, b: int, *, B: int | None = None, rng: np.random.Generator, size: int | None = None
) -> np.ndarray:
    r"""The sampling vector W of one step, or of several independent ones; :math:`\mathbb E\, W = \frac1n\mathbf 1`.

    A step of the learning rate eta is :math:`-\eta\, G W`, along the gradient of :math:`\sum_i W_i\,\ell_i`. The table
    above says what each kind is.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    n, b : int
        Training examples, and the batch size whose noise is meant. b ≤ n for ``"sgd_without_replacement"`` and
        ``"bernoulli"``.
    B : int, optional
        For ``"sparse_fisher"`` and ``"sparse_cov"``: how many examples carry noise, drawn without replacement, at most
        n, and at least 2 for ``"sparse_cov"``. The other kinds do not use it.
    rng : numpy.random.Generator
        Where the randomness comes from.
    size : int, optional
        How many vectors.

    Returns
    -------
    ndarray (n,) or (size, n)
        float64. Only ``gd``, ``gaussian_*``, ``sparse_*``, ``rademacher`` and ``student_t`` look at every example; the
        others are zero off their batch.

    Raises
    ------
    ValueError
        If the kind is unknown, a size is out of its range, or a sparse kind has no B.
    TypeError
        If a size is no integer, or rng no generator.

    Notes
    -----
    The printed sparse form, :math:`\frac1n + \sqrt{B/b}\,(W_{sgd(B)} - \frac1n)\,\epsilon`, is neither sparse nor of
    the stated covariance; the form here is that of the authors' code.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, sections 2 and 4.1 to 4.4 (corrected: the sparse
    kinds); ``binomial``, ``rademacher`` and ``student_t`` are ours.

    Examples
    --------
    Three examples, each once in a batch of three:

    >>> draw("sgd_without_replacement", 3, 3, rng=np.random.default_rng(0)) * 3
    array([1., 1., 1.])
    """
    n, b, B = _checked_sizes(kind, n, b, B)
    generator(rng)
    _validate.integer("n", n, high=MAX_NUMBERS)
    wide = max(n, _validate.integer("b", b, high=MAX_NUMBERS)) if kind == "sgd" else n
    rows = 1 if size is None else _validate.integer("size", size, low=1, high=MAX_NUMBERS // wide)
    W = _DRAW[kind](rng, rows, n, b, B)
    return W[0] if size is None else W


@_validate.in_range
def covariance(kind: str, n: int, b: int, *, B: int | None = None) -> np.ndarray:
    r"""The exact covariance of the sampling vector, :math:`\operatorname{Var} W = \alpha I + \beta P`.

    The noise of the gradient, :math:`G(W - \frac1n\mathbf 1)`, has covariance :math:`G\,(\operatorname{Var}W)\,G^\top`,
    see :func:`gradient_covariance`. The table above has alpha and beta.

    Parameters
    ----------
    kind, n, b, B
        As in :func:`draw`.

    Returns
    -------
    ndarray (n, n)

    Raises
    ------
    ValueError, TypeError
        As :func:`draw`.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Proposition 1 and sections 4.1 to 4.4 (corrected:
    the diagonal of ``sgd`` is that of ``binomial``; ``bernoulli`` has that of ``sgd_without_replacement``).

    Examples
    --------
    One of two examples: W is (1, 0) or (0, 1):

    >>> print(covariance("sgd", 2, 1))
    [[ 0.25 -0.25]
     [-0.25  0.25]]
    """
    n, b, B = _checked_sizes(kind, n, b, B)
    _validate.integer("n", n, high=MAX_SQUARE)
    alpha, beta = _coefficients(kind, n, b)
    return alpha * np.eye(n) + beta / n


@_validate.in_range
def gradient_covariance(kind: str, G: ArrayLike, b: int, *, B: int | None = None) -> np.ndarray:
    r"""The covariance of the noise of the gradient, without the (n, n) matrix in between.

    .. math:: \operatorname{Var}[G W] = \alpha n F + \beta n\, gg^\top

    For ``"sgd"`` this is :math:`\frac1b (F - gg^\top)`; for ``"gaussian_fisher"`` it is :math:`\frac1b F`.

    Parameters
    ----------
    G : array_like (d, n)
        The examples' gradients, as columns; batch losses are means.
    kind, b, B
        As in :func:`draw`.

    Returns
    -------
    ndarray (d, d)
        Per step, before the factor eta².

    Raises
    ------
    ValueError, TypeError
        As :func:`draw`, and if G is no finite matrix.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, eq. (1).

    Examples
    --------
    Gradients 1 and 3: SGD takes 2 ± 1, and the Fisher matrix is 5:

    >>> print(gradient_covariance("sgd", [[1.0, 3.0]], 1), gradient_covariance("gaussian_fisher", [[1.0, 3.0]], 1))
    [[1.]] [[5.]]
    """
    G = _validate.matrix("G", G)
    _validate.integer("the rows of G", len(G), high=MAX_SQUARE)
    n, b, B = _checked_sizes(kind, G.shape[1], b, B)
    alpha, beta = _coefficients(kind, n, b)
    g = G.mean(1)
    centred = G - g[:, None]  # F = F - gg' + gg': nothing cancels where the noise is centred
    return alpha * centred @ centred.T + (alpha + beta) * n * np.outer(g, g)


def _checked_sizes(kind: str, n: int, b: int, B: int | None) -> tuple[int, int, int | None]:
    """The sizes that the kind allows, or an error that names the one that is wrong."""
    _validate.choice("kind", kind, KINDS)
    n = _validate.integer("n", n, low=1)
    b = _validate.integer("b", b, low=1, high=n if kind in ("sgd_without_replacement", "bernoulli") else MAX_BATCH)
    if kind not in ("sparse_fisher", "sparse_cov"):
        return n, b, None
    if B is None:
        raise ValueError(f"B = None: {kind} needs the number of examples that carry noise")
    return n, b, _validate.integer("B", B, low=2 if kind == "sparse_cov" else 1, high=n)


def _coefficients(kind: str, n: int, b: int) -> tuple[float, float]:
    r"""alpha and beta of :math:`\operatorname{Var} W = \alpha I + \beta P`."""
    if kind in ("gaussian_fisher", "sparse_fisher", "bernoulli", "binomial"):
        share = {"bernoulli": 1 - b / n, "binomial": 1 - 1 / n}.get(kind, 1.0)
        return share / (b * n), 0.0
    share = {"gd": 0.0, "sgd_without_replacement": (n - b) / max(n - 1, 1)}.get(kind, 1.0)
    return share / (b * n), -share / (b * n)


def _counts(rng: np.random.Generator, rows: int, n: int, b: int, B: int | None) -> np.ndarray:
    cells = rng.integers(n, size=(rows, b)) + n * np.arange(rows)[:, None]
    return np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n) / b


def _scatter(rows: int, n: int, at: np.ndarray, values: np.ndarray | float) -> np.ndarray:
    W = np.zeros((rows, n))
    np.put_along_axis(W, at, values, axis=1)
    return W


def _subset(rng: np.random.Generator, rows: int, n: int, b: int, B: int | None) -> np.ndarray:
    return _scatter(rows, n, subsets(rng, rows, n, b), 1 / b)


def _fisher(rng: np.random.Generator, rows: int, n: int, b: int, B: int | None) -> np.ndarray:
    return 1 / n + rng.standard_normal((rows, n)) / np.sqrt(b * n)


def _sparse_fisher(rng: np.random.Generator, rows: int, n: int, b: int, B: int) -> np.ndarray:
    S = subsets(rng, rows, n, B)
    return 1 / n + _scatter(rows, n, S, rng.standard_normal((rows, B)) / np.sqrt(b * B))


def _sparse_cov(rng: np.random.Generator, rows: int, n: int, b: int, B: int) -> np.ndarray:
    S = subsets(rng, rows, n, B)
    scale = np.sqrt((n - 1) / (b * n * (B - 1)))
    return 1 / n + _scatter(rows, n, S, scale * centre(rng.standard_normal((rows, B))))


def _centred(noise: Callable) -> Callable:
    """Weights 1/n + (ε − mean of ε)/√(bn) with ε from ``noise(rng, shape)``, independent and of variance 1."""

    def weights(rng: np.random.Generator, rows: int, n: int, b: int, B: int | None) -> np.ndarray:
        return 1 / n + centre(noise(rng, (rows, n))) / np.sqrt(b * n)

    return weights


_DRAW = {
    "gd": lambda rng, rows, n, b, B: np.full((rows, n), 1 / n),
    "sgd": _counts,
    "sgd_without_replacement": _subset,
    "gaussian_cov": _centred(lambda rng, shape: rng.standard_normal(shape)),
    "gaussian_fisher": _fisher,
    "bernoulli": lambda rng, rows, n, b, B: (rng.random((rows, n)) < b / n) / b,
    "binomial": lambda rng, rows, n, b, B: rng.binomial(b, 1 / n, (rows, n)) / b,
    "sparse_fisher": _sparse_fisher,
    "sparse_cov": _sparse_cov,
    "rademacher": _centred(lambda rng, shape: 2.0 * rng.integers(2, size=shape) - 1),
    "student_t": _centred(lambda rng, shape: rng.standard_t(4, shape) / np.sqrt(2)),
}

#: The kinds of sampling vectors.
KINDS = tuple(_DRAW)
