r"""Predictions for networks: every scalar that the expansion needs, without an array of derivatives.

For a network with p parameters the Hessian has p² entries and the third derivative p³. The series of the test loss and
of the gap need only contractions of them with gradients, and these are directional derivatives: nested forward
derivatives with at most one reverse pass around them, at the cost of a few evaluations of the loss each. They are tried
on two examples against differences of gradients: where torch has no forward rule, or a false one, reverse passes serve,
and where those are false too, an error says so. Layer normalisation, whose third derivatives are wrong in torch 2.13,
is written out in elementary operations, and attention takes its plain form.

Float64 is recommended: at the third order differences of large numbers are taken. Losses should have three continuous
derivatives; a kink in the graph of the loss (ReLU, max-pooling) is warned of. The model is left as it was.
"""

from __future__ import annotations

import numpy as np
from implicitreg import _validate
from implicitreg._torch import torch
from implicitreg.diagrams._directional import Batch, Loss, checked, finite
from implicitreg.diagrams.predictions import (
    NAMES,
    Coefficients,
    Scalars,
    gap_coefficients,
    test_loss_coefficients,
)
from torch import Tensor, nn

__all__ = [
    "NAMES",
    "Coefficients",
    "Scalars",
    "estimated_scalars",
    "exact_scalars",
    "gap_coefficients",
    "test_loss_coefficients",
    "third_contraction",
]


def exact_scalars(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, chunk_size: int | None = None
) -> Scalars:
    r"""The scalars when the n examples *are* the population, each with probability 1/n: full sums, no sampling.

    .. math:: G = \frac1n\sum_xg_x, \quad \langle gHg\rangle = \frac1n\sum_x g_x\cdot Hg_x, \quad
              J\langle ggg\rangle = \frac1n\sum_x J[g_x, g_x, g_x], \quad\dots

    with H and J the derivatives of the mean loss over all n.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype on one device; theta is those with ``requires_grad``.
    loss : callable
        ``loss(outputs, targets)`` gives the losses (n,), say ``partial(cross_entropy, reduction="none")``.
    inputs, targets : Tensor (n, ...)
        On the model's device, in its dtype or integers.
    chunk_size : int, optional
        So many directions on so many examples are in memory at a time; by default 64.

    Returns
    -------
    Scalars
        Without standard errors.

    Raises
    ------
    ValueError
        If the losses are not (n,), not finite, or not those of the examples alone (dropout and batch normalisation in
        training mode are refused), or a derivative is not finite, has no rule, or is wrong in torch.
    TypeError
        If an argument is not of these types.

    Warns
    -----
    UserWarning
        If the losses have kinks.

    Notes
    -----
    Time grows like n², as every gradient is a direction for the mean loss; for many examples see
    `estimated_scalars`.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Theorem 1: the values of its diagrams with up to three edges.

    Examples
    --------
    Losses w²/2 and 3 w²/2 at w = 1: gradients 1 and 3, Hessians the same, so that ⟨gHg⟩ = 2 · 5:

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.ones_(model.weight)
    >>> ones, h = torch.ones(2, 1, dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> s = exact_scalars(model, lambda w, h: h * w[:, 0] ** 2 / 2, ones, h)
    >>> s.GG, s.gg, s.gHg, s.gHxg, s.Jggg
    (4.0, 5.0, 10.0, 14.0, 0.0)
    """
    with torch.inference_mode(False), torch.enable_grad():
        data = checked(model, loss, inputs, targets, chunk_size)
        G = data.gradient()
        HG = data.product(G)
        ofmean = {"loss": data.value(), "GG": G @ G, "GHG": G @ HG, "GHHG": HG @ HG, "JGGG": data.third(G, G, G)}
        sums = sum(_sums(part, data, G) * (part.n / data.n) for part in data.parts())
    values = {name: float(value) for name, value in ofmean.items()} | dict(zip(OF_EXAMPLES, sums.tolist(), strict=True))
    return Scalars(**values)


OF_EXAMPLES = "gHg", "JggG", "gHHg", "GHxHg", "Jggg", "gg", "GHxg", "gHxg"


