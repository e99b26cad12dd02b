"""Noise on top of a mini-batch (Algorithm 2 of the source): its weights, their covariance, and how much to add."""

from __future__ import annotations

import numpy as np
from implicitreg import _validate
from numpy.typing import ArrayLike

MAX_NUMBERS = 10**9  # in what is drawn at once, or in a matrix: 8 GB
MAX_SQUARE = 31_622  # rows of a square matrix


@_validate.in_range
def centre(epsilon: ArrayLike, ghost: int | None = None) -> np.ndarray:
    r"""Noise less its mean, over the whole last axis or within each of its blocks ("ghosts") of ``ghost`` entries.

    .. math:: \epsilon_k - \frac1m \sum_{l \in \text{ghost of } k} \epsilon_l

    Parameters
    ----------
    epsilon : array_like (..., B)
        The noise.
    ghost : int, optional
        The size m of a block of consecutive entries, a divisor of B; by default B.

    Returns
    -------
    ndarray (..., B)
        Sums to zero in every block.

    Raises
    ------
    ValueError, TypeError
        If ghost is no positive divisor of B, or epsilon has no entries.

    Examples
    --------
    >>> print(centre([1.0, 3.0, 0.0, 4.0]), centre([1.0, 3.0, 0.0, 4.0], ghost=2))
    [-1.  1. -2.  2.] [-1.  1. -2.  2.]
    """
    epsilon = _validate._floats("epsilon", epsilon)
    if epsilon.ndim == 0 or epsilon.shape[-1] == 0:
        raise ValueError(f"epsilon has shape {epsilon.shape}: expected at least one entry along the last axis")
    blocks = epsilon.reshape(*epsilon.shape[:-1], -1, _ghost(ghost, epsilon.shape[-1]))
    return (blocks - blocks.mean(-1, keepdims=True)).reshape(epsilon.shape)


def compensation(kind: str, b: int, B: int, n: int | None = None, *, ghost: int | None = None) -> float:
    r"""The variance s² of the noise that gives a batch of B the gradient covariance of SGD with the smaller batch b.

    The weights of the B examples are :math:`w_k = \frac1B + s\,\epsilon_k`. The :math:`\epsilon_k` are independent, of
    mean 0 and variance 1; for ``"cov"`` their mean (over each ghost of m, by default all B) is then taken off:

    .. math:: s^2_{cov} = \frac{(B-b)\,m}{b B^2 (m-1)} \;\Big[= \frac{B-b}{bB(B-1)} \text{ for } m = B\Big], \qquad
              s^2_{fisher} = \frac{B-b}{bB^2} \;\Big[\text{times } \frac{n}{n-1}\text{ without replacement}\Big].

    With ``"cov"``, the covariance of the sampling vector W is exactly that of SGD-b with the same outer sampling, for
    every n and theta. With ``"fisher"`` the coefficient of :math:`F - gg^\top` is that of SGD-b, and an excess
    :math:`(\frac1b - \frac1B)\,gg^\top` (times n/(n − 1) without replacement) remains: no choice of s removes it.

    Parameters
    ----------
    kind : {"cov", "fisher"}
        Centred noise or not.
    b, B : int
        The batch size to imitate and the batch size used, b ≤ B; with B = b no noise is needed.
    n : int, optional
        For ``"fisher"``: the number of training examples, when the B examples are drawn from them *without*
        replacement. Without it they are drawn with replacement. For ``"cov"`` both are the same, and n is ignored.
    ghost : int, optional
        For ``"cov"``: the size m ≥ 2 of the blocks within which the noise is centred, a divisor of B. The examples must
        fall into the blocks at random.

    Returns
    -------
    float
        s². In units of the mean weight 1/B, the standard deviation of the noise is B s.

    Raises
    ------
    ValueError, TypeError
        If the kind is unknown, or an argument is out of its range or not of its type.

    Notes
    -----
    The source says that this covariance "becomes hard to calculate", and tunes the magnitude of the noise.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Algorithm 2, section 4.5 (corrected: the
    compensation has a closed form) and the covariance in Theorem 1.

    Examples
    --------
    A batch of 2 with the noise of one of its two examples, w = (1, 0) or (0, 1), whose variance is s²/2 = 1/4:

    >>> compensation("cov", 1, 2)
    0.5
    """
    _validate.choice("kind", kind, ("cov", "fisher"))
    n = n if n is None else _validate.integer("n", n, low=1)
    B = _validate.integer("B", B, low=1)
    b = _validate.integer("b", b, low=1, high=B)
    if kind == "cov":
        m = _ghost(ghost, B)
        if m == 1 and b < B:
            raise ValueError(f"ghost = {m}: expected at least 2; centred alone, noise vanishes")
        return (B - b) * m / (b * B**2 * (m - 1)) if b < B else 0.0
    if ghost is not None:
        raise ValueError(f"ghost = {ghost} with kind = 'fisher': expected None; this noise is not centred")
    if n is None:
        return (B - b) / (b * B**2)
    n = _validate.integer("n", n, low=max(B, 2))
    return (B - b) / (b * B**2) * n / (n - 1)


