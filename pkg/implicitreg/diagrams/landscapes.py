r"""The small landscapes of the source, on which its statements can be watched: Archimedes' screw and its relatives.

Each is a law of losses :math:`\ell_x` on a few weights, with a noise x of one example that is standard normal in the
source. ``sampled()`` is what `implicitreg.ensembles.particles` runs; ``problem()`` replaces the law of x by a finite
one and gives the problem that `implicitreg.exact` and the series take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams import _losses
from implicitreg.diagrams._losses import Coordinates
from implicitreg.ensembles import particles
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = ["CubicChi", "Gauss", "MeanEstimation", "RegularizedMean", "Screw", "hermite"]


def hermite(m: int) -> tuple[np.ndarray, np.ndarray]:
    """The law on m atoms whose moments through 2m - 1 are those of the standard normal law (Gauss and Hermite).

    m is at most 100: NumPy's nodes are tested up to there.

    Examples
    --------
    >>> values, p = hermite(4)
    >>> [round(float(p @ values**k), 12) for k in (2, 4, 6)]
    [1.0, 3.0, 15.0]
    """
    values, weights = np.polynomial.hermite_e.hermegauss(_validate.integer("m", m, low=1, high=100))
    return values, weights / weights.sum()


# --- what the landscapes share ------------------------------------------------------------------------------------


def _rows(thetas: ArrayLike, d: int) -> Coordinates:
    """The d coordinates of thetas (…, d)."""
    thetas = _validate._floats("thetas", thetas)
    if thetas.shape[-1:] != (d,):
        raise ValueError(f"thetas has shape {thetas.shape}: expected (…, {d})")
    return tuple(np.moveaxis(thetas, -1, 0))


def _noise(x: ArrayLike, thetas: ArrayLike) -> np.ndarray:
    """The x of the examples, one for all thetas (…, d) or one a theta."""
    x, rows = _validate._floats("x", x), np.shape(thetas)[:-1]
    try:
        np.broadcast_shapes(x.shape, rows)
    except ValueError as error:
        raise ValueError(f"x has shape {x.shape}: expected {rows}, one a row of thetas") from error
    return x


def _stacked(coordinates: Coordinates) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*coordinates), -1)


def _problem(
    loss: Callable, parameters: tuple[float, ...], start: tuple[float, ...], atoms: ArrayLike,
    probabilities: ArrayLike | None,
) -> FiniteProblem:  # fmt: skip
    import torch

    law = particles.atoms(_validate.vector("atoms", atoms), probabilities)
    losses = [partial(_of_tensor, loss, float(x), parameters, torch) for x in law.values[:, 0]]
    try:
        return FiniteProblem(losses, law.probabilities, start)
    except ValueError as error:
        raise ValueError(f"atoms up to {np.abs(law.values).max():.3g}: {error}") from error


def _of_tensor(loss: Callable, x: float, parameters: tuple[float, ...], torch: Any, theta: Any) -> Any:
    return loss(tuple(theta), x, parameters, torch)


def _checked(landscape: Any, bounds: dict[str, dict[str, float]]) -> None:
    """Every parameter as a float within its bounds."""
    for name, limits in bounds.items():
        object.__setattr__(landscape, name, _validate.number(name, getattr(landscape, name), **limits))


# --- the screw ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Screw:
    r"""A valley whose axes turn with its height z, and noise along a line that turns with them.

    .. math:: \ell_x = \tfrac12 (a p^2 + b q^2) + x\,\sigma\,(p\cos\varphi + q\sin\varphi) + \alpha z, \qquad
              p = u\cos z + v\sin z, \quad q = -u\sin z + v\cos z,

    for theta = (u, v, z), from the origin, with x of mean 0 and variance 1. The test loss does not depend on the noise,
    and without tilt no force acts along the bottom of the valley, u = v = 0; yet SGD moves along it (`velocity`).
    ``Screw(2, 1, 1, -pi/4)``, the default, is Archimedes' screw.

    Parameters
    ----------
    a, b : float
        The curvatures, positive.
    sigma, phi : float
        The size of the noise, at least 0, and its angle in the p–q plane (radians).
    tilt : float
        The slope alpha.

    Raises
    ------
    ValueError, TypeError
        If a parameter is not a number in its range.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 1 and Archimedes.

    Examples
    --------
    >>> round(Screw().velocity(0.1) / 0.1**2, 12) == round(1 / 6, 12)
    True
    """

    a: float = 2.0
    b: float = 1.0
    sigma: float = 1.0
    phi: float = -math.pi / 4
    tilt: float = 0.0

    def __post_init__(self) -> None:
        bounds = {"a": {"above": 0}, "b": {"above": 0}, "sigma": {"low": 0}, "phi": {}, "tilt": {}}
        _checked(self, bounds)

    @_validate.in_range
    def loss(self, thetas: ArrayLike) -> np.ndarray:
        """The test loss at every row of ``thetas (…, 3)``."""
        return _losses.screw_loss(_rows(thetas, 3), 0.0, astuple(self), np)

    @_validate.in_range
    def gradients(self, thetas: ArrayLike, x: ArrayLike) -> np.ndarray:
        """The gradients of examples x, one a row of ``thetas (…, 3)``."""
        return _stacked(_losses.screw_gradient(_rows(thetas, 3), (_noise(x, thetas),), astuple(self)))

    @_validate.in_range
    def covariance(self, thetas: ArrayLike) -> np.ndarray:
        r"""The covariance of one example's gradient, :math:`AA^\top (…, 3, 3)` with
        :math:`A = \sigma(\cos(z+\varphi),\ \sin(z+\varphi),\ v\cos(z+\varphi) - u\sin(z+\varphi))`."""
        A = _stacked(_losses.screw_spread(_rows(thetas, 3), (np.ones(()),), astuple(self)))
        return A[..., :, None] * A[..., None, :]

    def sampled(self, noise: particles.Noise | None = None) -> particles.Landscape:
        """For `particles`; x is standard normal by default."""
        noise = particles.gaussian() if noise is None else noise
        return particles.Landscape(_losses.screw_gradient, (0.0, 0.0, 0.0), noise, _losses.screw_drift,
                                   _losses.screw_spread, parameters=astuple(self))  # fmt: skip

    def problem(self, atoms: ArrayLike = (1.0, -1.0), probabilities: ArrayLike | None = None) -> FiniteProblem:
        """The problem with a finite law of x, ±1 by default."""
        return _problem(_losses.screw_loss, astuple(self), (0.0, 0.0, 0.0), atoms, probabilities)

    @_validate.in_range
    def velocity(self, eta: float, T: int | None = None) -> float:
        r"""The mean motion of SGD along z in one step, by the one picture that drives it.

        .. math:: v = -\frac{\eta^2\sigma^2}{2} \sin 2\varphi\; \frac{a - b}{a + b} - \eta\alpha, \qquad
                  \frac{\langle z_T\rangle}{T} = -\frac{\eta^2\sigma^2}{2} \sin 2\varphi\; \frac{a-b}{a+b-\eta ab}
                  \Big[1 - \frac{1-\rho^T}{T(1-\rho)}\Big] - \eta\alpha, \quad \rho = (1-\eta a)(1-\eta b).

        The first is the leading order in eta, after a long time; the second, with T, the exact sum of the picture over
        its dates, from the origin, *averaged over the first T steps*. In it p and q are linear SGD,
        :math:`\langle p_t q_t\rangle = \eta^2\sigma^2 \sin\varphi\cos\varphi\,(1-\rho^t)/(1-\rho)`, and the force
        along z is (a - b) p q. It is not the mean of SGD itself: further pictures are smaller by a factor of order eta.

        Parameters
        ----------
        eta : float
            The step size, 0 < eta < 2 / max(a, b).
        T : int, optional
            The number of steps, at least 1.

        Returns
        -------
        float
            The change of z a step, averaged; times T it is the mean of z_T.

        Raises
        ------
        ValueError, TypeError
            If eta or T is out of its range.

        References
        ----------
        Tenka, SGD at Small Learning Rates, Corollary 1 (corrected: a factor eta; its eta²/6 is the leading order of
        eta²/(6 - 4 eta)).

        Examples
        --------
        >>> round(1000 * Screw().velocity(0.1, 1000), 10)
        1.7793367347
        """
        eta = _validate.number("eta", eta, above=0, below=2 / max(self.a, self.b))
        push = -((eta * self.sigma) ** 2) / 2 * math.sin(2 * self.phi) * (self.a - self.b)
        if T is None:
            return push / (self.a + self.b) - eta * self.tilt
        T = _validate.integer("T", T, low=1)
        stiffness = self.a + self.b - eta * self.a * self.b  # (1 - rho) / eta
        return push / stiffness * _risen(eta * stiffness, T) - eta * self.tilt


def _risen(delta: float, T: int) -> float:
    r"""The mean of :math:`1 - (1 - \delta)^t` over t = 0, …, T - 1."""
    if T * delta < 1e-3:  # alternating binomial sum, where the closed form would cancel
        return sum((-1) ** (k + 1) * math.comb(T, k + 1) / T * delta**k for k in range(1, 6))
    gone = -math.expm1(T * math.log1p(-delta)) if delta < 1 else 1 - (1 - delta) ** T
    return 1 - gone / (T * delta)


# --- in one dimension ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanEstimation:
    r"""A quadratic with noise that does not depend on theta,

    .. math:: \ell_x = \tfrac12 H\theta^2 + x S\theta, \qquad L = \tfrac12 H\theta^2, \qquad C = S^2,

    from 0. After gradient descent on N examples, T steps of eta, the test loss is exactly
    :math:`S^2 (1 - (1-\eta H)^T)^2 / (2NH)` in the mean.

    Parameters
    ----------
    H : float
        The curvature, at least 0.
    S : float
        The size of the noise, at least 0.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 2 and Mean Estimation.

    Examples
    --------
    >>> MeanEstimation(2.0).loss([[3.0]]).tolist()
    [9.0]
    """

    H: float
    S: float = 1.0

    def __post_init__(self) -> None:
        _checked(self, {"H": {"low": 0}, "S": {"low": 0}})

    @_validate.in_range
    def loss(self, thetas: ArrayLike) -> np.ndarray:
        """The test loss at every row of ``thetas (…, 1)``."""
        return _losses.mean_loss(_rows(thetas, 1), 0.0, astuple(self), np)

    @_validate.in_range
    def gradients(self, thetas: ArrayLike, x: ArrayLike) -> np.ndarray:
        """The gradients of examples x, one a row of ``thetas (…, 1)``."""
        return _stacked(_losses.mean_gradient(_rows(thetas, 1), (_noise(x, thetas),), astuple(self)))

    @_validate.in_range
    def covariance(self, thetas: ArrayLike) -> np.ndarray:
        """The covariance of one example's gradient, S², ``(…, 1, 1)``."""
        return np.full((*_rows(thetas, 1)[0].shape, 1, 1), self.S**2)

    def sampled(self, noise: particles.Noise | None = None) -> particles.Landscape:
        """For `particles`; x is standard normal by default."""
        noise = particles.gaussian() if noise is None else noise
        return particles.Landscape(_losses.mean_gradient, (0.0,), noise, _losses.mean_drift,
                                   _losses.mean_spread, parameters=astuple(self))  # fmt: skip

    def problem(self, atoms: ArrayLike = (1.0, -1.0), probabilities: ArrayLike | None = None) -> FiniteProblem:
        """The problem with a finite law of x, ±1 by default."""
        return _problem(_losses.mean_loss, astuple(self), (0.0,), atoms, probabilities)


