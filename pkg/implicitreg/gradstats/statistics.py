"""The statistics of per-example gradients of a model; `implicitreg.gradstats` says what they have in common."""

from __future__ import annotations

from typing import Any, Literal

from implicitreg.gradstats._calls import Unfit
from implicitreg.gradstats._copy import copied
from implicitreg.gradstats._ghost import Ghost
from implicitreg.gradstats._rows import Loop, Vectorised
from implicitreg.gradstats._sample import Loss, Sample, check_finite, entered, size_of_chunks
from implicitreg.gradstats.results import CurvatureMoments, GradientMoments
from torch import Tensor, nn

__all__ = ["curvature", "grad_trace", "gram", "moments", "per_example"]

Verify = bool | Literal["full"]


def moments(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int | None = None,
    verify: Verify = True,
) -> GradientMoments:
    r"""Mean gradient, and unbiased estimates of the squared norm of its expectation and of its variance.

    .. math::

        \bar g = \frac1n \sum_i g_i, \qquad
        \mathrm{tr}\,S = \frac1{n-1} \sum_i |g_i - \bar g|^2, \qquad
        |\bar g|^2 - \frac{\mathrm{tr}\,S}n,

    unbiased for :math:`G`, :math:`\mathrm{tr}\,\Sigma` and :math:`|G|^2`, where :math:`G` and :math:`\Sigma` are the
    mean and the covariance of one example's gradient in the population.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64, on one device.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (n,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (n, ...)
        On the model's device, in its dtype or integers.
    chunk_size : int, optional
        Examples in memory at a time; by default 1000, 100 for images, fewer where activations or rows are large.
    verify : bool or "full"
        How many examples are computed twice: at most 64, all, or one; see `implicitreg.gradstats`.

    Returns
    -------
    GradientMoments
        ``mean`` (p,), ``sq_norm`` (), ``trace`` (), ``n``.

    Raises
    ------
    ValueError
        If there are fewer than two examples; the losses are not (n,), not finite, not those of the examples in other
        company, or depend on chance; a gradient is not finite or has no rule in torch; dtypes or devices differ; a
        parameter has a hook.
    TypeError
        If an argument is not of these types.

    Notes
    -----
    For a linear layer with inputs :math:`a_i` and derivatives :math:`b_i` by its outputs, :math:`|g_i|^2 = |b_i|^2
    (|a_i|^2 + 1)` and :math:`\sum g_i = b^T a`, hence one forward and one backward pass. Where :math:`|\bar g|^2`
    exceeds :math:`\mathrm{tr}\,S` a hundredfold, the difference of the two sums is formed again in float64; in
    float64 its relative error is about :math:`10^{-16} |\bar g|^2 / \mathrm{tr}\,S`.

    References
    ----------
    Goodfellow, Efficient Per-Example Gradient Computations, arXiv:1510.01799 (2015).
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (9), for what the trace is good for.

    Examples
    --------
    Gradients that are the inputs, (1, 0) and (3, 0): mean (2, 0), variance 2, and 4 - 2/2.

    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> x = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    >>> outputs = lambda outputs, _: outputs[:, 0]
    >>> m = moments(model, outputs, x, x)
    >>> m.mean.tolist(), m.trace.item(), m.sq_norm.item()
    ([2.0, 0.0], 2.0, 3.0)
    """
    size = size_of_chunks(chunk_size)
    with entered(model, loss, inputs, targets, verify=verify) as sample:
        mean, square, centred = _computed("moments", sample, size, verify)
    n, trace = sample.n, centred.clamp(min=0) / (sample.n - 1)
    return GradientMoments(*(value.to(sample.dtype) for value in (mean, square - trace / n, trace)), n)


