r"""From a few scalars of a loss to the Taylor coefficients, in the step size, of the test loss and of the gap.

Angle brackets are means over the population, g and :math:`H_x` are gradient and Hessian of one example's loss,
:math:`G = \langle g\rangle`, :math:`H = \langle H_x\rangle`, J the third derivative of the mean loss, all at the start.
Batch losses are means, a training set is N independent draws, and the step size eta is a number: no scalar here holds
a power of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.ensembles import estimate

__all__ = ["NAMES", "Coefficients", "Scalars", "gap_coefficients", "test_loss_coefficients"]


@dataclass(frozen=True, eq=False)
class Scalars:
    r"""Thirteen contractions of derivatives at the start; raw moments, not cumulants.

    Attributes
    ----------
    loss : float
        The population loss L.
    GG, GHG, GHHG, JGGG : float
        :math:`|G|^2`, :math:`G\cdot HG`, :math:`|HG|^2`, :math:`J[G, G, G]`.
    gg, gHg, gHHg : float
        :math:`\langle|g|^2\rangle`, :math:`\langle g\cdot Hg\rangle`, :math:`\langle|Hg|^2\rangle`.
    JggG, Jggg : float
        :math:`\langle J[g, g, G]\rangle`, :math:`\langle J[g, g, g]\rangle`.
    GHxg, gHxg, GHxHg : float
        :math:`G\cdot\langle H_xg\rangle`, :math:`\langle g\cdot H_xg\rangle`, :math:`G\cdot\langle H_xHg\rangle`.
    draws : ndarray (R, 13), optional
        For estimates: the values of every repetition, columns in the order of ``NAMES``; the attributes are its means.

    Examples
    --------
    Estimates from two repetitions, of which only the loss varies:

    >>> s = Scalars.from_draws([[1.0] + [0.0] * 12, [3.0] + [0.0] * 12])
    >>> s.loss, s.se["loss"], s.se["GG"]
    (2.0, 1.0, 0.0)
    """

    loss: float
    GG: float
    GHG: float
    gHg: float
    GHHG: float
    JGGG: float
    JggG: float
    gHHg: float
    GHxHg: float
    Jggg: float
    gg: float
    GHxg: float
    gHxg: float
    draws: np.ndarray | None = None
    __repr__ = brief

    def __post_init__(self) -> None:
        for name in NAMES:
            object.__setattr__(self, name, _validate.number(name, getattr(self, name)))

    @classmethod
    @_validate.in_range
    def from_draws(cls, draws: np.ndarray) -> Scalars:
        """The means of independent repetitions (R, 13), R at least 2."""
        draws = _validate.matrix("draws", draws, columns=len(NAMES))
        draws.setflags(write=False)
        return cls(*estimate(torch.tensor(draws)).mean.tolist(), draws)

    @property
    def values(self) -> np.ndarray:
        """All thirteen, in the order of ``NAMES``."""
        return np.array([getattr(self, name) for name in NAMES])

    @property
    def se(self) -> Mapping[str, float] | None:
        """Standard errors by name; None where the scalars are exact."""
        if self.draws is None:
            return None
        return MappingProxyType(dict(zip(NAMES, estimate(torch.tensor(self.draws)).se.tolist(), strict=True)))

    @property
    def cumulants(self) -> Mapping[str, float]:
        r"""What the noise adds: contractions of the covariance C and the third cumulant S of the gradient.

        .. math::

            C &= \langle|g|^2\rangle - |G|^2, \quad CH = \langle gHg\rangle - GHG, \quad
            CHH = \langle gHHg\rangle - GHHG, \quad JCG = J\langle gg\rangle G - JGGG, \\
            \mathrm{GdC} &= \tfrac12 G\cdot\partial\operatorname{tr}C = G\langle H_xg\rangle - GHG, \quad
            \mathrm{GdCH} = \tfrac12 G_a(\partial_aC_{bc})H_{bc} = G\langle H_xHg\rangle - GHHG, \\
            SJ &= J\langle ggg\rangle - 3J\langle gg\rangle G + 2JGGG, \\
            Q &= \kappa_3(H_x, g, g) = \langle gH_xg\rangle - \langle gHg\rangle - 2G\langle H_xg\rangle + 2GHG.
        """
        return MappingProxyType({
            "C": self.gg - self.GG, "CH": self.gHg - self.GHG, "CHH": self.gHHg - self.GHHG,
            "JCG": self.JggG - self.JGGG, "GdC": self.GHxg - self.GHG, "GdCH": self.GHxHg - self.GHHG,
            "SJ": self.Jggg - 3 * self.JggG + 2 * self.JGGG,
            "Q": self.gHxg - self.gHg - 2 * self.GHxg + 2 * self.GHG,
        })  # fmt: skip


NAMES = tuple(field.name for field in fields(Scalars) if field.name != "draws")


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Taylor coefficients in eta: ``values (order + 1,)``, ``se`` of the same shape or None, ``draws (R, order + 1)``.

    Standard errors come from the repetitions themselves, so that correlated scalars are counted as such.
    """

    values: np.ndarray
    se: np.ndarray | None = None
    draws: np.ndarray | None = None
    __repr__ = brief

    @_validate.in_range
    def at(self, eta: float) -> tuple[float, float | None]:
        """The polynomial at eta and its standard error (None where the scalars are exact)."""
        powers = _validate.number("eta", eta, low=0) ** np.arange(self.values.size)
        if self.draws is None:
            return float(self.values @ powers), None
        result = estimate(torch.tensor(self.draws @ powers))
        return result.mean.item(), result.se.item()


