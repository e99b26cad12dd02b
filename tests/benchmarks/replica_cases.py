"""How fast many small networks are trained together: the cases, for a runner of part IV to import.

The networks are 784-50-10 with ReLU, in float32, on 1000 examples; each takes the same number of steps, all with the
weights of `msgd.Weights`. The loop trains one network after the other with torch's derivatives. The error is the
largest relative distance of final parameters from those of the loop in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from harness import Case, Goal, Task
from implicitreg import ensembles, nets
from implicitreg.noise import msgd, replicas
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

WIDTHS, N, STEPS, ETA = (784, 50, 10), 1000, 50, 0.01
LOOP, VMAP = "one after the other", "vmap over networks, same weights"
EXACT = 1e-4  # of float32


def members(kind: str, b: int, P: int) -> list[replicas.Replica]:
    """P networks with seeds of their own."""
    return [replicas.Replica(kind, b, ETA, seed=k, start=k) for k in range(P)]


def problem(P: int, seed: int, n: int, dtype: torch.dtype) -> tuple[list[nn.Sequential], Tensor, Tensor]:
    """Initial networks and one data set, inputs (n, 784)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTHS[0], generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(WIDTHS[-1], (n,), generator=generator)
    return [nets.mlp(WIDTHS, activation="relu", seed=1000 * seed + k, dtype=dtype) for k in range(P)], x, y


def one_by_one(runs: list[replicas.Replica], starts: list[nn.Sequential], x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Final parameters (P, p)."""
    ends = []
    for r in runs:
        model, weights = copy.deepcopy(starts[r.start]), msgd.Weights(r.kind, len(y), r.b, r.B, r.seed)
        theta = list(model.parameters())
        for t in range(steps):
            index, w = weights(t)
            loss = (w.to(x) * F.cross_entropy(model(x[index]), y[index], reduction="none")).sum()
            with torch.no_grad():
                torch._foreach_add_(theta, torch.autograd.grad(loss, theta), alpha=-r.eta)
        ends.append(ensembles.flatten(model))
    return torch.stack(ends)


def by_vmap(runs: list[replicas.Replica], starts: list[nn.Sequential], x: Tensor, y: Tensor, steps: int) -> Tensor:
    """All networks in one functional call; batches are filled up to one size with weights zero."""
    theta, _ = stack_module_state([starts[r.start] for r in runs])
    theta = {name: value.detach().clone() for name, value in theta.items()}
    weights = [msgd.Weights(r.kind, len(y), r.b, r.B, r.seed) for r in runs]
    eta = torch.tensor([r.eta for r in runs], dtype=x.dtype)

    def loss(parameters: dict[str, Tensor], u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        outputs = functional_call(starts[0], parameters, (u,))
        return (w * F.cross_entropy(outputs, v, reduction="none")).sum()

    gradient = vmap(grad(loss))
    for t in range(steps):
        drawn = [one(t) for one in weights]
        at = nn.utils.rnn.pad_sequence([i for i, _ in drawn], batch_first=True)
        w = nn.utils.rnn.pad_sequence([v for _, v in drawn], batch_first=True).to(x)
        for name, g in gradient(theta, x[at], y[at], w).items():
            theta[name] -= eta.view(-1, *[1] * (g.ndim - 1)) * g
    return torch.cat([value.flatten(1) for value in theta.values()], dim=1)


def networks(kind: str, b: int, P: int, peers: list[str], seed: int, n: int = N, steps: int = STEPS) -> Task:
    """P networks together, against the same one after the other."""
    runs = members(kind, b, P)
    starts, x, y = problem(P, seed, n, torch.float32)
    expected = one_by_one(runs, *problem(P, seed, n, torch.float64), steps)

    def ours() -> Tensor:
        return replicas.train(runs, starts, x[None], y[None], steps=steps, at=()).theta

    def error(theta: Tensor) -> float:
        return float(((theta - expected).norm(dim=1) / expected.norm(dim=1)).max())

    ways: dict[str, Callable[[], Tensor]] = {
        LOOP: partial(one_by_one, runs, starts, x, y, steps), VMAP: partial(by_vmap, runs, starts, x, y, steps)
    }  # fmt: skip
    return Task(ours, {name: ways[name] for name in peers}, error)


GROUP = "Many small networks"
GOAL = {LOOP: Goal("≥ 3", 3, EXACT)}
CASES = [
    Case(GROUP, f"{kind}, b = {b}, {P} networks, {STEPS} steps", partial(networks, kind, b, P, [LOOP, VMAP]), goals)
    for kind, b, P, goals in (
        ("sgd", 10, 64, GOAL),
        ("bernoulli", 10, 64, {}),
        ("sgd", 100, 16, {}),
        ("gd", 10, 16, {}),
    )
]


if __name__ == "__main__":
    from harness import run

    torch.set_num_threads(1)
    run(CASES, range(3), 1.0)
