"""How fast per-example gradient statistics are: ``python tests/benchmarks/part2.py [--quick] [--device cuda]``.

The full run takes several minutes and writes book/records/bench_part2.json; ``--quick`` prints the small sizes only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

import gradient_peers as peers
import torch
import torch.nn.functional as F
from harness import CPU, WALL, Case, Goal, Task, run, save
from implicitreg import gradstats, nets
from torch import Tensor, nn

EXACT = 1e-12
LIBRARIES = "torch", "backpack-for-pytorch", "opacus"
LOSS = partial(F.cross_entropy, reduction="none")
PLAIN, OWN = "floor: one plain pass", "ours, in a module of one's own"
VMAP, FEW, GHOST = "vmap(grad)", "BatchL2Grad, BackPACK", "ghost norms, Opacus"
SUM_SQUARED, SAMPLES = "SumGradSquared, BackPACK", "grad_sample, Opacus"
VMAP_GRAM, REVERSE, FORWARD = "vmap(grad) and one product", "reverse over vmap(grad)", "forward over reverse, vmap"
WAYS = {
    PLAIN: peers.plain, VMAP: peers.moments_by_vmap, FEW: peers.moments_by_batch_l2,
    SUM_SQUARED: peers.moments_by_sum_grad_squared, GHOST: peers.moments_by_opacus_ghost,
    SAMPLES: peers.moments_by_opacus_rows, VMAP_GRAM: peers.gram_by_vmap,
    REVERSE: peers.grad_trace_by_reverse_over_vmap, FORWARD: peers.grad_trace_by_forward_over_reverse,
}  # fmt: skip
ROWS = {VMAP, SAMPLES, VMAP_GRAM, REVERSE, FORWARD}  # the ways that hold all gradients of a chunk
MLP100, MLP600, CONV = "784-100-10", "784-600-600-10", "3 × 32 × 32, two convolutions"
FEWER = 250  # examples on which these are tuned
SUBSET = 20  # examples on which errors are measured, in float64, against the loop
SIZES = (16, 64, 250, 1000), (100, 250)  # of chunks of vectors and of images, among which a peer gets its fastest


def network(name: str, dtype: torch.dtype) -> nn.Sequential:
    if name == CONV:
        return nets.conv((3, 8, 16), 10, size=32, dtype=dtype)
    return nets.mlp([int(width) for width in name.split("-")], dtype=dtype)


class Own(nn.Module):
    """A network of which nothing is known from its class, so that every trial is made."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def examples(name: str, n: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gaussian inputs and arbitrary labels: the cost does not depend on them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 32, 32) if name == CONV else (784,)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(10, (n,), generator=generator)


def relative(answer: Any, expected: Any) -> float:
    """The relative distance; of moments the largest, where |gbar|² is the scale of its unbiased version."""
    if isinstance(answer, Tensor):
        return float((answer - expected).norm() / expected.norm())
    sq_norm = float((answer.sq_norm - expected.sq_norm).abs() / (expected.mean @ expected.mean))
    return max(sq_norm, relative(answer.mean, expected.mean), relative(answer.trace, expected.trace))


def cost(call: Callable[[], Any], device: str) -> float:
    """Seconds of the second call; of the first where that is long."""
    for _ in range(2):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if (seconds := time.perf_counter() - start) > 2:
            break
    return seconds


@cache
def tuned(way: str, name: str, n: int, device: str) -> tuple[int, bool]:
    """The fastest size of chunks and layout of images, found before the comparison, on the data of seed 0."""
    if way in ROWS and n > FEWER:
        return tuned(way, name, FEWER, device)
    model = network(name, torch.float32).to(device)
    x, y = (a.to(device) for a in examples(name, n, 0, torch.float32))
    images = name == CONV
    layouts = (False, True) if images else (False,)
    options = [(size, layout) for size in SIZES[images] if size <= n for layout in layouts]
    costs: dict[tuple[int, bool], float] = {}
    for option in options:
        costs[option] = cost(partial(WAYS[way], model, x, y, *option), device)
        if costs[option] > 2 * min(costs.values()) and not images:
            break  # larger chunks are slower still
    return min(costs, key=costs.get)


