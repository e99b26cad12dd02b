"""Unbiased estimators from the Gram matrix of per-example gradients, and the cheapest one from two mini-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from implicitreg import _units, _validate
from implicitreg._brief import brief
from torch import Tensor

__all__ = ["GramMoments", "from_gram", "two_halves"]


@dataclass(frozen=True, eq=False)
class GramMoments:
    r"""Moments of the distribution of gradients, with mean G and covariance :math:`\Sigma`; r_eff apart, all unbiased.

    Attributes
    ----------
    sq_norm, trace, trace_Sigma2, G_Sigma_G, G4 : Tensor ()
        For :math:`|G|^2`, :math:`\mathrm{tr}\,\Sigma`, :math:`\mathrm{tr}\,\Sigma^2`, :math:`G^T\Sigma G` and
        :math:`|G|^4`. Any of them but ``trace`` can be negative.
    r_eff : Tensor ()
        The plug-in ratio :math:`(\mathrm{tr}\,\Sigma)^2 / \mathrm{tr}\,\Sigma^2`, an effective number of directions.
        A ratio of unbiased estimates is biased; it is NaN where the estimate of :math:`\mathrm{tr}\,\Sigma^2` is not
        positive.
    """

    sq_norm: Tensor
    trace: Tensor
    trace_Sigma2: Tensor
    G_Sigma_G: Tensor
    G4: Tensor
    r_eff: Tensor
    __repr__ = brief


def from_gram(K: Any) -> GramMoments:
    r"""Unbiased estimators from the products :math:`K_{ij} = g_i \cdot g_j` of n independent gradients.

    With the sums over pairs of different examples :math:`s_1 = \sum_{i\ne j} K_{ij}`,
    :math:`s_2 = \sum_{i\ne j} K_{ij}^2`, :math:`\rho_2 = \sum_i (\sum_{j\ne i} K_{ij})^2`, and
    :math:`(n)_k = n(n-1)\cdots(n-k+1)`,

    .. math::

        |G|^2 \approx \frac{s_1}{(n)_2}, \qquad
        |G|^4 \approx q_4 = \frac{s_1^2 - 4\rho_2 + 2 s_2}{(n)_4}, \qquad
        G^T \Sigma G \approx \frac{\rho_2 - s_2}{(n)_3} - q_4, \qquad
        \mathrm{tr}\,\Sigma^2 \approx \frac{s_2}{(n)_2} - 2\,\frac{\rho_2 - s_2}{(n)_3} + q_4,

    and :math:`\mathrm{tr}\,\Sigma \approx \mathrm{tr}\,S` with 1/(n-1).

    Parameters
    ----------
    K : Tensor or array_like (n, n)
        Symmetric and positive semidefinite up to rounding, n >= 4.

    Returns
    -------
    GramMoments
        In the dtype and on the device of a tensor ``K``, otherwise float64; computed in float64. ``r_eff`` may be NaN.

    Raises
    ------
    ValueError
        If K is not a finite symmetric positive semidefinite (n, n) matrix with n >= 4, or a moment is beyond the range
        of the dtype.
    TypeError
        If K is not numeric.

    Notes
    -----
    The last two of these do not change when a constant vector is added to all gradients, and are computed from
    :math:`K` centred, so that a large mean costs no digits. All are computed in units of a power of two near the
    largest entry of K, so that r_eff does not depend on the scale. An eigenvalue of K down to :math:`-10\,n\,\epsilon`
    times its largest entry counts as zero, with the :math:`\epsilon` of its dtype.

    References
    ----------
    Himeno and Yamada, Estimations for some functions of covariance matrix in high dimension under non-normality and its
    applications, Journal of Multivariate Analysis 130 (2014), for tr Sigma^2.

    Examples
    --------
    Four gradients, one along each axis: orthogonal, so that every product of different ones vanishes.

    >>> moments = from_gram(torch.eye(4))
    >>> moments.sq_norm.item(), moments.trace.item()
    (0.0, 1.0)
    """
    K, dtype = _gram_matrix(K)
    n, unit = len(K), _units.unit(K)
    K = _units.over(K, unit)
    off = K - torch.diag(K.diagonal())
    s1, s2, rho2 = off.sum(), (off**2).sum(), (off.sum(1) ** 2).sum()
    q3 = (rho2 - s2) / (n * (n - 1) * (n - 2))
    q4 = (s1**2 - 4 * rho2 + 2 * s2) / (n * (n - 1) * (n - 2) * (n - 3))
    trace, trace_Sigma2 = _centred(K)
    r_eff = torch.where(trace_Sigma2 > 0, trace**2 / trace_Sigma2, torch.nan)
    linear, squares = (s1 / (n * (n - 1)), trace), (trace_Sigma2, q3 - q4, q4)
    values = [(v * unit).to(dtype) for v in linear] + [(v * unit * unit).to(dtype) for v in squares]
    if not torch.stack(values).isfinite().all():
        raise ValueError(f"K has entries of size {unit:.0e}: expected some whose moments are in the range of {dtype}")
    return GramMoments(*values, r_eff.to(dtype))


def two_halves(g_B: Tensor, g_C: Tensor, n: int) -> Tensor:
    r"""Trace of the covariance from the mean gradients of two halves of n examples.

    .. math:: \mathrm{tr}\,\Sigma \approx \frac n4\, |g^B - g^C|^2,

    unbiased, where B and C are n/2 examples each, independent of each other. Two backward passes, no per-example
    gradient; the relative variance is about 2/r_eff.

    Parameters
    ----------
    g_B, g_C : Tensor (p,)
        Gradients of the mean loss over each half.
    n : int
        Number of examples in both halves together; even.

    Returns
    -------
    Tensor ()
        Of the gradients' dtype; in less than 32 bits it is computed in float32 and rounded.

    Raises
    ------
    ValueError
        If the gradients are not finite vectors of one shape, dtype and device, n is odd or less than 2, or the trace is
        beyond the range of the dtype.
    TypeError
        If the gradients are no tensors of floats, or n is no integer.

    Examples
    --------
    >>> two_halves(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), n=2).item()
    1.0
    """
    for name, g in (("g_B", g_B), ("g_C", g_C)):
        if not isinstance(g, Tensor):
            raise TypeError(f"{name} is a {type(g).__name__}: expected a torch.Tensor")
        if not g.is_floating_point():
            raise TypeError(f"{name} has dtype {g.dtype}: expected real floating-point numbers")
        if g.layout != torch.strided or g.is_meta or (g.dtype, g.device) != (g_B.dtype, g_B.device):
            raise ValueError(f"{name} has dtype {g.dtype}, layout {g.layout}, on {g.device}: expected dense numbers, "
                             "of the other's dtype and device")  # fmt: skip
        if g.ndim != 1 or g.shape != g_B.shape or g.numel() == 0 or not torch.isfinite(g).all():
            raise ValueError(f"{name} has shape {tuple(g.shape)}: expected a finite vector as long as the other's")
    if _validate.integer("n", n, low=2) % 2:
        raise ValueError(f"n = {n}: expected an even number, half of it in each batch")
    unit, wide = _units.unit(g_B, g_C), torch.promote_types(g_B.dtype, torch.float32)
    half = [_units.over(g.to(wide), unit) for g in (g_B, g_C)]
    trace = (n / 4 * ((half[0] - half[1]) ** 2).sum() * unit * unit).to(g_B.dtype)
    if not torch.isfinite(trace):
        raise ValueError(f"g_B and g_C have entries of size {unit:.0e}: expected a trace in the range of {g_B.dtype}")
    return trace


def _centred(K: Tensor) -> tuple[Tensor, Tensor]:
    """tr S, and Himeno and Yamada's estimator of tr Sigma^2, from the products of the centred gradients."""
    n = len(K)
    K = K - K.mean(0) - K.mean(1, keepdim=True) + K.mean()
    trace, Q = K.trace() / (n - 1), (K.diagonal() ** 2).sum() / (n - 1)
    trace_S2 = (K**2).sum() / (n - 1) ** 2
    factor = (n - 1) / (n * (n - 2) * (n - 3))
    return trace.clamp(min=0), factor * ((n - 1) * (n - 2) * trace_S2 + trace**2 - n * Q)


