"""The reference: the same statistics by an obvious loop over the examples.

Arguments and results are those of `implicitreg.gradstats`; slow, and the more obviously right.

>>> import torch
>>> from implicitreg import gradstats
>>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
>>> x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
>>> gradstats.naive.moments(model, lambda outputs, _: outputs[:, 0], x, x).trace.item()    # variance of 1 and 3
2.0
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from implicitreg import _validate
from implicitreg._failures import explained
from implicitreg.gradstats._copy import copied
from implicitreg.gradstats._sample import Loss, Sample, check_finite, entered
from implicitreg.gradstats.results import CurvatureMoments, GradientMoments
from torch import Tensor, nn

__all__ = ["curvature", "grad_trace", "gradients", "gram", "hessian_product", "moments", "per_example"]


def per_example(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradients g_i, one a row: (n, p)."""
    with _alone(model, loss, inputs, targets, least=1) as sample:
        return gradients(sample)


def moments(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> GradientMoments:
    """Mean, unbiased squared norm of the mean, unbiased covariance trace, from all the gradients."""
    with _alone(model, loss, inputs, targets) as sample:
        g = gradients(sample)
    n, mean = len(g), g.mean(0)
    trace = ((g - mean) ** 2).sum() / (n - 1)
    return GradientMoments(mean, mean @ mean - trace / n, trace, n)


def grad_trace(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """2/(n-1) sum h_i (g_i - gbar), one product with a Hessian an example: (p,)."""
    with _alone(model, loss, inputs, targets) as sample:
        g = gradients(sample)
        centred = g - g.mean(0)
        products = [hessian_product(sample, i, c) for i, c in enumerate(centred)]
    return 2 / (len(g) - 1) * torch.stack(products).sum(0)


def gram(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """All products g_i . g_j: (n, n)."""
    with _alone(model, loss, inputs, targets, least=1) as sample:
        g = gradients(sample)
    return g @ g.T


def curvature(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> CurvatureMoments:
    """kappa3, tr(H Sigma) and G . grad tr Sigma from n Hessians (p, p)."""
    with _alone(model, loss, inputs, targets, least=3) as sample:
        g, n = gradients(sample), sample.n
        units = torch.eye(sample.p).to(g)
        h = torch.stack([torch.stack([hessian_product(sample, i, e) for e in units]) for i in range(n)])
    mean, centred = g.mean(0), g - g.mean(0)
    S = centred.T @ centred / (n - 1)
    kappa3 = n / ((n - 1) * (n - 2)) * sum(c @ (h_i - h.mean(0)) @ c for c, h_i in zip(centred, h, strict=True))
    grad_trace = 2 / (n - 1) * sum(h_i @ c for c, h_i in zip(centred, h, strict=True))
    return CurvatureMoments(kappa3, torch.trace(h.mean(0) @ S) - kappa3 / n, mean @ grad_trace - 2 / n * kappa3)


@contextmanager
def _alone(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, least: int = 2) -> Iterator[Sample]:
    """The sample, whose examples do not interact, or an error."""
    with entered(model, loss, inputs, targets, least=least) as sample:
        copy = copied(sample, verify=True)
        copy.check_together()
        yield copy.sample


def gradients(sample: Sample) -> Tensor:
    """The gradient of every example, by a backward pass each: (n, p)."""
    _validate.instance("sample", sample, Sample)
    rows = torch.stack([_gradient(sample, i).detach() for i in range(sample.n)])
    check_finite("the gradient", rows, sample.numbers)
    return rows


def hessian_product(sample: Sample, i: int, v: Tensor) -> Tensor:
    """h_i v, the gradient of g_i . v: (p,)."""
    i = _validate.integer("i", i, low=0, high=_validate.instance("sample", sample, Sample).n - 1)
    if _validate.tensor("v", v).shape != (sample.p,) or v.dtype != sample.dtype:
        raise ValueError(f"v has shape {tuple(v.shape)} and dtype {v.dtype}: expected ({sample.p},) of {sample.dtype}")
    g = _gradient(sample, i, create_graph=True)
    if not g.requires_grad:  # a linear loss
        return torch.zeros_like(v)
    return _derivative(g @ v, sample.theta).detach()


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    """The derivatives by the parameters as one vector: (p,)."""
    if any(part.is_sparse for part in parts):
        raise ValueError("the gradient of a parameter is sparse: expected a dense one, say sparse=False")
    return torch.cat([part.reshape(-1) for part in parts])


def _gradient(sample: Sample, i: int, create_graph: bool = False) -> Tensor:
    return _derivative(sample.part(slice(i, i + 1)).losses()[0], sample.theta, create_graph)


def _derivative(value: Tensor, theta: list[Tensor], create_graph: bool = False) -> Tensor:
    with explained("torch cannot differentiate the losses"):
        return _flat(torch.autograd.grad(value, theta, create_graph=create_graph, materialize_grads=True))
