"""Per-example gradients as rows (c, p): any model, at the price of memory and time proportional to n p."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import torch
from implicitreg._failures import OUT_OF_MEMORY
from implicitreg.gradstats import naive
from implicitreg.gradstats._calls import Unfit, close
from implicitreg.gradstats._copy import Copy
from implicitreg.gradstats._graph import check_second_derivatives, reaches
from implicitreg.gradstats._sample import Sample, check_finite
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap

ELEMENTS = 2**22  # of the rows in memory at a time
MEAN = 1000  # examples in a chunk of the mean loss


class Loop:
    """One example at a time, by backward passes."""

    def __init__(self, copy: Copy) -> None:
        self.sample, self.pair = copy.sample, copy.pair

    def parts(self, size: int | None = None) -> Iterator[Sample]:
        """Chunks of examples, of a size that limits the memory for the rows."""
        return self.sample.parts(size or max(1, ELEMENTS // self.sample.p))

    def _check_second_derivatives(self) -> None:
        for part in self.sample.parts(MEAN):
            check_second_derivatives(part.losses())

    def rows(self, part: Sample) -> Tensor:
        """The g_i: (c, p)."""
        return naive.gradients(part)

    def products(self, part: Sample, V: Tensor) -> Tensor:
        """The h_i v_i, one a row: (c, p)."""
        return torch.stack([naive.hessian_product(part, i, v) for i, v in enumerate(V)])

    def per_example(self, size: int | None = None) -> Tensor:
        """The g_i of the whole sample: (n, p)."""
        return torch.cat([self.rows(part) for part in self.parts(size)])

    def moments(self, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """gbar, |gbar|² and sum |g_i - gbar|², all in float64.

        The sums are those of g_i - m with m the mean of the first chunk, so that a large mean costs no digits.
        """
        m, total, centred = None, 0.0, 0.0
        for part in self.parts(size):
            g = self.rows(part).double()
            check_finite("the gradient", g, part.numbers)
            m = g.mean(0) if m is None else m
            total, centred = total + (g - m).sum(0), centred + (g - m).square().sum()
        mean = m + total / self.sample.n
        return mean, mean @ mean, centred - total.square().sum() / self.sample.n

    def pull(self, size: int | None) -> Tensor:
        """sum h_i (g_i - gbar): (p,)."""
        self._check_second_derivatives()
        G = sum(self.rows(part).sum(0) for part in self.parts(size)) / self.sample.n
        return sum(self.products(part, self.rows(part) - G).sum(0) for part in self.parts(size))

    def gram(self, size: int | None) -> Tensor:
        """All products g_i . g_j: (n, n)."""
        g = self.per_example(size)
        return g @ g.T

    def curvature(self, size: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """gbar, sum h_i (g_i - gbar), sum (g_i - gbar) . h_i (g_i - gbar), and tr(hbar S)."""
        self._check_second_derivatives()
        g = self.per_example(size)
        check_finite("the gradient", g)
        mean, centred, parts = g.mean(0), g - g.mean(0), list(self.parts(size))
        chunks = centred.split([part.n for part in parts])
        products = torch.cat([self.products(part, c) for part, c in zip(parts, chunks, strict=True)])
        check_finite("the Hessian", products)
        return mean, products.sum(0), (products * centred).sum(), quadratic(self.sample, centred) / (len(g) - 1)


class Vectorised(Loop):
    """All gradients of a chunk at once by torch.func; two examples of the sample are compared with the loop."""

    def __init__(self, copy: Copy) -> None:
        super().__init__(copy)
        two = self.sample.part(self.pair)
        copies = {name: theta.detach().requires_grad_() for name, theta in two.parameters.items()}
        losses = torch_func(lambda: two.loss(functional_call(two.model, copies, (two.inputs,)), two.targets))
        if reaches(losses, [id(theta) for theta in two.theta]):  # say, weight decay inside the loss
            raise Unfit

    def rows(self, part: Sample) -> Tensor:
        return self._compared(part, torch_func(partial(gradients, part)), lambda i, k: self._loop[k])

    def products(self, part: Sample, V: Tensor) -> Tensor:
        """The h_i v_i, one a row: (c, p).

        Forward over reverse, as the other order has no rule for some operations and, in torch 2.13, a false one for
        the normalisation of layers under vmap.
        """
        fast = torch_func(partial(products, part, V))
        return self._compared(part, fast, lambda i, k: naive.hessian_product(part, i, V[i]))

    def _compared(self, part: Sample, fast: Tensor, loop: Callable[[int, int], Tensor]) -> Tensor:
        """The rows, if those of the pair are the loop's, ``loop(place in the part, place in the pair)``."""
        for k, number in enumerate(self.pair):
            i = number - part.numbers[0]
            if 0 <= i < part.n and not close(fast[i], loop(i, k)):
                raise Unfit
        return fast

    @cached_property
    def _loop(self) -> Tensor:
        return naive.gradients(self.sample.part(self.pair))


def torch_func(compute: Callable[[], Tensor]) -> Tensor:
    """What torch.func computes, or `Unfit` at operations and control flow that it does not know."""
    try:
        return compute()
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        raise Unfit from error


def gradients(sample: Sample) -> Tensor:
    """The g_i, one a row: (n, p)."""
    g = vmap(grad(partial(_loss, sample)), (None, 0, 0))(sample.parameters, sample.inputs, sample.targets)
    return _flat(sample, g)


def products(sample: Sample, V: Tensor) -> Tensor:
    """The h_i v_i, one a row: (n, p)."""

    def one(v: dict[str, Tensor], x: Tensor, t: Tensor) -> dict[str, Tensor]:
        return jvp(lambda theta: grad(partial(_loss, sample))(theta, x, t), (sample.parameters,), (v,))[1]

    split = V.split([theta.numel() for theta in sample.theta], 1)
    v = {name: part.reshape(-1, *theta.shape)
         for part, (name, theta) in zip(split, sample.parameters.items(), strict=True)}  # fmt: skip
    return _flat(sample, vmap(one)(v, sample.inputs, sample.targets))


def quadratic(sample: Sample, V: Tensor) -> Tensor:
    """The sum over the rows v of v . hbar v, by one product with the Hessian for each of min(n, p) vectors."""
    if len(V) > V.shape[1]:
        V = torch.linalg.qr(V, mode="r").R  # V'V is the same
    total = V.new_zeros(())
    for part in sample.parts(MEAN):
        g = naive._flat(torch.autograd.grad(part.losses().sum(), part.theta, create_graph=True, materialize_grads=True))
        if not g.requires_grad:
            continue
        for v in V:
            total += v @ naive._flat(torch.autograd.grad(g @ v, part.theta, retain_graph=True, materialize_grads=True))
    return total / sample.n


def _flat(sample: Sample, parts: dict[str, Tensor]) -> Tensor:
    """The parameters' derivatives, (n, ...) each, in rows."""
    return torch.cat([parts[name].reshape(sample.n, -1) for name in sample.parameters], 1).detach()


def _loss(sample: Sample, theta: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    x, t = (x.clone(), t.clone()) if sample.written else (x, t)
    return sample.loss(functional_call(sample.model, theta, (x[None],)), t[None])[0]