@dataclass(frozen=True)
class Gauss:
    r"""Fitting the logarithm h of a variance to draws of a standard normal x (FitGauss),

    .. math:: \ell_x = \tfrac12 (h + x^2 e^{-h}), \qquad L = \tfrac12 (h + e^{-h}), \qquad C = \tfrac12 e^{-2h},

    from its minimum h = 0, where H = 1/2, J = -1/2 and the third cumulant of the gradient is -1. One step of SGD leaves
    the test loss :math:`\tfrac12 e^{\eta/2}(1+\eta)^{-1/2}` in the mean, exactly.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 5.

    Examples
    --------
    >>> Gauss().loss([[0.0]]).tolist()
    [0.5]
    """

    @_validate.in_range
    def loss(self, thetas: ArrayLike) -> np.ndarray:
        """The test loss at every row of ``thetas (…, 1)``."""
        return _losses.gauss_loss(_rows(thetas, 1), 1.0, (), np)  # the mean of x² is 1

    @_validate.in_range
    def gradients(self, thetas: ArrayLike, x: ArrayLike) -> np.ndarray:
        """The gradients of examples x, one a row of ``thetas (…, 1)``."""
        return _stacked(_losses.gauss_gradient(_rows(thetas, 1), (_noise(x, thetas),), ()))

    @_validate.in_range
    def covariance(self, thetas: ArrayLike) -> np.ndarray:
        """The covariance of one example's gradient, e^(-2h)/2, ``(…, 1, 1)``."""
        return (np.exp(-2 * _rows(thetas, 1)[0]) / 2)[..., None, None]

    def sampled(self, noise: particles.Noise | None = None) -> particles.Landscape:
        """For `particles`; x is standard normal by default. The law of x enters through x²."""
        noise = particles.gaussian() if noise is None else noise
        return particles.Landscape(_losses.gauss_gradient, (0.0,), noise, _losses.gauss_drift,
                                   _losses.gauss_spread)  # fmt: skip

    def problem(self, atoms: ArrayLike | None = None, probabilities: ArrayLike | None = None) -> FiniteProblem:
        """The problem with a finite law of x; by default four atoms with the normal moments through the seventh
        (`hermite`), so that C and S are those of the normal law. With ±1, x² is constant and there is no noise."""
        return _problem(_losses.gauss_loss, (), (0.0,), *_normal_law(atoms, probabilities))


