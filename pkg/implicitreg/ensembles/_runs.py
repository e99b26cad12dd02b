"""How `particles` runs: blocks of runs, by NumPy or compiled."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg.ensembles import _controls, _streams
from implicitreg.ensembles._estimate import Estimate, estimate
from implicitreg.ensembles._laws import Landscape, Theta
from numpy.typing import ArrayLike
from tqdm import tqdm

BLOCK = 2**14  # runs in a block of NumPy arrays: 128 kB a coordinate
COMPILED_BLOCK = 2**15
WORTH = 50_000_000  # updates from which on compiling (about a second) pays
MAX_UPDATES = 10**12  # runs times steps: compiled, about a quarter of an hour on one core
MAX_NUMBERS = 10**9  # that are kept, or in the training sets of a block: 8 GB


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The weights of R runs at S steps.

    Attributes
    ----------
    steps : tuple of S ints
    thetas : ndarray (S, R, d)
    controls : ndarray (S, R, d) or None
        Control variates: random numbers whose mean is exactly 0, close to ``thetas`` minus their mean.
    """

    steps: tuple[int, ...]
    thetas: np.ndarray
    controls: np.ndarray | None = None
    __repr__ = brief

    @property
    def final(self) -> np.ndarray:
        """The weights at the last of the steps, ``(R, d)``."""
        return self.thetas[-1]

    def mean(self, observable: Callable[[np.ndarray], np.ndarray] | None = None) -> Estimate:
        """Mean and standard error at each step.

        Of the weights, ``(S, d)``, with the control variates subtracted where there are some; or of an observable,
        ``(S,)``, a function of ``thetas (S, R, d)`` that returns ``(S, R)`` (or ``(S, R, …)``), without them.
        """
        if observable is None:
            draws = self.thetas if self.controls is None else self.thetas - self.controls
        else:
            _validate.function("observable", observable, 1)
            draws = _validate._floats("observable(thetas)", observable(self.thetas))
        if draws.shape[:2] != self.thetas.shape[:2]:
            raise ValueError(
                f"observable returns shape {draws.shape}: expected {self.thetas.shape[:2]} and what follows"
            )
        return estimate(np.ascontiguousarray(np.moveaxis(draws, 1, 0)))


@lru_cache(maxsize=64)
def brownian_step(drift: Callable, spread: Callable) -> Callable:
    """A gradient with which SGD of step h is the scheme: h times its noise has the covariance h eta C."""

    def step(theta: Theta, w: Theta, parameters: tuple[float, ...]) -> Theta:
        root = parameters[-1]  # of eta / h
        move, noise = drift(theta, parameters[:-1]), spread(theta, w, parameters[:-1])
        return tuple(m - root * n for m, n in zip(move, noise, strict=True))

    return step


def fresh(
    landscape: Landscape, eta: float, purpose: int, runs: int, seed: int, at: tuple[int, ...],
    control: bool | ArrayLike, first: int, fast: bool | None, progress: bool | None,
    diffusion: tuple[Callable, Callable] | None = None,
) -> Ensemble:  # fmt: skip
    """Fresh noise at every step, by NumPy or compiled; `diffusion` is what the step of an SDE is compiled from."""
    fast, progress = _compiled(landscape, runs * at[-1], fast), _validate.optional_flag("progress", progress)
    expansion = _expansion(landscape, control)
    pull, c = (None, (0.0,)) if expansion is None else _controls.pull(expansion)
    eps = np.zeros(landscape.d) if expansion is None else np.array(landscape.start) - expansion.center
    thetas = np.empty((len(at), landscape.d, runs))
    controls = np.empty_like(thetas if expansion is not None else thetas[:, :, :0])
    for low, block in _blocks(first, runs, COMPILED_BLOCK if fast else BLOCK, progress):
        out, other = thetas[:, :, low : low + block.size], controls[:, :, low : low + block.size]
        if fast:
            from implicitreg.ensembles import _compiled as compiled

            gradient = compiled.brownian(*diffusion, landscape.d) if diffusion else landscape.gradient
            compiled.advance(landscape, gradient, eta, seed, purpose, first + low, at, eps, pull, c, out, other)
        else:
            x = _streams.draws(landscape.noise, seed, purpose, block, at[-1])
            _keep(_walk(landscape, eta, x, block.size, eps, pull, c), at, out, other)
    if expansion is not None:
        controls -= _controls.means(expansion, np.array(landscape.start), eta, at)[:, :, None]
    return _finished(thetas, controls if expansion is not None else None, at, eta, first)