@_validate.in_range
def test_loss_coefficients(scalars: Scalars, *, N: int, T: int, B: int = 1, order: int = 2) -> Coefficients:  # noqa: PT028
    r"""Taylor coefficients in eta of the mean test loss after T steps of SGD on N examples in batches of B.

    .. math::

        E\,L(\theta_T) = L - \eta\,T\,GG + \eta^2 \Big\{ T(T-\tfrac12)\,GHG + \frac{T^2}{2N}\,(\langle gHg\rangle - GHG)
        + \frac T2\Big(\frac TN - \frac1B\Big)(G\langle H_xg\rangle - GHG) \Big\} + O(\eta^3),

    and for T fresh examples, one a step (N = T, B = 1), where the braces are
    :math:`T(T-1)\,GHG + \frac T2\langle gHg\rangle`, the next order is

    .. math::

        -\eta^3 \Big\{ \binom T3 (4\,GHHG + 2\,JGGG) + \binom T2 \big(\tfrac32 J\langle gg\rangle G
        + \langle gHHg\rangle + G\langle H_xHg\rangle\big) + \frac T6\,J\langle ggg\rangle \Big\}.

    Parameters
    ----------
    scalars : Scalars
        At the start.
    N, T, B : int
        Training examples, steps, batch size: B divides N and T B / N is a whole number of epochs. Batch losses are
        means; in every epoch the batches partition the examples.
    order : int
        The last order, 0 to 3; 3 only for N = T and B = 1.

    Returns
    -------
    Coefficients
        ``values (order + 1,)``, with standard errors where the scalars have them.

    Raises
    ------
    ValueError
        If an integer is out of its range, the epochs are not whole, or order is 3 with N ≠ T or B ≠ 1.
    TypeError
        If ``scalars`` is no Scalars, or an integer none.

    Notes
    -----
    Fresh examples: with :math:`(\mathcal A f)(\theta) = \langle f(\theta - \eta g)\rangle`, that is
    :math:`\mathcal A = 1 - \eta\,G\cdot\partial + \frac{\eta^2}2\langle gg\rangle\!:\!\partial^2 - \dots`, the mean is
    :math:`\mathcal A^TL` at the start, and the binomials count its factors. Epochs:
    :math:`\theta_T - \theta_0 = -\eta\sum_tg_t + \eta^2\sum_{s<t}H_tg_s`, and pairs of batches share
    :math:`\sum_{s<t}|B_s\cap B_t| = \frac12(T^2B^2/N - TB)` examples.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Theorem 1 and its tables (corrected: the source's program has one half of the
    coefficient of GHG at the second order, :math:`\binom T2` for :math:`2\binom T2`).

    Examples
    --------
    One example with loss θ²/2 at θ = 1: the loss after two steps is (1 − η)⁴/2 = 1/2 − 2η + 3η² − …

    >>> s = Scalars(0.5, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1)
    >>> test_loss_coefficients(s, N=2, T=2, order=3).values.tolist()
    [0.5, -2.0, 3.0, -2.0]
    """
    N, T, B = _schedule(N, T, B)
    order = _validate.integer("order", order, low=0, high=3)
    if order == 3 and not (N == T and B == 1):
        raise ValueError(f"order = 3 with N = {N}, T = {T}, B = {B}: expected N = T and B = 1, or order at most 2")
    half = T / 2 * (T / N - 1 / B)
    pairs, triples = T * (T - 1) / 2, T * (T - 1) * (T - 2) / 6
    rows = [
        {"loss": 1},
        {"GG": -T},
        {"GHG": T * (T - 1 / 2) - T**2 / (2 * N) - half, "gHg": T**2 / (2 * N), "GHxg": half},
        {"GHHG": -4 * triples, "JGGG": -2 * triples, "JggG": -1.5 * pairs, "gHHg": -pairs, "GHxHg": -pairs,
         "Jggg": -T / 6},
    ]  # fmt: skip
    return _combined(scalars, rows[: order + 1])


