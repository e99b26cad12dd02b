"""How fast a step with chosen noise is: ``python tests/benchmarks/part4.py [--quick] [--device cuda]``.

The full run takes a few minutes and writes book/records/bench_part4.json; ``--quick`` prints two seeds only. A step is
all that `implicitreg.noise.msgd.train` does between two looks at the losses. The learning rate is 0, so that every step
has the gradient of the same network to compute. Times are those of float32. Errors are measured in float64, where no
maximum of a pooling layer is decided by rounding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
import replica_cases
import torch
from harness import CPU, WALL, Case, Goal, Task, run, save
from implicitreg import nets
from implicitreg.noise.msgd import Weights
from implicitreg.training import _data, _loop, _task
from implicitreg.training._processes import Processes
from torch import Tensor, nn
from torch.nn import functional as F

OURS, CONV, MLP = "ours", "two convolutions, n = 1000", "64-32-10, n = 300"
GD, PLAIN = "ours without noise", "one plain pass, all examples"
SUPPORT, EVERY = "floor: plain pass, those with weight", "the same weights, all examples"
SGD = "torch.optim.SGD, batches by index"
Answer = tuple[Callable[[], np.ndarray], list[Tensor]]  # what tells W, and the gradient
Step = Callable[[], Answer]


def network(problem: str, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return nets.conv((1, 16, 16), 10, size=28, dtype=dtype) if problem == CONV else nets.mlp((64, 32, 10), dtype=dtype)


def examples(problem: str, seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian inputs and arbitrary labels: the cost does not depend on them."""
    generator = torch.Generator().manual_seed(seed)
    n, shape = (1000, (1, 28, 28)) if problem == CONV else (300, (64,))
    return torch.randn(n, *shape, generator=generator), torch.randint(10, (n,), generator=generator)


def dense(n: int, index: Tensor, w: Tensor) -> np.ndarray:
    return np.bincount(index.cpu(), w.cpu(), minlength=n)


def ours(problem: str, kind: str, b: int, x: Tensor, y: Tensor) -> Step:
    """The steps of `train`, one a call."""
    data = _data.resident("train", (x, y), x.dtype, x.device)
    model = network(problem, x.dtype).to(device=x.device, memory_format=data.layout)
    loss, chunk = partial(F.cross_entropy, reduction="none"), _loop._chunk(None, data, x.device)
    task = _task.Task(model, loss, data, None, chunk, False, Processes(), [torch.default_generator], 0)
    weights, steps = Weights(kind, len(x), b, B=b), count()
    loop = _loop._Loop(task, weights.draw, None, 0.0, lambda step: 1.0, 100, None, {})
    loop.sums = torch.zeros(100, dtype=x.dtype, device=x.device)

    def step() -> Answer:
        t = next(steps)
        loop.step(t, None)
        return lambda: dense(len(x), *weights(t)), [p.grad for p in task.theta]

    return step


def by_hand(problem: str, kind: str, b: int, x: Tensor, y: Tensor, *, every: bool) -> Step:
    """One pass over all examples, or over those with weight, in torch's own layout."""
    model, n = network(problem, x.dtype).to(x.device), len(x)
    theta, weights, steps = list(model.parameters()), Weights(kind, n, b, B=b), count()

    def step() -> Answer:
        index, w = (a.to(x.device) for a in weights(next(steps)))
        rows, v = (slice(None), x.new_zeros(n).index_put_((index,), w.to(x.dtype))) if every else (index, w.to(x.dtype))
        g = torch.autograd.grad((v * F.cross_entropy(model(x[rows]), y[rows], reduction="none")).sum(), theta)
        move(theta, g)
        return lambda: dense(n, index, w), list(g)

    return step


def gradient_descent(problem: str, x: Tensor, y: Tensor) -> Step:
    model = network(problem, x.dtype).to(x.device)
    theta = list(model.parameters())

    def step() -> Answer:
        g = torch.autograd.grad(F.cross_entropy(model(x), y), theta)
        move(theta, g)
        return lambda: np.full(len(x), 1 / len(x)), list(g)

    return step