def grad_trace(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int | None = None,
    verify: Verify = True,
) -> Tensor:
    r"""Gradient with respect to the parameters of the trace of the sample covariance of the gradients.

    .. math:: \partial\, \mathrm{tr}\,S = \frac2{n-1} \sum_i h_i\, (g_i - \bar g),

    exact, and unbiased for :math:`\partial\, \mathrm{tr}\,\Sigma`; :math:`h_i` is the Hessian of example i.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64, on one device.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (n,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (n, ...)
        On the model's device, in its dtype or integers.
    chunk_size : int, optional
        Examples in memory at a time; by default 1000, 100 for images, fewer where activations or rows are large.
    verify : bool or "full"
        How many examples are computed twice: at most 64, all, or one; see `implicitreg.gradstats`.

    Returns
    -------
    Tensor (p,)

    Raises
    ------
    ValueError
        If there are fewer than two examples; the losses are not (n,), not finite, not those of the examples in other
        company, or depend on chance; a gradient is not finite or has no rule in torch; dtypes or devices differ; a
        parameter has a hook;
        the model uses weight_norm, which torch 2.13 differentiates twice wrongly.
    TypeError
        If an argument is not of these types.

    Notes
    -----
    One backward pass through :math:`\sum_i |g_i|^2 - 2 g_i \cdot \bar g` with :math:`\bar g` held fixed: about the
    time of three ordinary passes for linear layers, five for convolutions. The derivatives of this sum by the
    :math:`a_i` and :math:`b_i` of every layer are written down, and only the rest is left to autograd.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (13).

    Examples
    --------
    Losses w² x²/2 with x = 1 and x = 3: gradients w and 9 w, tr S = 32 w², whose derivative at w = 1 is 64.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.ones_(model.weight)
    >>> x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> grad_trace(model, lambda outputs, _: outputs[:, 0] ** 2 / 2, x, x).item()
    64.0
    """
    size = size_of_chunks(chunk_size)
    with entered(model, loss, inputs, targets, verify=verify) as sample:
        pulled = _computed("pull", sample, size, verify)
    check_finite("the gradient of tr S, entry", pulled)
    return 2 / (sample.n - 1) * pulled.detach()


def gram(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int | None = None,
    verify: Verify = True,
) -> Tensor:
    r"""All inner products of per-example gradients.

    .. math:: K_{ij} = g_i \cdot g_j.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64, on one device.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (n,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (n, ...)
        On the model's device, in its dtype or integers.
    chunk_size : int, optional
        Examples in memory at a time; by default 1000, 100 for images, fewer where activations or rows are large.
    verify : bool or "full"
        How many examples are computed twice: at most 64, all, or one; see `implicitreg.gradstats`.

    Returns
    -------
    Tensor (n, n)
        Symmetric up to rounding.

    Raises
    ------
    ValueError
        If there is no example; the losses are not (n,), not finite, not those of the examples in other
        company, or depend on chance; a gradient is not finite or has no rule in torch; dtypes or devices differ; a
        parameter has a hook.
    TypeError
        If an argument is not of these types.

    Notes
    -----
    For linear layers :math:`K = \sum (a a^T + 1) \circ (b b^T)`, in memory for n² numbers and for the inputs and
    outputs of every layer; for sequences and convolutions the rows of that layer's gradients are held, (n, p) in all
    for models that are neither.

    Examples
    --------
    Gradients that are the inputs, (1, 0) and (3, 0).

    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> x = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    >>> outputs = lambda outputs, _: outputs[:, 0]
    >>> gram(model, outputs, x, x).tolist()
    [[1.0, 3.0], [3.0, 9.0]]
    """
    size = size_of_chunks(chunk_size)
    with entered(model, loss, inputs, targets, least=1, verify=verify) as sample:
        K = _computed("gram", sample, size, verify).detach()
    check_finite("the row of the Gram matrix", K)
    return K


def per_example(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, verify: Verify = True) -> Tensor:
    r"""Every gradient, for who needs the rows.

    .. math:: g_i = \partial\, \ell_i(\theta).

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64, on one device.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (n,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (n, ...)
        On the model's device, in its dtype or integers.
    verify : bool or "full"
        How many examples are computed twice: at most 64, all, or one; see `implicitreg.gradstats`.

    Returns
    -------
    Tensor (n, p)

    Raises
    ------
    ValueError
        If there is no example; the losses are not (n,), not finite, not those of the examples in other
        company, or depend on chance; a gradient is not finite or has no rule in torch; dtypes or devices differ; a
        parameter has a hook.
    TypeError
        If an argument is not of these types.

    Examples
    --------
    Gradients that are the inputs.

    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> x = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    >>> outputs = lambda outputs, _: outputs[:, 0]
    >>> per_example(model, outputs, x, x).tolist()
    [[1.0, 0.0], [3.0, 0.0]]
    """
    with entered(model, loss, inputs, targets, least=1, verify=verify) as sample:
        g = _computed("per_example", sample, None, verify)
    check_finite("the gradient", g)
    return g


