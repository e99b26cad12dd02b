r"""Penalties on the gradient's variance, and the modified loss that makes full batches follow SGD.

From a matrix of per-example gradients, or for a network and its training set; batch losses are means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from implicitreg import _validate
from implicitreg._torch import torch
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import nn

__all__ = ["barrett_dherin_penalty", "modified_gradient", "modified_loss", "roberts_penalty", "smith_penalty"]


@_validate.in_range
def smith_penalty(gradients: ArrayLike, eta: float) -> float:
    r"""What gradient flow must add to follow the mean of a shuffled epoch: :math:`\frac\eta{4K}\sum_k|\partial L_k|^2`.

    Parameters
    ----------
    gradients : array_like (K, d)
        The gradients of the mean losses of the K equal batches of one epoch.
    eta : float
        The step size, positive.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Smith, Dherin, Barrett, De, On the Origin of Implicit Regularization in Stochastic Gradient
    Descent (2021).

    Examples
    --------
    >>> smith_penalty([[3.0, 4.0], [0.0, 1.0]], 0.4)     # 0.4 (25 + 1) / 8
    1.3
    """
    g = _validate.matrix("gradients", gradients)
    return _validate.number("eta", eta, above=0) / 4 * float(np.mean(np.sum(g**2, axis=1)))


@_validate.in_range
def barrett_dherin_penalty(gradients: ArrayLike, eta: float) -> float:
    r"""What gradient flow must add to follow GD: :math:`\frac\eta4|\partial L|^2`.

    Parameters
    ----------
    gradients : array_like (K, d)
        The gradients of the mean losses of K equal batches, or of the single examples; L is their mean.
    eta : float
        The step size, positive.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Barrett and Dherin, Implicit Gradient Regularization (2021).

    Examples
    --------
    >>> barrett_dherin_penalty([[3.0, 3.0], [0.0, 1.0]], 0.4)      # 0.1 (1.5² + 2²)
    0.625
    """
    g = _validate.matrix("gradients", gradients)
    return _validate.number("eta", eta, above=0) / 4 * float(np.sum(g.mean(axis=0) ** 2))


@_validate.in_range
def roberts_penalty(gradients: ArrayLike, eta: float, *, batch_size: int) -> float:
    r"""What GD must add to follow the mean of a shuffled epoch: :math:`\frac\eta4(\frac1n - \frac1N)\,\mathrm{tr}\,S`.

    Over the shuffles it is exactly the mean of Smith's penalty minus Barrett and Dherin's.

    Parameters
    ----------
    gradients : array_like (N, d)
        The gradients of the N examples, N >= 2; S has 1/(N − 1).
    eta : float
        The step size, positive.
    batch_size : int
        n, a divisor of N.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, below eq. (13), for K batches and a fixed data set.

    Examples
    --------
    Batches of one have no order to average over, so it is the difference of the two other penalties:

    >>> g = [[3.0, 3.0], [0.0, 1.0]]
    >>> difference = smith_penalty(g, 0.4) - barrett_dherin_penalty(g, 0.4)
    >>> print(round(roberts_penalty(g, 0.4, batch_size=1), 12), round(difference, 12))
    0.325 0.325
    """
    g = _validate.matrix("gradients", gradients)
    strength = _strength(eta, len(g), batch_size)
    return strength * float(np.sum((g - g.mean(axis=0)) ** 2)) / (len(g) - 1)


def modified_gradient(
    model: nn.Module, loss: Callable[..., torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor, *,
    eta: float, batch_size: int, verify: bool | Literal["full"] = True,
) -> torch.Tensor:  # fmt: skip
    r"""Gradient of the modified loss of a torch model on its whole training set.

    .. math:: \bar g + \frac\eta4\Big(\frac1n - \frac1N\Big)\,\partial\,\mathrm{tr}\,S .

    Full-batch steps of size :math:`\eta` along it follow, through :math:`\eta^2` and in the mean over shuffles, epochs
    of SGD with batches of n without replacement and the same :math:`\eta`.

    Parameters
    ----------
    model, loss, inputs, targets
        As for ``gradstats.moments``: ``loss(outputs, targets)`` gives one loss an example, ``(N,)``, and the examples
        do not interact (no batch normalization in training mode).
    eta : float
        The step size of both runs, positive.
    batch_size : int
        n, a divisor of N.
    verify : bool or "full"
        How far to look for examples that interact, as in ``gradstats.moments``; False for all steps of a run but the
        first.

    Returns
    -------
    Tensor (p,)
        Flat, in the order of ``model.parameters()``, detached.

    Raises
    ------
    ValueError, TypeError
        If eta or batch_size is out of its range, or as from ``gradstats``.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, below eq. (13), for K batches and a fixed data set.

    Examples
    --------
    One weight w, losses h w²/2 with h = 1 and 3: the gradient is 2w, and tr S = 2w² adds 4w/2 · η/4.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> h = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> loss = lambda w, h: (h * w**2 / 2).squeeze(1)
    >>> print(modified_gradient(model, loss, torch.ones_like(h), h, eta=0.1, batch_size=1).numpy().round(12))
    [2.05]
    """
    from implicitreg import gradstats

    m = gradstats.moments(model, loss, inputs, targets, verify=verify)
    strength = _strength(eta, m.n, batch_size)
    return m.mean + strength * gradstats.grad_trace(model, loss, inputs, targets, verify=verify)


def modified_loss(
    model: nn.Module, loss: Callable[..., torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor, *,
    eta: float, batch_size: int, verify: bool | Literal["full"] = True,
) -> torch.Tensor:  # fmt: skip
    r"""The modified loss of a torch model, :math:`L_D + \frac\eta4(\frac1n - \frac1N)\,\mathrm{tr}\,S_D`: a 0-d tensor.

    Parameters, errors and source are those of :func:`modified_gradient`, which is its gradient.

    Examples
    --------
    The example of :func:`modified_gradient`: the mean loss is 1, tr S = 2, and the penalty is 0.1/4 · 1/2 · 2.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> h = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> loss = lambda w, h: (h * w**2 / 2).squeeze(1)
    >>> print(round(float(modified_loss(model, loss, torch.ones_like(h), h, eta=0.1, batch_size=1)), 12))
    1.025
    """
    from implicitreg import gradstats
    from implicitreg.gradstats._sample import entered

    m = gradstats.moments(model, loss, inputs, targets, verify=verify)
    strength = _strength(eta, m.n, batch_size)
    with entered(model, loss, inputs, targets) as sample:
        own = replace(sample, inputs=sample.inputs.clone(), targets=sample.targets.clone())
        return own.losses().detach().mean() + strength * m.trace


def _strength(eta: float, N: int, n: int) -> float:
    """(eta/4)(1/n − 1/N)."""
    eta = _validate.number("eta", eta, above=0)
    if N < 2:
        raise ValueError(f"gradients of {N} example: expected at least two, for a sample covariance")
    n = _validate.integer("batch_size", n, low=1, high=N)
    if N % n:
        raise ValueError(f"batch_size = {n}: expected a divisor of the {N} examples")
    return eta / 4 * (N - n) / (n * N)
