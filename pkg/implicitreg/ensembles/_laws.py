"""What particles run on: laws of noise, and landscapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

MAX_SIZE = 1_000_000  # numbers in the noise of one example

Theta = tuple[np.ndarray, ...]  # d arrays (P,), one a coordinate


@dataclass(frozen=True, eq=False)
class Noise:
    """A law of the noise x of one example; made by `gaussian`, `rademacher` or `atoms`."""

    kind: str
    size: int
    values: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    __repr__ = brief

    def __post_init__(self) -> None:
        _validate.choice("kind", self.kind, ("gaussian", "rademacher", "atoms"))
        _validate.integer("size", self.size, low=1, high=4 if self.kind == "rademacher" else MAX_SIZE)
        if (self.kind == "atoms") != (self.values is not None) or (self.values is None) != (self.probabilities is None):
            raise ValueError(f"values and probabilities with kind = {self.kind!r}: expected both for atoms, else none")
        if self.values is not None:
            values = _validate.matrix("values", self.values, columns=self.size).copy()
            p = _validate.probabilities("probabilities", self.probabilities, size=len(values)).copy()
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "probabilities", p)


def gaussian(size: int = 1) -> Noise:
    """Independent standard normal coordinates, by Box and Muller from 32-bit uniform numbers.

    Every moment is that of the normal law to about 1e-9; values beyond 6.7 do not occur.

    Examples
    --------
    >>> gaussian(2).size
    2
    """
    return Noise("gaussian", size)


def rademacher(size: int = 1) -> Noise:
    """Independent coordinates ±1, a random bit each, at most four.

    The moments through the third are those of the normal law (0, 1, 0); the fourth is 1 instead of 3. What depends on
    fourth moments needs `gaussian` or `atoms`.

    Examples
    --------
    >>> rademacher().kind
    'rademacher'
    """
    return Noise("rademacher", size)


def atoms(values: ArrayLike, probabilities: ArrayLike | None = None) -> Noise:
    """A finite law: the rows of ``values (m, k)``, or m numbers, with their probabilities (equal by default).

    Every moment is that of the law, up to 2^-32 in the probabilities.

    Raises
    ------
    ValueError, TypeError
        If the values are not finite numbers, or the probabilities are not positive, do not sum to one, or are not m.

    Examples
    --------
    >>> atoms([2.0, -1.0], [1 / 3, 2 / 3]).values.tolist()
    [[2.0], [-1.0]]
    """
    given = _validate.array("values", values)
    values = _validate.matrix("values", given[:, None] if given.ndim == 1 else given)
    m = len(values)
    p = np.full(m, 1 / m) if probabilities is None else _validate.probabilities("probabilities", probabilities, size=m)
    return Noise("atoms", values.shape[1], values, p)


@dataclass(frozen=True, eq=False)
class Landscape:
    r"""A law of losses on d weights, as the runs need it.

    The functions are elementwise: theta is a tuple of d arrays (or numbers), x a tuple of ``noise.size`` arrays, and
    they return a tuple of d arrays. They use arithmetic and NumPy's elementwise functions only, so that numba can
    compile them, and read numbers from `parameters`, so that it does so once.

    Parameters
    ----------
    gradient : callable
        ``gradient(theta, x, parameters)``, the gradient of the loss of the example x.
    start : sequence of d floats
        Where all runs start.
    noise : Noise
        The law of x.
    drift, spread : callable, optional
        For `sde`: ``drift(theta, parameters)``, the gradient of the test loss, and ``spread(theta, w, parameters)``,
        the product :math:`A(\theta)\,w` with a factor of the covariance of the gradient, :math:`A A^\top = C`, for w of
        ``sources`` coordinates.
    sources : int
        The number of columns of A.
    parameters : tuple of float
        Handed to every function.
    project : callable, optional
        ``project(theta, parameters)``, applied after every step.
    compiles : bool
        Whether numba can compile the functions.

    Raises
    ------
    ValueError, TypeError
        If the start is not a finite vector, a function is not callable or does not return d coordinates.

    Examples
    --------
    The loss θ²/2 + xθ:

    >>> from implicitreg.ensembles import particles
    >>> quadratic = Landscape(lambda theta, x, p: (theta[0] + x[0],), [1.0], rademacher())
    >>> np.unique(particles.sgd(quadratic, 0.5, 1, 100, seed=0).final).tolist()  # 1 - (1 ± 1) / 2
    [0.0, 1.0]
    """

    gradient: Callable
    start: Sequence[float]
    noise: Noise
    drift: Callable | None = None
    spread: Callable | None = None
    sources: int = 1
    parameters: tuple[float, ...] = ()
    project: Callable | None = None
    compiles: bool = True
    __repr__ = brief

    def __post_init__(self) -> None:
        start = _validate.vector("start", self.start)
        object.__setattr__(self, "start", tuple(start.tolist()))
        parameters = enumerate(_validate.items("parameters", self.parameters, least=0))
        parameters = tuple(_validate.number(f"parameters[{k}]", p) for k, p in parameters)
        object.__setattr__(self, "parameters", parameters)
        _validate.integer("sources", self.sources, low=1, high=MAX_SIZE)
        _validate.flag("compiles", self.compiles)
        if not isinstance(self.noise, Noise):
            raise TypeError(f"noise = {self.noise!r}: expected gaussian(), rademacher() or atoms(...)")
        at, x = tuple(start[:, None]), (np.zeros(1),) * self.noise.size
        calls = {"gradient": (at, x, self.parameters), "drift": (at, self.parameters), "project": (at, self.parameters),
                 "spread": (at, (np.zeros(1),) * self.sources, self.parameters)}  # fmt: skip
        for name, arguments in calls.items():
            if (function := getattr(self, name)) is None and name != "gradient":
                continue
            if not callable(function):
                raise TypeError(f"{name} = {function!r}: expected a function")
            found = _validate.function(name, function, len(arguments))(*arguments)
            if not isinstance(found, tuple | list | np.ndarray) or len(found) != start.size:
                count = len(found) if isinstance(found, tuple | list | np.ndarray) else f"a {type(found).__name__}, no"
                raise ValueError(f"{name} returns {count} coordinates: expected {start.size}")
            for k, coordinate in enumerate(found):
                if _validate.array(f"{name}(...)[{k}]", coordinate).dtype.kind not in "iuf":
                    raise TypeError(f"{name} returns a {type(coordinate).__name__}: expected {start.size} arrays")

    @property
    def d(self) -> int:
        """Number of weights."""
        return len(self.start)


def finite(problem: FiniteProblem) -> Landscape:
    r"""The landscape of a finite problem: x is the index of an example; :math:`A(\theta)` has m columns
    :math:`\sqrt{p_i}\,(g_i - G)`.

    Its gradients come from automatic differentiation, all m of them at every step: simple, and slow beside a landscape
    written out.

    Examples
    --------
    >>> from implicitreg.ensembles import particles
    >>> problem = FiniteProblem([lambda t: t[0], lambda t: -t[0]], [0.5, 0.5], [0.0])
    >>> np.unique(particles.sgd(finite(problem), 0.5, 1, 100, seed=0).final).tolist()
    [-0.5, 0.5]
    """
    if not isinstance(problem, FiniteProblem):
        raise TypeError(f"problem = {problem!r}: expected a FiniteProblem")
    p = problem.probabilities

    def gradients(theta: Theta) -> np.ndarray:
        return problem.gradients(np.stack(theta, 1))

    def gradient(theta: Theta, x: Theta, parameters: tuple) -> Theta:
        return tuple(gradients(theta)[np.arange(x[0].size), x[0].astype(int)].T)

    def drift(theta: Theta, parameters: tuple) -> Theta:
        return tuple(p @ gradients(theta).transpose(2, 1, 0))

    def spread(theta: Theta, w: Theta, parameters: tuple) -> Theta:
        g = gradients(theta)
        centred = g - np.einsum("m,pmd->pd", p, g)[:, None]
        return tuple(np.einsum("m,mp,pmd->dp", np.sqrt(p), np.stack(np.broadcast_arrays(*w)), centred))

    noise = atoms(np.arange(problem.m, dtype=float), p)
    return Landscape(gradient, problem.theta0, noise, drift, spread, problem.m, compiles=False)