def minibatch_covariance(
    s2: float, n: int, B: int, *, centred: bool, replacement: bool, ghost: int | None = None
) -> np.ndarray:
    r"""The total covariance of the sampling vector W of Algorithm 2: outer batch and noise on its weights together.

    B of n examples are drawn and weighted :math:`w = \frac1B\mathbf 1 + \mathcal V` with noise of covariance
    :math:`\Sigma_B`, independent of the draw. With :math:`\tau = \operatorname{tr}\Sigma_B`,
    :math:`\omega = \sum_{k \neq l} (\Sigma_B)_{kl}` and :math:`P = \frac1n\mathbf{11}^\top`,

    .. math::

        \operatorname{Var} W &= \frac{1}{Bn}(I - P) + \frac{\tau}{n} I + \frac{\omega}{n} P
            && \text{(drawn with replacement)}, \\
        \operatorname{Var} W &= \frac{n-B}{Bn(n-1)}(I - P) + \frac{\tau}{n} I + \frac{\omega}{n(n-1)}(nP - I)
            && \text{(without)}.

    Parameters
    ----------
    s2 : float
        The variance s² of the noise on a weight, before centring; not negative. See :func:`compensation`.
    n, B : int
        Training examples, and the size of the outer batch.
    centred : bool
        Whether the noise is centred: then :math:`\tau = s^2 B\,(1 - \frac1m)` and :math:`\omega = -\tau`; otherwise
        :math:`\tau = s^2 B` and :math:`\omega = 0`.
    replacement : bool
        Whether the B examples are drawn with replacement.
    ghost : int, optional
        With ``centred``: the size m of the blocks of the centring, by default B.

    Returns
    -------
    ndarray (n, n)

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type, or B > n without replacement.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Algorithm 2 (ours: the law of total covariance).

    Examples
    --------
    All of n = 2 examples, with the noise of SGD, b = 1:

    >>> print(minibatch_covariance(1 / 2, 2, 2, centred=True, replacement=False))
    [[ 0.25 -0.25]
     [-0.25  0.25]]
    """
    s2 = _validate.number("s2", s2, low=0)
    n, B, m = _sizes(n, B, centred, replacement, ghost)
    _validate.integer("n", n, high=MAX_SQUARE)
    tau = s2 * B * (1 - 1 / m) if centred else s2 * B
    omega = -tau if centred else 0.0
    I, P = np.eye(n), np.full((n, n), 1 / n)
    if replacement:
        return (I - P) / (B * n) + tau / n * I + omega / n * P
    others = max(n - 1, 1)  # with n = 1, I - P = nP - I = 0
    return (n - B) / (B * n * others) * (I - P) + tau / n * I + omega / (n * others) * (n * P - I)


def draw_minibatch(
    s2: float, n: int, B: int, *, centred: bool, replacement: bool, ghost: int | None = None,
    rng: np.random.Generator, size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    r"""Indices and weights of a noisy mini-batch: :math:`w_k = \frac1B + s\,\epsilon_k` with Gaussian noise.

    The step is :math:`\theta - \eta \sum_k w_k \nabla\ell_{i_k}(\theta)`: only these B examples are looked at.

    Parameters
    ----------
    s2, n, B, centred, replacement, ghost
        As in :func:`minibatch_covariance`, which is the covariance of :math:`W = \sum_k w_k e_{i_k}`.
    rng : numpy.random.Generator
        Where the randomness comes from.
    size : int, optional
        How many batches.

    Returns
    -------
    indices, weights : ndarray (B,), ndarray (B,)
        Or ``(size, B)`` each. The indices are in random order, so that ghosts hold examples at random.

    Raises
    ------
    ValueError, TypeError
        As :func:`minibatch_covariance`, and if rng is no generator or size no positive integer.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Algorithm 2.

    Examples
    --------
    Without noise the weights are 1/B:

    >>> i, w = draw_minibatch(0.0, 3, 3, centred=True, replacement=False, rng=np.random.default_rng(0))
    >>> print(sorted(i.tolist()), w * 3)
    [0, 1, 2] [1. 1. 1.]
    """
    s2 = _validate.number("s2", s2, low=0)
    n, B, m = _sizes(n, B, centred, replacement, ghost)
    generator(rng)
    wide = B if replacement else _validate.integer("n", n, high=MAX_NUMBERS)
    _validate.integer("B", B, high=MAX_NUMBERS)
    rows = 1 if size is None else _validate.integer("size", size, low=1, high=MAX_NUMBERS // wide)
    indices = rng.integers(n, size=(rows, B)) if replacement else subsets(rng, rows, n, B)
    epsilon = rng.standard_normal((rows, B))
    w = 1 / B + np.sqrt(s2) * (centre(epsilon, m) if centred else epsilon)
    return (indices[0], w[0]) if size is None else (indices, w)


def subsets(rng: np.random.Generator, rows: int, n: int, B: int) -> np.ndarray:
    """Rows of B different indices below n, each in uniformly random order, ``(rows, B)``."""
    return rng.permuted(np.tile(np.arange(n), (rows, 1)), axis=1)[:, :B]


def generator(rng: np.random.Generator) -> None:
    """An error unless rng is a NumPy generator."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng = {rng!r}: expected a numpy.random.Generator")


def _ghost(ghost: int | None, B: int) -> int:
    if ghost is None:
        return B
    ghost = _validate.integer("ghost", ghost, low=1)
    if B % ghost:
        raise ValueError(f"ghost = {ghost}: expected a divisor of B = {B}")
    return ghost


def _sizes(n: int, B: int, centred: bool, replacement: bool, ghost: int | None) -> tuple[int, int, int]:
    centred, replacement = _validate.flag("centred", centred), _validate.flag("replacement", replacement)
    n = _validate.integer("n", n, low=1)
    B = _validate.integer("B", B, low=1, high=None if replacement else n)
    if ghost is not None and not centred:
        raise ValueError(f"ghost = {ghost} with centred = False: expected None")
    return n, B, _ghost(ghost, B)