@dataclass(frozen=True)
class CubicChi:
    r"""A cubic with the skewed noise of chi squared, x standard normal,

    .. math:: \ell_x = \theta^3 - (x^2 - 1)\theta, \qquad L = \theta^3, \qquad C = 2,

    from 0, where G = H = 0, J = 6 and the third cumulant of the gradient is -8. The loss is not bounded from below:
    for few steps only.

    References
    ----------
    Tenka, SGD at Small Learning Rates, the code of the artificial landscapes.

    Examples
    --------
    >>> CubicChi().loss([[2.0]]).tolist()
    [8.0]
    """

    @_validate.in_range
    def loss(self, thetas: ArrayLike) -> np.ndarray:
        """The test loss at every row of ``thetas (…, 1)``."""
        return _losses.cubic_loss(_rows(thetas, 1), 1.0, (), np)  # the mean of x² is 1

    @_validate.in_range
    def gradients(self, thetas: ArrayLike, x: ArrayLike) -> np.ndarray:
        """The gradients of examples x, one a row of ``thetas (…, 1)``."""
        return _stacked(_losses.cubic_gradient(_rows(thetas, 1), (_noise(x, thetas),), ()))

    @_validate.in_range
    def covariance(self, thetas: ArrayLike) -> np.ndarray:
        """The covariance of one example's gradient, 2, ``(…, 1, 1)``."""
        return np.full((*_rows(thetas, 1)[0].shape, 1, 1), 2.0)

    def sampled(self, noise: particles.Noise | None = None) -> particles.Landscape:
        """For `particles`; x is standard normal by default. The law of x enters through x²."""
        noise = particles.gaussian() if noise is None else noise
        return particles.Landscape(_losses.cubic_gradient, (0.0,), noise, _losses.cubic_drift,
                                   _losses.cubic_spread)  # fmt: skip

    def problem(self, atoms: ArrayLike | None = None, probabilities: ArrayLike | None = None) -> FiniteProblem:
        """The problem with a finite law of x; by default four atoms with the normal moments through the seventh."""
        return _problem(_losses.cubic_loss, (), (0.0,), *_normal_law(atoms, probabilities))