def statistic(kind: str, name: str, n: int, ways: list[str], device: str, seed: int) -> Task:
    """An answer is the method itself, which `error` then applies to a subset in float64."""
    fast, reference = getattr(gradstats, kind), getattr(gradstats.naive, kind)
    model = network(name, torch.float32).to(device)
    x, y = (a.to(device) for a in examples(name, n, seed, torch.float32))
    exact = network(name, torch.float64).to(device)
    few, labels = (a.to(device) for a in examples(name, SUBSET, seed, torch.float64))
    expected = reference(exact, LOSS, few, labels)

    def waiting(call: Callable[[], Any], answer: Any) -> Any:
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return answer

    def peer(way: str) -> Any:
        if way == OWN:
            return waiting(partial(fast, Own(model), LOSS, x, y), None)
        size, layout = tuned(way, name, n, device)
        answer = None if way == PLAIN else partial(_on_few, WAYS[way])
        return waiting(partial(WAYS[way], model, x, y, size, layout), answer)

    def _on_few(way: Callable) -> Any:
        return way(exact, few, labels, 7, False)

    for way in set(ways) - {OWN}:
        with suppress(ImportError):  # said when the peer is called
            tuned(way, name, n, device)
    ours = partial(waiting, partial(fast, model, LOSS, x, y), partial(fast, exact, LOSS, few, labels))
    return Task(ours, {way: partial(peer, way) for way in ways}, lambda method: relative(method(), expected))


def moments_cases(quick: bool, device: str) -> list[Case]:
    half = {way: Goal("≥ 1.6, error ≤ 1e-12", 1.6, EXACT) for way in (FEW, GHOST)}
    mlp = half | {PLAIN: Goal("at most 1.15 times the floor", 1 / 1.15)}
    conv = {way: Goal("≥ 1.2, error ≤ 1e-12", 1.2, EXACT) for way in (VMAP, FEW, SUM_SQUARED, GHOST, SAMPLES)}
    conv |= {PLAIN: Goal("at most 1.6 times the floor", 1 / 1.6)}
    everything = [PLAIN, OWN, VMAP, FEW, SUM_SQUARED, GHOST, SAMPLES]
    few = [PLAIN, OWN, VMAP, FEW, SUM_SQUARED, GHOST]
    table = [(MLP100, everything, mlp), (CONV, everything, conv), (MLP600, few, mlp)]
    return [
        Case("Mean gradient, its squared norm, trace of the covariance", f"{name}, n = 1000",
             partial(statistic, "moments", name, 1000, ways, device), goals)
        for name, ways, goals in table if not quick or name != MLP600
    ]  # fmt: skip


def gram_cases(quick: bool, device: str) -> list[Case]:
    """At n = 1000 the largest network would take the peer half a minute a call; the ratio grows with n."""
    fifty, hundred = Goal("≥ 50, error ≤ 1e-12", 50, EXACT), Goal("≥ 100 (200 at n = 1000), error ≤ 1e-12", 100, EXACT)
    table = [(MLP100, 1000, {VMAP_GRAM: fifty}), (CONV, 1000, {}), (MLP600, 500, {VMAP_GRAM: hundred})]
    return [
        Case("Gram matrix of the gradients", f"{name}, n = {n}",
             partial(statistic, "gram", name, n, [OWN, VMAP_GRAM], device), goals)
        for name, n, goals in table if not quick or name != MLP600
    ]  # fmt: skip


def grad_trace_cases(quick: bool, device: str) -> list[Case]:
    third, fifth = Goal("at most 3 times the floor", 1 / 3), Goal("at most 5 times the floor", 1 / 5)
    large = Goal("≥ 15, error ≤ 1e-12", 15, EXACT)
    table = [
        (MLP100, [PLAIN, OWN, REVERSE, FORWARD], {PLAIN: third, REVERSE: large}),
        (CONV, [PLAIN, OWN, REVERSE, FORWARD], {PLAIN: fifth}), (MLP600, [PLAIN, OWN, REVERSE], {PLAIN: third}),
    ]  # fmt: skip
    return [
        Case("Gradient of the trace of the covariance", f"{name}, n = 1000",
             partial(statistic, "grad_trace", name, 1000, ways, device), goals)
        for name, ways, goals in table if not quick or name != MLP600
    ]  # fmt: skip


def cases(quick: bool, device: str) -> list[Case]:
    return [case for part in (moments_cases, gram_cases, grad_trace_cases) for case in part(quick, device)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks and two seeds, printed only")
    parser.add_argument("--seeds", type=int, default=5, help="how many draws of the data (default: %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    arguments = parser.parse_args()
    seeds = list(range(min(arguments.seeds, 2) if arguments.quick else arguments.seeds))
    clock = WALL if arguments.device == "cuda" else CPU
    torch.set_num_threads(1)
    peers.keep_memory()
    start = time.monotonic()
    budget = 0.1 if arguments.quick else 0.6
    rows, skipped = run(cases(arguments.quick, arguments.device), seeds, budget, clock)
    wall_seconds = time.monotonic() - start
    print(f"{sum(row.reached is True for row in rows)} of {sum(row.goal is not None for row in rows)} goals reached, "
          f"in {wall_seconds:.0f} s")  # fmt: skip
    if not arguments.quick:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
        name = "bench_part2_cuda" if arguments.device == "cuda" else "bench_part2"
        save(name, rows, skipped, seeds, wall_seconds, LIBRARIES, clock, device)


if __name__ == "__main__":
    main()