def usual_loop(problem: str, b: int, x: Tensor, y: Tensor) -> Step:
    """A random batch, its mean loss, torch's optimizer."""
    model = network(problem, x.dtype).to(x.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step() -> Answer:
        index = torch.randint(len(x), (b,), device=x.device)
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
        return lambda: dense(len(x), index, torch.full((b,), 1 / b, dtype=torch.float64)), [
            p.grad for p in model.parameters()
        ]

    return step


def move(theta: list[Tensor], g: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        torch._foreach_add_(theta, list(g), alpha=-0.0)


def ways(problem: str, kind: str, b: int, device: str, dtype: torch.dtype, seed: int) -> dict[str, Step]:
    """Ours and the others, by name, in a precision."""
    x, y = examples(problem, seed)
    x, y = x.to(device, dtype), y.to(device)
    return {
        OURS: ours(problem, kind, b, x, y), GD: ours(problem, "gd", b, x, y), PLAIN: gradient_descent(problem, x, y),
        SUPPORT: by_hand(problem, kind, b, x, y, every=False), EVERY: by_hand(problem, kind, b, x, y, every=True),
        SGD: usual_loop(problem, b, x, y),
    }  # fmt: skip


def step(problem: str, kind: str, b: int, peers: list[str], device: str, seed: int) -> Task:
    """A step in float32; an answer is the same step in float64, whose gradient is compared with the one of its W."""
    timed, exact = (ways(problem, kind, b, device, dtype, seed) for dtype in (torch.float32, torch.float64))
    x, y = (a.to(device) for a in examples(problem, seed))
    model = network(problem, torch.float64).to(device)

    def call(name: str) -> Step:
        timed[name]()
        if device == "cuda":
            torch.cuda.synchronize()
        return exact[name]

    def error(step: Step) -> float:
        weights, g = step()
        losses = F.cross_entropy(model(x.double()), y, reduction="none")
        W = torch.from_numpy(weights()).to(device)
        expected = torch.cat([part.reshape(-1) for part in torch.autograd.grad(W @ losses, list(model.parameters()))])
        return float((torch.cat([part.reshape(-1) for part in g]) - expected).norm() / expected.norm())

    return Task(partial(call, OURS), {name: partial(call, name) for name in peers}, error)


EXACT = 1e-12
FREE, TWICE = Goal("at most 1.02 times, error ≤ 1e-12", 1 / 1.02, EXACT), Goal("≥ 2, error ≤ 1e-12", 2, EXACT)
SPARSE, FLOOR = Goal("≥ 8, error ≤ 1e-12", 8, EXACT), Goal("at most 1.1 times the floor, error ≤ 1e-12", 1 / 1.1, EXACT)
TABLE = {
    "Noise on all examples": [
        (CONV, "gaussian_cov", 100, {GD: FREE, PLAIN: TWICE}), (CONV, "student_t", 100, {GD: FREE, PLAIN: TWICE}),
    ],
    "Weights that are mostly zero": [
        (CONV, "sgd", 100, {EVERY: SPARSE, SUPPORT: FLOOR}), (CONV, "bernoulli", 100, {EVERY: SPARSE, SUPPORT: FLOOR}),
        (CONV, "minibatch_cov", 100, {EVERY: SPARSE, SUPPORT: FLOOR}), (MLP, "sgd", 10, {SUPPORT: None, SGD: None}),
    ],
}  # fmt: skip


def cases(device: str) -> list[Case]:
    return [
        Case(group, f"{kind}, b = {b}: {problem}", partial(step, problem, kind, b, list(peers), device),
             {name: goal for name, goal in peers.items() if goal})
        for group, table in TABLE.items() for problem, kind, b, peers in table
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, printed only")
    parser.add_argument("--seeds", type=int, default=5, help="how many draws of the data (default: %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    arguments = parser.parse_args()
    seeds = list(range(min(arguments.seeds, 2) if arguments.quick else arguments.seeds))
    gpu = arguments.device == "cuda"
    clock = WALL if gpu else CPU
    torch.set_num_threads(1)
    start = time.monotonic()
    everything = cases(arguments.device) + ([] if gpu else replica_cases.CASES)
    rows, skipped = run(everything, seeds, 0.2 if arguments.quick else 2.0, clock)
    wall_seconds = time.monotonic() - start
    print(f"{sum(row.reached is True for row in rows)} of {sum(row.goal is not None for row in rows)} goals reached, "
          f"in {wall_seconds:.0f} s")  # fmt: skip
    if not arguments.quick:
        device = torch.cuda.get_device_name() if gpu else "cpu"
        name = "bench_part4_cuda" if gpu else "bench_part4"
        save(name, rows, skipped, seeds, wall_seconds, ("torch",), clock, device)


if __name__ == "__main__":
    main()
