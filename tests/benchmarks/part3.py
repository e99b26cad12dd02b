"""How fast ensembles of particles are: ``python tests/benchmarks/part3.py [--quick]``.

The full run takes several minutes and writes book/records/bench_part3.json; ``--quick`` prints a smaller run only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import derivative_cases
import numpy as np
import particle_peers as peers
import torch
from harness import Case, Goal, Task, run, save
from implicitreg import ensembles
from implicitreg.ensembles import particles

LIBRARIES = "torch", "jax", "numba"
ETA = 0.05
RUNS, STEPS = 16384, 512
FLOOR, FUSED = "floor: the arithmetic, same rounding", "floor: the arithmetic, fused"
NAIVE, BLOCKS, TORCH32, TORCH64 = (
    "NumPy normals",
    "NumPy normals, float32 blocks",
    "torch normals, float32",
    "torch normals",
)
THREEFRY, RBG, SIGNS = "JAX normals, threefry, float32", "JAX normals, rbg, float32", "JAX signs, rbg, float32"
NUMBA = "numba, NumPy's generator"
WAYS: Mapping[str, Callable] = {
    FLOOR: partial(peers.arithmetic, fused=False), FUSED: partial(peers.arithmetic, fused=True),
    NAIVE: peers.by_numpy, BLOCKS: peers.by_numpy_blocks,
    TORCH32: partial(peers.by_torch, dtype=torch.float32), TORCH64: partial(peers.by_torch, dtype=torch.float64),
    THREEFRY: partial(peers.by_jax, implementation="threefry2x32"), RBG: partial(peers.by_jax, implementation="rbg"),
    SIGNS: partial(peers.by_jax, implementation="rbg", signs=True), NUMBA: peers.by_numba,
}  # fmt: skip
PLAIN = "ours without control variates"


def gradient(theta: particles.Theta, x: particles.Theta, parameters: tuple) -> particles.Theta:
    """x + y²/2 + xi_1, y (1 + x) + (1 + 0.3 x) xi_2."""
    a, b = theta
    return a + 0.5 * b * b + x[0], b * (1 + a) + (1 + 0.3 * a) * x[1]


def valley(noise: particles.Noise) -> particles.Landscape:
    return particles.Landscape(gradient, (peers.START, peers.START), noise)


@cache
def expected(steps: int) -> np.ndarray:
    """The mean of the weights, from independent runs with control variates; its standard error is about 1e-5."""
    e = particles.sgd(valley(particles.rademacher(2)), ETA, steps, 100_000, seed=2**40, control=(0.0, 0.0))
    return e.mean().mean[0]


def far(steps: int, answer: ensembles.Estimate | np.ndarray) -> float:
    """The largest distance of the mean from the expected one, in its standard errors."""
    e = answer if isinstance(answer, ensembles.Estimate) else ensembles.estimate(answer)
    return float(np.abs((e.mean - expected(steps)) / np.hypot(e.se, 1e-4)).max())


def ensemble(kind: str, ways: list[str], runs: int, steps: int, seed: int) -> Task:
    """M runs of T steps from the same start; the answers of peers have noise of the same first three moments."""
    noise = particles.gaussian(2) if kind == "normals" else particles.rademacher(2)
    ours = partial(particles.sgd, valley(noise), ETA, steps, runs, seed=seed, fast=kind != "signs, no numba")
    others = {way: partial(WAYS[way], ETA, steps, runs, seed) for way in ways}
    ours()  # compiles
    return Task(lambda: ours().final, others, partial(far, steps))


def controlled(fast: bool, runs: int, steps: int, seed: int) -> Task:
    """With control variates against without; the errors are standard errors of the mean of x."""
    ours = partial(particles.sgd, valley(particles.rademacher(2)), ETA, steps, runs, seed=seed, fast=fast)
    with_control = partial(ours, control=(0.0, 0.0))

    def mean(ensemble: particles.Ensemble) -> ensembles.Estimate:
        e = ensemble.mean()
        return ensembles.Estimate(e.mean[0], e.se[0])

    with_control()  # compiles
    return Task(lambda: mean(with_control()), {PLAIN: lambda: mean(ours())}, partial(_error, steps))


def _error(steps: int, answer: ensembles.Estimate) -> float:
    """The standard error of the mean of x: what the time buys."""
    if far(steps, answer) > 5:
        raise ArithmeticError(f"the mean is {answer.mean}, {far(steps, answer):.1f} errors from {expected(steps)}")
    return float(answer.se[0])


def particle_cases(quick: bool) -> list[Case]:
    runs, steps = (RUNS // 4, STEPS // 4) if quick else (RUNS, STEPS)
    compiled = {FUSED: Goal("at most 1.5 times the floor", 1 / 1.5), NAIVE: Goal("≥ 60", 60), TORCH64: Goal("≥ 30", 30)}
    table: list[tuple[str, list[str], dict[str, Goal]]] = [
        ("signs", list(WAYS), compiled),
        ("signs, no numba", [NAIVE, BLOCKS, TORCH32, TORCH64, RBG, SIGNS], {TORCH64: Goal("≥ 4", 4)}),
        ("normals", [NAIVE, BLOCKS, TORCH32, TORCH64, THREEFRY, RBG, NUMBA], {}),
    ]
    size = f"{runs} runs, {steps} steps"
    cases = [
        Case("Ensembles of SGD in two dimensions", f"{kind}, {size}", partial(ensemble, kind, ways, runs, steps), goals)
        for kind, ways, goals in table
    ]
    gain = {PLAIN: Goal("at most twice the time, standard error ≤ 1/30", 1 / 2, gain=30)}
    return cases + [
        Case("Control variates", f"{name}, {8 * runs} runs, {4 / ETA:.0f} steps",
             partial(controlled, fast, 8 * runs, round(4 / ETA)), gain)
        for name, fast in (("compiled", True), ("no numba", False))
    ]  # fmt: skip


def cases(quick: bool) -> list[Case]:
    return [*particle_cases(quick), *derivative_cases.CASES]


def nanoseconds(row: Any, runs: int, steps: int) -> str:
    """Of an ensemble: the time of one update of one run."""
    scale = 1e6 / (runs * steps)
    return f"{row.peer:38} {scale * row.peer_ms:8.3g} ns, ours {scale * row.ours_ms:.3g} ns an update"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the runs and steps, two seeds, printed only")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default: %(default)s)")
    arguments = parser.parse_args()
    seeds = list(range(min(arguments.seeds, 2) if arguments.quick else arguments.seeds))
    torch.set_num_threads(1)
    start = time.monotonic()
    rows, skipped = run(cases(arguments.quick), seeds, 0.1 if arguments.quick else 0.6)
    wall_seconds = time.monotonic() - start
    reached, goals = sum(row.reached is True for row in rows), sum(row.goal is not None for row in rows)
    if not arguments.quick:
        for row in rows:
            if row.group.startswith("Ensembles"):
                print(nanoseconds(row, RUNS, STEPS))
        save("bench_part3", rows, skipped, seeds, wall_seconds, LIBRARIES)
    print(f"{reached} of {goals} goals reached, in {wall_seconds:.0f} s")


if __name__ == "__main__":
    main()