def _gram_matrix(K: Any) -> tuple[Tensor, torch.dtype]:
    if not isinstance(K, Tensor):
        K = torch.from_numpy(_validate.matrix("K", K))
    if K.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"K has dtype {K.dtype}: expected torch.float32 or torch.float64")
    if K.layout != torch.strided or K.is_meta:
        raise ValueError(f"K has layout {K.layout} on {K.device}: expected a dense matrix")
    if K.ndim != 2 or len(K) != K.shape[1] or len(K) < 4:
        raise ValueError(f"K has shape {tuple(K.shape)}: expected (n, n) with n >= 4")
    if not torch.isfinite(K).all():
        raise ValueError("K has entries that are not finite: expected finite numbers")
    K = K.detach()
    asymmetry = float((K - K.T).abs().max())
    if asymmetry > torch.finfo(K.dtype).eps ** 0.5 * float(K.abs().max()):
        raise ValueError(f"K differs from its transpose by {asymmetry:.1e}: expected a symmetric matrix")
    _check_semidefinite(K.detach().double(), 10 * len(K) * torch.finfo(K.dtype).eps)
    return K.detach().double(), K.dtype


def _check_semidefinite(K: Tensor, rounding: float) -> None:
    """No eigenvalue below minus the rounding, relative to the largest entry."""
    scale = K.abs().max()
    if scale == 0 or torch.linalg.cholesky_ex(K / scale + rounding * torch.eye(len(K)).to(K)).info == 0:
        return
    smallest = float(torch.linalg.eigvalsh(K)[0])
    raise ValueError(f"K has the eigenvalue {smallest:.3g}: expected a Gram matrix, which is positive semidefinite")