def _sums(part: Batch, data: Batch, G: Tensor) -> Tensor:
    """The means over x in one chunk, in the order of OF_EXAMPLES; H and J belong to all the data."""
    g = part.gradients()
    Hg, Jgg = data.along(g)
    return _means(part, g, Hg, Hg, Jgg, G, G, G)


def _means(
    x: Batch, g: Tensor, Hg: Tensor, Hg_other: Tensor, Jgg: Tensor, G_J: Tensor, G_x: Tensor, G_xH: Tensor
) -> Tensor:
    """Means over the examples x; the last three are the G of JggG, of GHxg and of GHxHg."""
    H_x = [x.own(a, b) for a, b in ((G_xH.expand_as(g), Hg), (G_x.expand_as(g), g), (g, g))]
    values = ((g * Hg).sum(1), Jgg @ G_J, (Hg * Hg_other).sum(1), H_x[0], (Jgg * g).sum(1), (g * g).sum(1), *H_x[1:])
    return torch.stack([value.mean() for value in values])


def estimated_scalars(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, batch: int, chunk_size: int | None = None
) -> Scalars:
    r"""Unbiased estimates of the scalars when the examples are independent draws from a population.

    The sample is cut, in its order, into R = n // (4 batch) groups of four batches A, B, C, D, and each group gives one
    value of each scalar; a remainder is left out. Factors that are means over the population come from different
    batches, and what belongs to one example x runs over A:

    .. math::

        GG &\approx g_A\cdot g_B, \quad GHG \approx g_A\cdot H_Bg_C, \quad GHHG \approx H_Ag_B\cdot H_Cg_D, \quad
        JGGG \approx J_A[g_B, g_C, g_D], \\
        \langle gHg\rangle &\approx \frac1b\sum_{x\in A}g_x\cdot H_Bg_x, \quad
        \langle gHHg\rangle \approx \frac1b\sum_{x\in A}H_Bg_x\cdot H_Cg_x, \quad
        J\langle gg\rangle G \approx \frac1b\sum_{x\in A}J_B[g_x, g_x, g_C], \\
        J\langle ggg\rangle &\approx \frac1b\sum_{x\in A}J_B[g_x, g_x, g_x], \quad
        G\langle H_xHg\rangle \approx \frac1b\sum_{x\in A}H_xg_D\cdot H_Bg_x, \quad
        G\langle H_xg\rangle \approx \frac1b\sum_{x\in A}g_B\cdot H_xg_x .

    Parameters
    ----------
    model, loss, inputs, targets, chunk_size
        As in `exact_scalars`; the rows are independent draws (draw with replacement from a finite population).
    batch : int
        Examples in each of the four batches, at least 1; n is at least 8 batch.

    Returns
    -------
    Scalars
        With ``draws`` (R, 13) and standard errors over the R independent groups.

    Raises
    ------
    ValueError
        As in `exact_scalars`, or if there are fewer than two groups.
    TypeError
        If an argument is not of these types.

    Warns
    -----
    UserWarning
        If the losses have kinks.

    Notes
    -----
    A product of two means over one batch is biased: :math:`E\,g_A\cdot H_Bg_A = \frac1b\langle gHg\rangle +
    (1-\frac1b)\,GHG`. The correction b·(same batch) − (b − 1)·(independent) is unbiased whichever independent version
    is taken; with the U-statistic of A itself, :math:`\sum_{x\neq x'}g_x\cdot H_Bg_{x'}/(b(b-1))`, it equals the mean
    over x above, the form with the smaller variance. Rows of a group cost 4 batch + 2 batch² evaluations or so, and
    the estimates of :math:`J\langle ggg\rangle` and :math:`\langle gH_xg\rangle` vary most.

    References
    ----------
    Tenka, SGD at Small Learning Rates, appendix on estimating diagrams.

    Examples
    --------
    Losses w²/2 and 3 w²/2 at w = 1 in turn: every batch of two is the population.

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.ones_(model.weight)
    >>> ones, h = torch.ones(16, 1, dtype=torch.float64), torch.tensor([1.0, 3.0] * 8, dtype=torch.float64)
    >>> s = estimated_scalars(model, lambda w, h: h * w[:, 0] ** 2 / 2, ones, h, batch=2)
    >>> s.GG, s.gHg, s.se["gHg"], s.draws.shape
    (4.0, 10.0, 0.0, (2, 13))
    """
    b = _validate.integer("batch", batch, low=1)
    with torch.inference_mode(False), torch.enable_grad():
        data = checked(model, loss, inputs, targets, chunk_size)
        R = data.n // (4 * b)
        if R < 2:
            raise ValueError(f"batch = {b} with {data.n} examples makes {R} groups of 4 batches: expected at least 2, "
                             f"that is {8 * b} examples")  # fmt: skip
        draws = [_repetition(*(data.part((4 * r + k) * b, (4 * r + k + 1) * b) for k in range(4))) for r in range(R)]
    return Scalars.from_draws(np.array([[values[name] for name in NAMES] for values in draws]))