test_loss_coefficients.__test__ = False  # its name begins like that of a test


@_validate.in_range
def gap_coefficients(scalars: Scalars, *, N: int, T: int, B: int = 1, order: int = 2) -> Coefficients:
    r"""Taylor coefficients in eta of the mean generalization gap, test loss minus training loss, after T steps.

    .. math::

        \eta\,\frac TN\,C - \frac{\eta^2}N \Big\{ \Big(\frac{T(T-1)}2 + T^2\Big)\,\tfrac12 G\cdot\partial C
        + \frac{T(T-1)}2\,CH + \Big(\frac{T^2}N - \frac T{2B}\Big)\,Q \Big\} + O(\eta^3),

    where :math:`C = \langle|g|^2\rangle - GG`, :math:`\frac12G\cdot\partial C = G\langle H_xg\rangle - GHG`,
    :math:`CH = \langle gHg\rangle - GHG` and
    :math:`Q = \langle gH_xg\rangle - \langle gHg\rangle - 2G\langle H_xg\rangle + 2GHG`.

    Parameters
    ----------
    scalars : Scalars
        At the start.
    N, T, B : int
        As in `test_loss_coefficients`.
    order : int
        The last order, 0 to 2.

    Returns
    -------
    Coefficients
        ``values (order + 1,)``, with standard errors where the scalars have them.

    Raises
    ------
    ValueError
        If an integer is out of its range or the epochs are not whole.
    TypeError
        If ``scalars`` is no Scalars, or an integer none.

    References
    ----------
    Tenka, SGD at Small Learning Rates, the gap by diagrams whose root is tied to the training set.

    Examples
    --------
    Losses θ²/2 ± θ at θ = 0, one step on one example: θ becomes ∓η, and the gap is η:

    >>> s = Scalars(0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 1)
    >>> gap_coefficients(s, N=1, T=1).values.tolist()
    [0.0, 1.0, 0.0]
    """
    N, T, B = _schedule(N, T, B)
    order = _validate.integer("order", order, low=0, high=2)
    dC, CH, Q = T * (T - 1) / 2 + T**2, T * (T - 1) / 2, T**2 / N - T / (2 * B)
    braces = {"GHxg": dC - 2 * Q, "GHG": -dC - CH + 2 * Q, "gHg": CH - Q, "gHxg": Q}
    rows = [{}, {"gg": T / N, "GG": -T / N}, {name: -weight / N for name, weight in braces.items()}]
    return _combined(scalars, rows[: order + 1])


def _schedule(N: int, T: int, B: int) -> tuple[int, int, int]:
    N, T = _validate.integer("N", N, low=1), _validate.integer("T", T, low=0)
    B = _validate.integer("B", B, low=1, high=N)
    if N % B:
        raise ValueError(f"B = {B}: expected a divisor of N = {N}")
    if T * B % N:
        raise ValueError(f"T = {T} steps of B = {B} examples are {T * B / N:g} epochs of N = {N}: "
                         "expected a whole number")  # fmt: skip
    return N, T, B


def _combined(scalars: Scalars, rows: list[dict[str, float]]) -> Coefficients:
    """Linear combinations, one a row, of the scalars."""
    if not isinstance(scalars, Scalars):
        raise TypeError(f"scalars is a {type(scalars).__name__}: expected Scalars")
    weights = np.array([[row.get(name, 0.0) for name in NAMES] for row in rows])
    if scalars.draws is None:
        return Coefficients(weights @ scalars.values + 0.0)
    draws = scalars.draws @ weights.T
    result = estimate(torch.tensor(draws))
    return Coefficients(result.mean.numpy(), result.se.numpy(), draws)