def curvature(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, verify: Verify = True
) -> CurvatureMoments:
    r"""Unbiased estimates of three moments that join gradients and Hessians.

    With :math:`c_i = g_i - \bar g`, and :math:`S` with 1/(n-1),

    .. math::

        \hat\kappa_3 &= \frac{n}{(n-1)(n-2)} \sum_i c_i^T (h_i - \bar h)\, c_i, \\
        \mathrm{tr}(H\Sigma) &\approx \mathrm{tr}(\bar h S) - \frac{\hat\kappa_3}n, \\
        G \cdot \partial\,\mathrm{tr}\,\Sigma &\approx \bar g \cdot \partial\,\mathrm{tr}\,S - \frac{2\hat\kappa_3}n,

    the first for :math:`\kappa_3 = \langle (g - G)^T (h - H) (g - G) \rangle`. Without the corrections, the other two
    are too large by :math:`\kappa_3/n` and :math:`2\kappa_3/n` on average.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64, on one device.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (n,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (n, ...)
        On the model's device, in its dtype or integers.
    verify : bool or "full"
        How many examples are computed twice: at most 64, all, or one; see `implicitreg.gradstats`.

    Returns
    -------
    CurvatureMoments
        ``kappa3``, ``trace_H_Sigma``, ``G_grad_trace``, each ().

    Raises
    ------
    ValueError
        If there are fewer than three examples; the losses are not (n,), not finite, not those of the examples in other
        company, or depend on chance; a gradient is not finite or has no rule in torch; dtypes or devices differ; a
        parameter has a hook;
        the model uses weight_norm, which torch 2.13 differentiates twice wrongly.
    TypeError
        If an argument is not of these types.

    Notes
    -----
    The rows (n, p) are held, and min(n, p) products with the Hessian of the mean loss are taken, each two backward
    passes through all examples: small networks and a few hundred examples.

    References
    ----------
    Fisher, Moments and product moments of sampling distributions, Proceedings of the London Mathematical Society 30
    (1930), for the factor n/((n-1)(n-2)).

    Examples
    --------
    Losses w² x/2 with x = 1, 2, 3 at w = 1: gradients and Hessians are x, whose third cumulant, by symmetry, is 0.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.ones_(model.weight)
    >>> ones, x = torch.ones(3, 1, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    >>> c = curvature(model, lambda outputs, x: outputs[:, 0] ** 2 * x / 2, ones, x)
    >>> [round(abs(value.item()), 12) for value in (c.kappa3, c.trace_H_Sigma, c.G_grad_trace)]
    [0.0, 2.0, 4.0]
    """
    with entered(model, loss, inputs, targets, least=3, verify=verify) as sample:
        mean, pulled, along, trace_hS = _computed("curvature", sample, None, verify)
    n = sample.n
    kappa3 = n / ((n - 1) * (n - 2)) * (along - (n - 1) * trace_hS)
    G_grad_trace = 2 / (n - 1) * mean @ pulled - 2 / n * kappa3
    return CurvatureMoments(kappa3, trace_hS - kappa3 / n, G_grad_trace)


def _computed(statistic: str, sample: Sample, size: int | None, verify: Verify) -> Any:
    """The statistic by the first method that fits, of a sample whose examples do not interact."""
    copy = copied(sample, verify)
    if hasattr(Ghost, statistic):
        try:
            return getattr(Ghost(copy), statistic)(size)
        except Unfit:
            pass
    copy.check_together()
    try:
        return getattr(Vectorised(copy), statistic)(size)
    except Unfit:
        return getattr(Loop(copy), statistic)(size)
