"""What the statistics return: frozen dataclasses of detached tensors."""

from __future__ import annotations

from dataclasses import dataclass

from implicitreg._brief import brief
from torch import Tensor

__all__ = ["CurvatureMoments", "GradientMoments"]


@dataclass(frozen=True, eq=False)
class GradientMoments:
    r"""First and second moments of n per-example gradients :math:`g_i`.

    Attributes
    ----------
    mean : Tensor (p,)
        :math:`\bar g`, the gradient of the mean loss.
    sq_norm : Tensor ()
        :math:`|\bar g|^2 - \mathrm{tr}\,S/n`, unbiased for :math:`|G|^2`; it can be negative.
    trace : Tensor ()
        :math:`\mathrm{tr}\,S = \frac1{n-1}\sum_i |g_i - \bar g|^2`, unbiased for :math:`\mathrm{tr}\,\Sigma`.
    n : int
        Number of examples.
    """

    mean: Tensor
    sq_norm: Tensor
    trace: Tensor
    n: int
    __repr__ = brief


@dataclass(frozen=True, eq=False)
class CurvatureMoments:
    r"""What the Hessians add, each unbiased: :math:`\kappa_3`, :math:`\mathrm{tr}(H\Sigma)`, :math:`G\cdot\partial\mathrm{tr}\Sigma`.

    Attributes
    ----------
    kappa3 : Tensor ()
        For :math:`\langle (g - G)^T (h - H) (g - G) \rangle`.
    trace_H_Sigma : Tensor ()
        For :math:`\mathrm{tr}(H \Sigma)`.
    G_grad_trace : Tensor ()
        For :math:`G \cdot \partial\, \mathrm{tr}\,\Sigma`.
    """  # noqa: E501

    kappa3: Tensor
    trace_H_Sigma: Tensor
    G_grad_trace: Tensor
    __repr__ = brief
