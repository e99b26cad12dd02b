"""Per-example gradients as rows (c, p): any model, at the price of memory and time proportional to n p."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from implicitreg.gradstats import naive
from implicitreg.gradstats._ghost import close, nodes, reaches
from implicitreg.gradstats._sample import Sample, slices
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap

ELEMENTS = 2**22  # of the rows in memory at a time
FAILURES = RuntimeError, TypeError, ValueError  # of vmap at operations and control flow that it does not know


@dataclass(frozen=True, eq=False)
class Rows:
    """All gradients of a chunk at once where torch.func can, otherwise one at a time."""

    sample: Sample
    vectorised: bool

    def parts(self, size: int | None = None) -> Iterator[Sample]:
        """Chunks of examples, of a size that limits the memory for the rows."""
        size = size or max(1, ELEMENTS // self.sample.p)
        return (self.sample.part(rows) for rows in slices(self.sample.n, size))

    def rows(self, part: Sample) -> Tensor:
        """The g_i: (c, p)."""
        return gradients(part) if self.vectorised else naive.gradients(part)

    def all(self) -> Tensor:
        """The g_i of the whole sample: (n, p)."""
        return torch.cat([self.rows(part) for part in self.parts()])

    def moments(self, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """gbar, every |g_i|² and sum |g_i - gbar|², all in float64.

        The sums are those of g_i - m with m the mean of the first chunk, so that a large mean costs no digits.
        """
        m, total, squares, centred = None, 0.0, [], 0.0
        for part in self.parts(size):
            g = self.rows(part).double()
            squares.append(g.square().sum(1))
            m = g.mean(0) if m is None else m
            total, centred = total + (g - m).sum(0), centred + (g - m).square().sum()
        return m + total / self.sample.n, torch.cat(squares), centred - total.square().sum() / self.sample.n

    def pull(self, size: int | None) -> Tensor:
        """sum h_i (g_i - gbar): (p,)."""
        G = sum(self.rows(part).sum(0) for part in self.parts(size)) / self.sample.n
        return sum(self.products(part, self.rows(part) - G).sum(0) for part in self.parts(size))

    def products(self, part: Sample, V: Tensor) -> Tensor:
        """The h_i v_i, one a row: (c, p).

        Forward over reverse, as the other order has no rule for some operations and, in torch 2.13, a false one for
        the normalisation of layers under vmap. The first and the last are therefore compared with backward passes.
        """
        if self._trusted:
            return products(part, V)
        return torch.stack([naive.hessian_product(part, i, v) for i, v in enumerate(V)])

    @cached_property
    def _trusted(self) -> bool:
        """Whether torch.func gets two products right; an error where torch gets none right."""
        if any(node.name().startswith("WeightNormInterface") for node in nodes(self.sample.first.losses())):
            raise ValueError("model uses weight_norm, whose second derivatives torch computes wrongly: expected a "
                             "model without it (torch.nn.utils.parametrize.remove_parametrizations)")  # fmt: skip
        if not self.vectorised:
            return False
        ends = self.sample.ends
        V = self.rows(ends)
        try:
            fast = products(ends, V)
        except FAILURES:  # an operation without forward derivative
            return False
        return close(fast, torch.stack([naive.hessian_product(ends, i, v) for i, v in enumerate(V)]))

    def gram(self, size: int | None) -> Tensor:
        """All products g_i . g_j: (n, n)."""
        g = torch.cat([self.rows(part) for part in self.parts(size)])
        return g @ g.T


def rows(sample: Sample) -> Rows:
    """The method, vectorised where that is possible and right for the first and the last example."""
    ends = sample.ends
    try:
        copies = {name: theta.detach().requires_grad_() for name, theta in sample.parameters.items()}
        losses = sample.loss(functional_call(sample.model, copies, (ends.inputs,)), ends.targets)
        hidden = reaches(losses, [id(theta) for theta in sample.theta])  # say, weight decay inside the loss
        fast = gradients(ends)
    except FAILURES:
        return Rows(sample, False)
    return Rows(sample, not hidden and close(fast, naive.gradients(ends)))


def gradients(sample: Sample) -> Tensor:
    """The g_i, one a row: (n, p)."""
    g = vmap(grad(partial(_loss, sample)), (None, 0, 0))(sample.parameters, sample.inputs, sample.targets)
    return torch.cat([g[name].flatten(1) for name in sample.parameters], 1).detach()


def products(sample: Sample, V: Tensor) -> Tensor:
    """The h_i v_i, one a row: (n, p)."""

    def one(v: dict[str, Tensor], x: Tensor, t: Tensor) -> dict[str, Tensor]:
        return jvp(lambda theta: grad(partial(_loss, sample))(theta, x, t), (sample.parameters,), (v,))[1]

    split = V.split([theta.numel() for theta in sample.theta], 1)
    v = {name: part.reshape(-1, *theta.shape)
         for part, (name, theta) in zip(split, sample.parameters.items(), strict=True)}  # fmt: skip
    hv = vmap(one)(v, sample.inputs, sample.targets)
    return torch.cat([hv[name].flatten(1) for name in sample.parameters], 1).detach()


def _loss(sample: Sample, theta: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    return sample.loss(functional_call(sample.model, theta, (x[None],)), t[None])[0]