def _walk(
    landscape: Landscape, eta: float, draws: Iterator[Theta], P: int, eps: np.ndarray, pull: Callable | None, c: tuple
) -> Iterator[tuple[Theta, ...]]:
    """P runs with fresh noise: theta, and the two control processes where there are some, at the steps 0, 1, …"""
    theta, one, two = (_constant(values, P) for values in (landscape.start, eps, np.zeros(landscape.d)))
    yield theta, one, two
    for x in draws:
        theta = _projected(landscape, _moved(theta, eta, landscape.gradient(theta, x, landscape.parameters)))
        if pull is not None:
            first, second = pull(one, two, x, c)
            one, two = _moved(one, eta, first), _moved(two, eta, second)
        yield theta, one, two


def epochs(
    landscape: Landscape, eta: float, runs: int, seed: int, N: int, B: int, at: tuple[int, ...], first: int,
    progress: bool | None,
) -> Ensemble:  # fmt: skip
    """Runs that have a training set each."""
    progress = _validate.optional_flag("progress", progress)
    size = max(64, min(BLOCK, 2**18 // (N * landscape.noise.size)))
    thetas = np.empty((len(at), landscape.d, runs))
    for low, block in _blocks(first, runs, size, progress):
        _keep(_epochs(landscape, eta, seed, block, at[-1], N, B), at, thetas[:, :, low : low + block.size], thetas[:0])
    return _finished(thetas, None, at, eta, first)


def training_sets(landscape: Landscape, seed: int, block: np.ndarray, N: int) -> np.ndarray:
    """The noise of N examples for each of P runs, ``(N, k, P)``."""
    return np.array(list(_streams.draws(landscape.noise, seed, _streams.STEPS, block, N)))


def _epochs(
    landscape: Landscape, eta: float, seed: int, block: np.ndarray, T: int, N: int, B: int
) -> Iterator[tuple[Theta]]:
    points, lanes = training_sets(landscape, seed, block, N), np.arange(block.size)
    theta = _constant(landscape.start, block.size)
    yield (theta,)
    for t in range(T):
        epoch, b = divmod(t, N // B)
        if b == 0 and B < N:
            order = _streams.orders(seed, epoch, N, block)
        rows = order[b * B : b * B + B] if B < N else range(N)
        xs = (tuple(points[row, :, lanes].T if B < N else points[row]) for row in rows)
        gradients = [landscape.gradient(theta, x, landscape.parameters) for x in xs]
        mean = tuple(sum(parts) / B for parts in zip(*gradients, strict=True))
        theta = _projected(landscape, _moved(theta, eta, mean))
        yield (theta,)


def _moved(theta: Theta, eta: float, gradient: Theta) -> Theta:
    return tuple(a - eta * g for a, g in zip(theta, gradient, strict=True))


def _projected(landscape: Landscape, theta: Theta) -> Theta:
    return theta if landscape.project is None else landscape.project(theta, landscape.parameters)


def _constant(values: Sequence[float], P: int) -> Theta:
    return tuple(np.full(P, value) for value in values)


def _keep(walk: Iterator[tuple[Theta, ...]], at: tuple[int, ...], out: np.ndarray, control: np.ndarray) -> None:
    """Write the weights of a walk at the steps to keep into `out`, the sum of what goes along into `control`."""
    places = {t: s for s, t in enumerate(at)}
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is reported by name
        for t, (theta, *others) in enumerate(walk):
            if t in places:
                for i, values in enumerate(theta):
                    out[places[t], i] = values
                for i in range(control.shape[1] if control.size else 0):
                    control[places[t], i] = sum(other[i] for other in others)


def _blocks(first: int, runs: int, size: int, progress: bool | None) -> Iterator[tuple[int, np.ndarray]]:
    """Where a block starts, and the numbers of its runs."""
    with tqdm(total=runs, unit="runs", disable=None if progress is None else not progress) as bar:
        for low in range(0, runs, size):
            high = min(runs, low + size)
            yield low, np.arange(first + low, first + high, dtype=np.uint64)
            bar.update(high - low)


def _finished(thetas: np.ndarray, controls: np.ndarray | None, at: tuple[int, ...], eta: float, first: int) -> Ensemble:
    bad = ~np.isfinite(thetas).all(1)
    if bad.any():
        s, r = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"eta = {eta:g}: run {first + r} has diverged by step {at[s]}: expected a smaller step")
    order = (0, 2, 1)
    return Ensemble(at, thetas.transpose(order), None if controls is None else controls.transpose(order))


def arguments(
    landscape: Landscape, eta: float, T: int, runs: int, seed: int, at: Sequence[int] | None, first: int
) -> tuple[float, int, int, tuple[int, ...], int, int]:
    """eta, T, runs, at, seed and first, as numbers of Python in their ranges."""
    if not isinstance(landscape, Landscape):
        raise TypeError(f"landscape = {landscape!r}: expected a Landscape, such as diagrams.landscapes' .sampled()")
    seed = _validate.integer("seed", seed, low=0, high=2**64 - 1)
    first = _validate.integer("first", first, low=0, high=2**62)
    T = _validate.integer("T", T, low=0, high=MAX_UPDATES)
    given = [T] if at is None else _validate.items("at", at, least=0)
    steps = tuple(_validate.integer("at", t, low=0, high=T) for t in given)
    if not steps or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"at = {at!r}: expected increasing steps from 0 to T = {T}")
    most = min(MAX_NUMBERS // (len(steps) * landscape.d), MAX_UPDATES // max(T, 1))
    if _validate.integer("runs", runs, low=1) > most:
        raise ValueError(f"runs = {runs} of T = {T} steps, with {len(steps)} kept: expected at most {most:,} runs")
    return _validate.number("eta", eta, above=0), T, int(runs), steps, seed, first


def _compiled(landscape: Landscape, updates: int, fast: bool | None) -> bool:
    """Whether to compile."""
    fast = _validate.optional_flag("fast", fast)
    small = landscape.compiles and max(landscape.d, landscape.noise.size) <= 4
    installed = importlib.util.find_spec("numba") is not None
    if fast and not small:
        raise ValueError("fast = True: expected a landscape that numba compiles, with at most 4 weights and noises")
    if fast and not installed:
        raise ValueError("fast = True: expected numba, which is not installed (pip install 'implicitreg[fast]')")
    return fast if fast is not None else small and installed and updates >= WORTH


def _expansion(landscape: Landscape, control: bool | ArrayLike) -> _controls.Expansion | None:
    if isinstance(control, bool | np.bool_) and not control:
        return None
    center = (
        landscape.start
        if isinstance(control, bool | np.bool_)
        else _validate.vector("control", control, size=landscape.d)
    )
    noise = landscape.noise
    if noise.kind == "atoms":
        mean, second = noise.probabilities @ noise.values, (noise.probabilities * noise.values.T) @ noise.values
        if max(np.abs(mean).max(), np.abs(second - np.eye(noise.size)).max()) > 1e-12:
            raise ValueError(
                f"noise has mean {mean.tolist()}, moments {second.tolist()}: expected mean 0, covariance I"
            )
    if landscape.project is not None:
        raise ValueError(f"control = {control!r}: expected a landscape without projection")
    return _controls.expand(landscape.gradient, landscape.parameters, np.array(center), noise.size)
