r"""Very many runs of SGD, GD and an SDE on a small landscape, reproducible run by run.

A landscape says how the gradient of one example depends on the weights and on the example's noise x. What run r draws
at step t is a function of (seed, r, t) alone (Philox), so that a run does not depend on how many others there are, on
the blocks they are computed in, or on the process; different seeds have disjoint streams. Numbers are float64. With
numba (the extra ``fast``) large ensembles are compiled; the runs are the same, to the last bit where the gradient is a
polynomial and the noise Rademacher, to rounding otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from implicitreg import _validate
from implicitreg.ensembles import _runs, _streams
from implicitreg.ensembles._laws import Landscape, Noise, atoms, finite, gaussian, rademacher
from implicitreg.ensembles._runs import Ensemble
from numpy.typing import ArrayLike

__all__ = ["Ensemble", "Landscape", "Noise", "atoms", "finite", "gaussian", "gd", "points", "rademacher", "sde", "sgd"]


@_validate.in_range
def sgd(
    landscape: Landscape, eta: float, T: int, runs: int, *, seed: int, N: int | None = None, B: int = 1,
    at: Sequence[int] | None = None, control: bool | ArrayLike = False, first: int = 0, fast: bool | None = None,
    progress: bool | None = None,
) -> Ensemble:  # fmt: skip
    r"""Runs of SGD,

    .. math:: \theta_{t+1} = \theta_t - \frac{\eta}{B} \sum_{n \in B_t} \nabla\ell_{x_n}(\theta_t).

    Without N, every step takes one fresh example (E = B = 1). With N, each run has its own training set of N examples,
    drawn once; in every epoch of N/B steps the batches partition it, in a fresh uniformly random order, and the last
    epoch may be partial, as in `implicitreg.exact.run`. The nth training example of a run is the nth fresh one of the
    same seed and run, so that differences between schedules are paired.

    Parameters
    ----------
    landscape : Landscape
    eta : float
        The step size, positive.
    T, runs : int
        Steps (0 gives the start) and runs.
    seed : int
        From 0 to 2^64 - 1.
    N, B : int
        Size of the training sets and of the batches, B a divisor of N.
    at : sequence of int, optional
        The steps to keep, increasing, from 0 to T; by default only T.
    control : bool or array_like (d,)
        Run control variates along, expanded about the start, or about a given centre (best a minimum nearby).
        Only with fresh examples, and noise of mean 0 and covariance I.
    first : int
        The number of the first run: ``first=1000`` continues an ensemble of 1000 runs, in another process for instance.
    fast : bool, optional
        Compile with numba. By default when it is installed and the ensemble is large; needs fresh examples and at most
        four weights and noise coordinates.
    progress : bool, optional
        Show a progress bar; by default on a terminal only.

    Returns
    -------
    Ensemble

    Raises
    ------
    ValueError
        If an argument is out of its range, or a run diverges.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Tenka, SGD at Small Learning Rates, section 1.

    Examples
    --------
    The control variate of a linear recursion is the recursion itself: its mean (1 - 1/2)^3 comes out exactly.

    >>> quadratic = Landscape(lambda theta, x, p: (theta[0] + x[0],), [1.0], gaussian())
    >>> e = sgd(quadratic, 0.5, 3, 100, seed=0, control=True).mean()
    >>> bool(abs(e.mean[0, 0] - 1 / 8) < 1e-9), bool(e.se[0, 0] < 1e-9)
    (True, True)
    """
    eta, T, runs, at, seed, first = _runs.arguments(landscape, eta, T, runs, seed, at, first)
    B = _validate.integer("B", B, low=1)
    if N is None:
        if B != 1:
            raise ValueError(f"B = {B} without N: expected a training set of N examples, or B = 1")
        return _runs.fresh(landscape, eta, _streams.STEPS, runs, seed, at, control, first, fast, progress)
    N = _validate.integer("N", N, low=1, high=_most_examples(landscape))
    B = _validate.integer("B", B, low=1, high=N)
    if N % B:
        raise ValueError(f"B = {B}: expected a divisor of N = {N}")
    if _validate.optional_flag("fast", fast) or not (isinstance(control, bool | np.bool_) and not control):
        raise ValueError(f"fast = {fast}, control = {control!r} with N = {N}: expected fresh examples, N = None")
    return _runs.epochs(landscape, eta, runs, seed, N, B, at, first, progress)


def gd(landscape: Landscape, eta: float, T: int, runs: int, *, N: int, seed: int, **options) -> Ensemble:
    r"""Runs of gradient descent, each on its own training set of N examples, drawn once,

    .. math:: \theta_{t+1} = \theta_t - \frac{\eta}{N} \sum_{n < N} \nabla\ell_{x_n}(\theta_t).

    The arguments are those of `sgd` with B = N.

    Examples
    --------
    With one example, x = ±1, the loss θ²/2 + xθ has its minimum at -x:

    >>> quadratic = Landscape(lambda theta, x, p: (theta[0] + x[0],), [0.0], rademacher())
    >>> x = points(quadratic, 4, N=1, seed=0)
    >>> bool((gd(quadratic, 1.0, 2, 4, N=1, seed=0).final == -x[:, 0]).all())
    True
    """
    N = _validate.integer("N", N, low=1)
    return sgd(landscape, eta, T, runs, N=N, B=N, seed=seed, **options)


@_validate.in_range
def sde(
    landscape: Landscape, eta: float, T: int, runs: int, *, seed: int, substeps: int = 8,
    at: Sequence[int] | None = None, control: bool | ArrayLike = False, first: int = 0, fast: bool | None = None,
    progress: bool | None = None,
) -> Ensemble:  # fmt: skip
    r"""Runs of the Itô equation that matches the first two moments of a step of SGD, for the time ηT,

    .. math:: d\theta = -\nabla L(\theta)\,ds + \sqrt{\eta\, C(\theta)}\; dW,

    by Euler and Maruyama with the step h = η/substeps and the exact covariance C of one example's gradient. Means of
    smooth functions have an error proportional to h; one substep is SGD with Gaussian noise. The noise is independent
    of that of `sgd` with the same seed.

    Parameters
    ----------
    substeps : int
        Steps of the scheme in the time η.
    landscape, eta, T, runs, seed, at, control, first, fast, progress
        As in `sgd`; the landscape has ``drift`` and ``spread``; T and `at` count steps of SGD.

    Returns
    -------
    Ensemble

    Raises
    ------
    ValueError, TypeError
        As `sgd`, and if the landscape has no ``drift`` or ``spread``.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 5.

    Examples
    --------
    Without noise, a step of Euler's method:

    >>> still = Landscape(lambda theta, x, p: (theta[0],), [1.0], gaussian(),
    ...                   lambda theta, p: (theta[0],), lambda theta, w, p: (0.0 * w[0],))
    >>> float(sde(still, 0.5, 1, 2, seed=0, substeps=2).final[0, 0])  # (1 - 1/4)²
    0.5625
    """
    eta, T, runs, at, seed, first = _runs.arguments(landscape, eta, T, runs, seed, at, first)
    substeps = _validate.integer("substeps", substeps, low=1, high=_runs.MAX_UPDATES // (max(T, 1) * runs))
    if landscape.drift is None or landscape.spread is None:
        raise ValueError("landscape has no drift and spread: expected both, for the SDE")
    fine = tuple(t * substeps for t in at)
    root = substeps**0.5
    moves = replace(landscape, gradient=_runs.brownian_step(landscape.drift, landscape.spread), drift=None, spread=None,
                    noise=gaussian(landscape.sources), parameters=(*landscape.parameters, root))  # fmt: skip
    ensemble = _runs.fresh(moves, eta / substeps, _streams.BROWNIAN, runs, seed, fine, control, first, fast, progress,
                    (landscape.drift, landscape.spread))  # fmt: skip
    return replace(ensemble, steps=at)


def points(landscape: Landscape, runs: int, *, N: int, seed: int, first: int = 0) -> np.ndarray:
    """The training sets that `sgd` and `gd` draw: the noise x of N examples for each run, ``(R, N, k)``.

    Examples
    --------
    >>> quadratic = Landscape(lambda theta, x, p: (theta[0] + x[0],), [0.0], gaussian())
    >>> points(quadratic, 5, N=3, seed=0).shape
    (5, 3, 1)
    """
    _, _, runs, _, seed, first = _runs.arguments(landscape, 1.0, 0, runs, seed, None, first)
    N = _validate.integer("N", N, low=1, high=_most_examples(landscape, runs))
    block = np.arange(first, first + runs, dtype=np.uint64)
    return _runs.training_sets(landscape, seed, block, N).transpose(2, 0, 1)


def _most_examples(landscape: Landscape, runs: int = 64) -> int:
    """How many examples a training set has at most, where so many runs are in memory."""
    return _runs.MAX_NUMBERS // (runs * landscape.noise.size)