@dataclass(frozen=True)
class RegularizedMean:
    r"""Mean estimation that tunes its own weight decay: descent on theta and on the strength lambda of the penalty,

    .. math:: \ell_x = \tfrac12 H(\theta-\mu)^2 + \tfrac12\lambda\theta^2 + xS\theta
              + \frac{S^2\,(1 - e^{-(H+\lambda)\tau})}{N(H+\lambda)}, \qquad L = \tfrac12 H(\theta-\mu)^2,

    for (theta, lambda) from (0, 0), with lambda >= 0 by projection after each step. The last term is the gap that
    Corollary 2 predicts after training for the time tau = eta T on N examples.

    Parameters
    ----------
    H, S, mu : float
        Curvature (positive), size of the noise (at least 0), minimum of the test loss.
    N : int
        Size of the training sets.
    tau : float
        The training time, positive.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 2 and the code of the artificial landscapes.

    Examples
    --------
    >>> RegularizedMean(H=1.0, S=10.0, mu=10.0, N=10, tau=10.0).loss([[10.0, 3.0]]).tolist()
    [0.0]
    """

    H: float
    S: float
    mu: float
    N: int
    tau: float

    def __post_init__(self) -> None:
        _validate.integer("N", self.N, low=1)
        _checked(self, {"H": {"above": 0}, "S": {"low": 0}, "mu": {}, "tau": {"above": 0}})

    @_validate.in_range
    def loss(self, thetas: ArrayLike) -> np.ndarray:
        """The test loss, without penalty, at every row of ``thetas (…, 2)``."""
        theta, _ = _rows(thetas, 2)
        return self.H * (theta - self.mu) ** 2 / 2

    @_validate.in_range
    def gradients(self, thetas: ArrayLike, x: ArrayLike) -> np.ndarray:
        """The gradients of examples x, penalty included, one a row of ``thetas (…, 2)``."""
        return _stacked(_losses.tuned_gradient(_rows(thetas, 2), (_noise(x, thetas),), astuple(self)))

    @_validate.in_range
    def covariance(self, thetas: ArrayLike) -> np.ndarray:
        """The covariance of one example's gradient, S² along theta, ``(…, 2, 2)``."""
        return np.broadcast_to(np.diag([self.S**2, 0.0]), (*_rows(thetas, 2)[0].shape, 2, 2)).copy()

    def sampled(self, noise: particles.Noise | None = None) -> particles.Landscape:
        """For `particles`; x is standard normal by default."""
        noise = particles.gaussian() if noise is None else noise
        return particles.Landscape(_losses.tuned_gradient, (0.0, 0.0), noise,
                                   parameters=astuple(self), project=_losses.tuned_projection)  # fmt: skip

    def problem(self, atoms: ArrayLike = (1.0, -1.0), probabilities: ArrayLike | None = None) -> FiniteProblem:
        """The problem with a finite law of x, ±1 by default, without the projection: its losses hold the penalty."""
        return _problem(_losses.tuned_loss, astuple(self), (0.0, 0.0), atoms, probabilities)


def _normal_law(atoms: ArrayLike | None, probabilities: ArrayLike | None) -> tuple[ArrayLike, ArrayLike | None]:
    return hermite(4) if atoms is None else (atoms, probabilities)
