r"""Corollary 3: gradient descent with the regularizer that makes it follow SGD.

Full-batch gradient descent and SGD with batches of one example (B = 1) differ at the second order in the step size.
Gradient descent on the mean training loss *plus* the penalty of this module, named GDC, agrees with SGD through
:math:`\eta^2`, in the mean of theta and of the loss, when both take the same number of steps T with the same step size
on the same N examples and these are whole epochs; the source has one epoch, T = N. With the penalty of the training
set the agreement holds for every training set, in the mean over the orders; with the penalty of the population, in the
mean over training sets, too. It does not hold for a single order, for SGD on more fresh examples than GDC has, for a
broken epoch, or to higher order.

C is the covariance of *one* example's gradient, batch losses are means, and the penalty contains one power of the step
size eta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from implicitreg import _validate, gradstats
from implicitreg._brief import brief
from implicitreg._failures import explained
from implicitreg._torch import torch
from implicitreg.gradstats._copy import check_examples
from implicitreg.gradstats._sample import autograd
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Loss", "Regularizer", "gdc_penalty", "half_split_penalty", "regularizer"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Regularizer:
    """The value of the regularizer and its gradient (d,); see :func:`regularizer`."""

    value: float
    gradient: np.ndarray
    __repr__ = brief


@_validate.in_range
def regularizer(problem: FiniteProblem, eta: float | ArrayLike, N: int, theta: ArrayLike | None = None) -> Regularizer:
    r"""The regularizer of the population, and its gradient.

    .. math::

        \ell_C(\theta) = \frac{N-1}{4N}\operatorname{tr}\big(\eta\,C(\theta)\big), \qquad
        \partial\ell_C = \frac{N-1}{2N}\,\big\langle(H_x - H)\,\eta\,(g_x - G)\big\rangle .

    Parameters
    ----------
    problem : FiniteProblem
        The m losses and their probabilities.
    eta : float or array_like (d, d)
        The step size: a positive number or a symmetric positive definite matrix.
    N : int
        Training examples, at least 1.
    theta : array_like (d,), optional
        Where; by default at ``problem.theta0``.

    Returns
    -------
    Regularizer
        ``value``, ``gradient (d,)``.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a derivative is not finite.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 3 (corrected: the regularizer is the scalar
    :math:`\frac{N-1}{4N}C^\nu_\nu`, and T steps move theta by T times its gradient).

    Examples
    --------
    Curvature 1 or 3 in one dimension: tr C = θ², and (N − 1)/(4N) = 1/8 for N = 2:

    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [2.0])
    >>> at = regularizer(problem, 1.0, 2)
    >>> at.value == 4 / 8, at.gradient.tolist() == [4 / 8]
    (True, True)
    """
    if not isinstance(problem, FiniteProblem):
        raise TypeError(f"problem = {problem!r}: expected a FiniteProblem")
    N, p = _validate.integer("N", N, low=1), problem.probabilities
    if _validate.array("eta", eta).ndim == 0:
        metric = _validate.number("eta", eta, above=0) * np.eye(problem.d)
    else:
        metric = _validate.spd("eta", eta, size=problem.d)
    _, g, h = problem.derivatives(2, theta)
    c = g - p @ g
    value = p @ np.einsum("mi,ij,mj->m", c, metric, c)
    gradient = 2 * p @ np.einsum("mij,mj->mi", h - np.tensordot(p, h, 1), c @ metric)
    factor = (N - 1) / (4 * N)
    return Regularizer(float(factor * value), factor * gradient)


def gdc_penalty(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, eta: float, *, chunk_size: int | None = None,
    verify: bool | Literal["full"] = True,
) -> Tensor:  # fmt: skip
    r"""The regularizer of a training set, to be added to its mean loss.

    .. math::

        \hat\ell_C(\theta) = \frac\eta{4N}\sum_{n<N}|g_n - \bar g|^2, \qquad
        \partial\hat\ell_C = \frac\eta{2N}\sum_n(H_n - \bar H)(g_n - \bar g) = \frac\eta{2N}\sum_nH_n(g_n - \bar g).

    Unbiased for :math:`\ell_C` of `regularizer`, value and gradient, as :math:`\sum_n|g_n-\bar g|^2/(N-1)` is for tr C.
    A step of gradient descent on ``loss(model(x), y).mean() + gdc_penalty(model, loss, x, y, eta)`` is a step of GDC.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64, on one device.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (N,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (N, ...)
        The whole training set, at least two examples.
    eta : float
        The step size of the descent, positive.
    chunk_size : int, optional
        Examples in memory at a time, as in `implicitreg.gradstats.moments`.
    verify : bool or "full"
        How far to look for examples that interact, as there; False for all steps of a run but the first.

    Returns
    -------
    Tensor ()
        Differentiable once, by the parameters with ``requires_grad``.

    Raises
    ------
    ValueError
        If eta is not positive, there are fewer than two examples, the losses are not (N,), not finite, or not those of
        the examples alone (dropout and batch normalisation in training mode are refused), a gradient is not finite.
    TypeError
        If an argument is not of these types.

    Notes
    -----
    What it is for: T = N full steps of GDC agree with N steps of SGD (one epoch, B = 1, the same eta) through
    :math:`\eta^2` in the mean over orders, and hence over data sets; so do E N steps with E epochs. In one epoch SGD
    pairs every two different examples, :math:`\sum_{s<t}H_tg_s`, where gradient descent pairs each with itself as
    well; the penalty's N steps take out :math:`\frac12\sum_nH_n(g_n-\bar g)`.

    The gradient is the closed form above, computed together with the value: for linear and convolutional layers a few
    ordinary backward passes, without rows of N gradients. It goes with the value, and a second derivative does not.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 3 (corrected), and its algorithm GDC.

    Examples
    --------
    Gradients w and 3 w at w = 2: the mean is 4, the penalty 8/8, its derivative 8/8:

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> ones, h = torch.ones(2, 1, dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> penalty = gdc_penalty(model, lambda w, h: h * w[:, 0] ** 2 / 2, ones, h, eta=1.0)
    >>> penalty.backward()
    >>> penalty.item(), model.weight.grad.item()
    (1.0, 1.0)
    """
    eta = _validate.number("eta", eta, above=0)
    wanted = torch.is_grad_enabled()
    how = {"chunk_size": chunk_size, "verify": verify}
    value = gradstats.moments(model, loss, inputs, targets, **how).trace
    gradient = gradstats.grad_trace(model, loss, inputs, targets, **how) if wanted else None
    beta = eta * (len(inputs) - 1) / (4 * len(inputs))
    return _WithGradient.apply(beta * value, beta * gradient if wanted else None, *_parameters(model))


def half_split_penalty(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, eta: float) -> Tensor:
    r"""The same from the mean gradients a, b of the first and the second half of the training set alone.

    .. math::

        \hat\ell_C \approx \beta\,\frac N2\,a\cdot(a - b), \qquad
        \partial\hat\ell_C \approx 2\beta\,\frac N2\,H_a(a - b), \qquad \beta = \eta\,\frac{N-1}{4N},

    value and gradient each unbiased, for the `gdc_penalty` over all splits of the same examples and for `regularizer`
    over training sets. The gradient is not that of the value for one split: :math:`a - b` is held fixed in it, and
    the factor 2 makes up for that.

    Parameters
    ----------
    model, loss, inputs, targets, eta
        As in `gdc_penalty`; N is even, and the examples are in random order.

    Returns
    -------
    Tensor ()
        May be negative. Its gradient is as said above.

    Raises
    ------
    ValueError
        As in `gdc_penalty`, or if N is odd.
    TypeError
        If an argument is not of these types.

    Notes
    -----
    Two backward passes and one through half of the examples, for any model whose losses can be differentiated twice;
    much noisier than `gdc_penalty`.

    References
    ----------
    Tenka, SGD at Small Learning Rates, appendix (corrected: the printed estimator
    :math:`\frac12(g_x - g_y)\cdot g_x` has the mean tr C / 2; without the 1/2 it is unbiased).

    Examples
    --------
    Gradients w and 3 w at w = 2, halves of one example: a = 2, b = 6, and (1/8) · 2 · (−4), 2 (1/8) · 1 · (−4):

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> ones, h = torch.ones(2, 1, dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> penalty = half_split_penalty(model, lambda w, h: h * w[:, 0] ** 2 / 2, ones, h, eta=1.0)
    >>> penalty.backward()
    >>> penalty.item(), model.weight.grad.item()
    (-1.0, -1.0)
    """
    eta = _validate.number("eta", eta, above=0)
    N = _even(inputs, targets)
    check_examples(model, loss, inputs, targets)
    theta, beta = _parameters(model), eta * (N - 1) / (4 * N)
    with autograd(inputs.device), explained("torch cannot differentiate the losses"):
        a = _mean_gradient(model, loss, inputs[: N // 2], targets[: N // 2])
        b = _mean_gradient(model, loss, inputs[N // 2 :], targets[N // 2 :])
        product = a @ (a - b).detach()
        gradient = torch.zeros_like(a)
        if product.requires_grad:
            gradient = _flat(torch.autograd.grad(product, theta, materialize_grads=True))
    return _WithGradient.apply(beta * N / 2 * product.detach(), 2 * beta * N / 2 * gradient, *theta)


class _WithGradient(torch.autograd.Function):
    """A scalar whose gradient by the parameters, a flat vector, is known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor | None, *theta: Tensor) -> Tensor:
        ctx.gradient, ctx.shapes = gradient, [p.shape for p in theta]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        pieces = (scale * ctx.gradient).split([shape.numel() for shape in ctx.shapes])
        return None, None, *(piece.view(shape) for piece, shape in zip(pieces, ctx.shapes, strict=True))


def _even(inputs: Tensor, targets: Tensor) -> int:
    """The number of rows, which is even."""
    for name, value in (("inputs", inputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}: expected a torch.Tensor with one row an example")
        if value.ndim == 0 or len(value) < 2 or len(value) % 2 or len(value) != len(inputs):
            raise ValueError(f"{name} has shape {tuple(value.shape)}: expected an even number of rows, at least 2, "
                             "one an example")  # fmt: skip
    return len(inputs)


def _parameters(model: nn.Module) -> list[Tensor]:
    return [theta for theta in model.parameters() if theta.requires_grad]


def _mean_gradient(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    mean = loss(model(x.clone()), y).mean()
    return _flat(torch.autograd.grad(mean, _parameters(model), create_graph=True, materialize_grads=True))


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
