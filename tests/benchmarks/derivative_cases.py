"""How fast a third derivative is contracted with a covariance: the cases, for a runner of part III to import.

The network has one hidden layer of tanh, N = 32 examples, and the covariance is that of their gradients, by its N
factors. The third derivative itself has d³ entries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import Case, Goal, Task
from implicitreg import gradstats, nets
from implicitreg.diagrams import networks
from implicitreg.diagrams._directional import checked
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd

N = 32
WIDTHS = {16: (3, 3, 1), 51: (3, 10, 1), 101: (3, 20, 1)}  # of the layers, by the number of parameters d
FULL, TRACE, SMALL = "full tensor, jacfwd(hessian)", "gradient of tr(H Sigma), full Hessian", "ours at d = 16"
CHECKED = "the same with its checks of the network"


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error of every example."""
    return (outputs[:, 0] - targets).square() / 2


def network(d: int, seed: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network with d parameters, N examples, and their gradients (N, d)."""
    generator = torch.Generator().manual_seed(seed)
    model = nets.mlp(WIDTHS[d], seed=seed)
    x, y = (torch.randn(N, *shape, generator=generator, dtype=torch.float64) for shape in ((3,), ()))
    return model, x, y, gradstats.per_example(model, squares, x, y)


def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The mean loss as a function of the flat parameters, and these."""
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def f(theta: Tensor) -> Tensor:
        pieces = zip(named.items(), theta.split(sizes), strict=True)
        return squares(functional_call(model, {name: t.view(p.shape) for (name, p), t in pieces}, (x,)), y).mean()

    return f, torch.cat([p.detach().reshape(-1) for p in named.values()])


def by_full_tensor(model: nn.Module, x: Tensor, y: Tensor, V: Tensor) -> Tensor:
    """All d³ numbers, then the contraction."""
    f, theta = mean_loss(model, x, y)
    J = jacfwd(hessian(f))(theta)
    return torch.einsum("ijk,ij->k", J, V.T @ V / len(V))


def by_hessian(model: nn.Module, x: Tensor, y: Tensor, V: Tensor) -> Tensor:
    """The gradient of tr(H Sigma) with Sigma held fixed, through all d² numbers of H."""
    f, theta = mean_loss(model, x, y)
    S = V.T @ V / len(V)
    return grad(lambda at: (hessian(f)(at) * S).sum())(theta)


def contraction(d: int, peers: list[str], seed: int) -> Task:
    """J[gg] at d parameters, for a network that has been checked; the answer of the smaller problem is not compared."""
    problem, smaller = network(d, seed), network(16, seed)
    data, small = (checked(model, squares, x, y, None) for model, x, y, _ in (problem, smaller))
    model, x, y, V = problem

    ways: dict[str, Callable[[], Any]] = {
        FULL: partial(by_full_tensor, *problem),
        TRACE: partial(by_hessian, *problem),
        SMALL: partial(_unanswered, partial(small.contracted, smaller[-1])),
        CHECKED: partial(networks.third_contraction, model, squares, x, y, V),
    }
    expected = by_hessian(*problem)

    def error(answer: Tensor) -> float:
        return float((answer - expected).norm() / expected.norm())

    return Task(partial(data.contracted, V), {name: ways[name] for name in peers}, error)


def _unanswered(call: Callable[[], Any]) -> None:
    """The call, whose answer is that of another problem."""
    call()


FLAT, FIFTY = Goal("at most 1.5 times the cost at d = 16", 1 / 1.5, 1e-12), Goal("≥ 50, error ≤ 1e-12", 50, 1e-12)
GROUP = "Third derivative, contracted with a covariance"
CASES = [
    Case(GROUP, "tanh network, N = 32, d = 16", partial(contraction, 16, [FULL, TRACE, CHECKED]), {}),
    Case(GROUP, "tanh network, N = 32, d = 51", partial(contraction, 51, [SMALL, FULL, TRACE, CHECKED]), {SMALL: FLAT}),
    Case(GROUP, "tanh network, N = 32, d = 101", partial(contraction, 101, [SMALL, FULL, TRACE, CHECKED]),
         {SMALL: FLAT, FULL: FIFTY}),
]  # fmt: skip


if __name__ == "__main__":
    from harness import run

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    run(CASES, range(3), 1.0)