def _repetition(A: Batch, B: Batch, C: Batch, D: Batch) -> dict[str, float]:
    """One unbiased value of every scalar."""
    g = A.gradients()
    g_A, g_B, g_C, g_D = g.mean(0), B.gradient(), C.gradient(), D.gradient()
    finite("the gradient", torch.stack([g_B, g_C, g_D]))
    parts, start = torch.zeros(len(OF_EXAMPLES), dtype=g.dtype, device=g.device), 0
    for part in A.parts():
        rows = g[start : start + part.n]
        Hg, Jgg = B.along(rows)
        parts += part.n / A.n * _means(part, rows, Hg, C.products(rows), Jgg, g_C, g_B, g_D)
        start += part.n
    means = {
        "loss": (A.value() + B.value() + C.value() + D.value()) / 4,
        "GG": g_A @ g_B,
        "GHG": g_A @ B.product(g_C),
        "GHHG": A.product(g_B) @ C.product(g_D),
        "JGGG": A.third(g_B, g_C, g_D),
    }
    values = {name: float(value) for name, value in means.items()}
    return values | dict(zip(OF_EXAMPLES, parts.tolist(), strict=True))


def third_contraction(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, directions: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    r"""The third derivative of the mean loss, contracted with a covariance that is given by its factors.

    .. math:: J[S] = \frac1k\sum_{i\le k}J[v_i, v_i, \cdot] = \partial_\theta\,\frac1k\sum_i
              \frac{d^2}{d\epsilon^2}L(\theta + \epsilon v_i), \qquad S = \frac1k\sum_iv_iv_i^\top .

    With centred gradients as directions this is the force by which noise pushes towards flatter places.

    Parameters
    ----------
    model, loss, inputs, targets
        As in `exact_scalars`; L is the mean loss over the n examples.
    directions : Tensor (k, p)
        In the model's dtype.
    chunk_size : int, optional
        Examples in memory at a time, each with all k directions; by default 64.

    Returns
    -------
    Tensor (p,)

    Raises
    ------
    ValueError
        As in `exact_scalars`, or if the directions have another shape or are not finite.
    TypeError
        If an argument is not of these types.

    Warns
    -----
    UserWarning
        If the losses have kinks.

    Notes
    -----
    Two nested forward derivatives and one reverse pass for all directions together: the time does not grow with p where
    the layers are small, while the full tensor takes p³ numbers.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 1, for the use of :math:`J_{\mu\nu\lambda}C^{\mu\nu}`.

    Examples
    --------
    The loss w³ has the third derivative 6:

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> one, v = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> third_contraction(model, lambda w, _: w[:, 0] ** 3, one, one, v).item() == 6 * (1 + 4) / 2
    True
    """
    with torch.inference_mode(False), torch.enable_grad():
        data = checked(model, loss, inputs, targets, chunk_size)
        if not isinstance(directions, Tensor):
            raise TypeError(f"directions is a {type(directions).__name__}: expected a torch.Tensor")
        _validate.tensor("directions", directions)
        p = data.theta.numel()
        if directions.ndim != 2 or directions.shape[1] != p or len(directions) == 0:
            raise ValueError(f"directions has shape {tuple(directions.shape)}: expected (k, {p}), k at least 1")
        if directions.dtype != data.theta.dtype or not torch.isfinite(directions).all():
            raise ValueError(f"directions has dtype {directions.dtype} or entries that are not finite: expected finite "
                             f"numbers of {data.theta.dtype}")  # fmt: skip
        return data.contracted(directions.detach())
