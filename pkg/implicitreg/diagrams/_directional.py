"""Directional derivatives of a network's losses: forward derivatives inside, at most one reverse pass outside.

No array here has more than (directions) x (parameters) entries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from implicitreg import _validate, gradstats, problems
from implicitreg._failures import OUT_OF_MEMORY
from implicitreg.gradstats._copy import check_examples
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Loss = Callable[[Tensor, Tensor], Tensor]
Function = Callable[[Tensor], Tensor]
First = Callable[[Function, Tensor], Function]
CHUNK = 64


def forward(f: Function, a: Tensor) -> Function:
    """The function theta -> D f(theta)[a], by a forward derivative."""
    return lambda theta: jvp(f, (theta,), (a,))[1]


def reverse(f: Function, a: Tensor) -> Function:
    """The same by a reverse pass: about twice the time, and for some operations the only right one."""
    return lambda theta: grad(f)(theta) @ a


def along(f: Function, theta: Tensor, v: Tensor, first: First = forward) -> Tensor:
    """H v and J[v, v] for the second and third derivatives of f: (2, p)."""
    slope = first(f, v)
    curvature = first(slope, v)
    return jacrev(lambda at: torch.stack([slope(at), curvature(at)]))(theta)


def differences(f: Function, theta: Tensor, v: Tensor, step: float) -> Tensor:
    """The same from gradients at three points: an error of step² relative to higher derivatives, plus rounding."""
    minus, here, plus = (grad(f)(theta + k * step * v) for k in (-1, 0, 1))
    return torch.stack([(plus - minus) / (2 * step), (plus - 2 * here + minus) / step**2])


def mapped(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """The function of every row: all at once, or in turn where control flow depends on values."""
    try:
        return vmap(function)(*rows)
    except RuntimeError:
        return torch.stack([function(*row) for row in zip(*rows, strict=True)])


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of a network whose parameters are one vector; chunks hold at most ``size`` of them.

    ``first`` takes directional derivatives, :func:`forward` or :func:`reverse`; derivatives are at the parameters plus
    ``shift``.
    """

    model: nn.Module
    loss: Loss
    inputs: Tensor
    targets: Tensor
    size: int
    first: First = forward
    shift: Tensor | None = None

    @property
    def n(self) -> int:
        return len(self.inputs)

    @property
    def theta(self) -> Tensor:
        """The parameters with ``requires_grad``, as one vector, shifted: (p,)."""
        theta = torch.cat([theta.detach().reshape(-1) for theta in _parameters(self.model).values()])
        return theta if self.shift is None else theta + self.shift

    def part(self, start: int, stop: int) -> Batch:
        """The examples from start to stop."""
        return replace(self, inputs=self.inputs[start:stop], targets=self.targets[start:stop])

    def parts(self) -> list[Batch]:
        """The chunks."""
        return [self.part(start, start + self.size) for start in range(0, self.n, self.size)]

    def losses(self, theta: Tensor) -> Tensor:
        """The loss of every example: (n,)."""
        return _losses(self.model, self.loss, theta, self.inputs, self.targets)

    def mean(self, derivative: Callable[[Function], Tensor]) -> Tensor:
        """A derivative of the mean loss, as a sum over the chunks."""
        parts = [part.n / self.n * derivative(lambda theta, part=part: part.losses(theta).mean())
                 for part in self.parts()]  # fmt: skip
        return torch.stack(parts).sum(0)

    def each(self, derivative: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """A derivative of the loss of every example, given its rows."""

        def one(x: Tensor, y: Tensor, *row: Tensor) -> Tensor:
            return derivative(lambda theta: _losses(self.model, self.loss, theta, x[None], y[None])[0], *row)

        chunks = (tensor.split(self.size) for tensor in (self.inputs, self.targets, *rows))
        pieces = [mapped(one, *chunk) for chunk in zip(*chunks, strict=True)]
        return torch.cat(pieces)

    def value(self) -> Tensor:
        """The mean loss."""
        theta = self.theta
        with torch.no_grad():
            return self.mean(lambda f: f(theta))

    def gradient(self) -> Tensor:
        """The mean gradient: (p,)."""
        return self.mean(lambda f: grad(f)(self.theta))

    def gradients(self) -> Tensor:
        """The gradient of every example: (n, p)."""
        each = partial(gradstats.per_example, self.model, self.loss, verify=False)  # as `checked` has
        return torch.cat([each(part.inputs, part.targets) for part in self.parts()])

    def product(self, v: Tensor) -> Tensor:
        """H v of the mean loss: (p,)."""
        return self.products(v[None])[0]

    def products(self, V: Tensor) -> Tensor:
        """H v of the mean loss for every row v: (k, p)."""
        Hv = self.mean(lambda f: mapped(lambda v: grad(self.first(f, v))(self.theta), V))
        return finite("the Hessian", Hv)

    def along(self, V: Tensor) -> tuple[Tensor, Tensor]:
        """H v and J[v, v] of the mean loss for every row v: (k, p) each."""
        both = self.mean(lambda f: mapped(lambda v: along(f, self.theta, v, self.first), V))
        if not torch.isfinite(both).all():  # an infinite J[v, v] makes H v NaN here
            self.products(V)
        return finite("the third derivative", both).unbind(1)

    def third(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """J[a, b, c] of the mean loss."""
        value = self.mean(lambda f: self.first(self.first(self.first(f, a), b), c)(self.theta))
        return finite("the third derivative", value)

    def own(self, a: Tensor, b: Tensor) -> Tensor:
        """a_x . H_x b_x for the example x of every row: (n,)."""

        def curvature(f: Function, a: Tensor, b: Tensor) -> Tensor:
            return self.first(self.first(f, a), b)(self.theta)

        return finite("the Hessian", self.each(curvature, a, b))

    def contracted(self, V: Tensor) -> Tensor:
        """The mean over the rows v of J[v, v]: (p,), one reverse pass for all rows."""
        theta = self.theta.requires_grad_()

        def gradient(f: Function) -> Tensor:  # of the mean of D² f[v, v]; plain autograd is the fastest outermost
            curvature = mapped(lambda v: self.first(self.first(f, v), v)(theta), V).mean()
            if not curvature.requires_grad:  # a polynomial of degree two
                return torch.zeros_like(theta)
            return torch.autograd.grad(curvature, theta, materialize_grads=True)[0]

        return finite("the third derivative", self.mean(gradient))


def checked(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, chunk_size: int | None) -> Batch:
    """The batch, whose examples have losses of their own with three derivatives, or an error or a warning."""
    size = CHUNK if chunk_size is None else _validate.integer("chunk_size", chunk_size, low=1)
    check_examples(model, loss, inputs, targets)  # refuses dropout, batch statistics, and losses that are none
    batch = Batch(model, loss, inputs.detach(), targets.detach(), size)
    ends = replace(batch, inputs=batch.inputs[[0, -1]], targets=batch.targets[[0, -1]])
    ends.gradients()  # which are finite
    return replace(batch, first=_right_rules(ends, orders=1 if _warn_of_kinks(ends) else 2))


def finite(name: str, values: Tensor) -> Tensor:
    """The values, or an error that names the derivative."""
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} of the loss is not finite: expected three finite derivatives at and near theta")
    return values


def _warn_of_kinks(batch: Batch) -> bool:
    """Whether there are kinks."""
    names = problems.kinks(batch.losses(batch.theta.requires_grad_()).sum())
    if names:
        warnings.warn(
            f"the losses have kinks ({', '.join(sorted(names))}): a series in the step size holds only as long as no "
            "iterate crosses one, and the derivatives taken here do not see them",
            UserWarning, stacklevel=4,
        )  # fmt: skip
    return bool(names)


def _right_rules(batch: Batch, orders: int) -> First:
    """Forward derivatives where they agree with differences of gradients on two examples, else reverse.

    Some operations have no rule for nested forward derivatives, or a false one. They are compared at a point nearby,
    where no derivative vanishes by chance. With kinks, differences say nothing about the third derivative and only the
    second is compared.
    """
    v, u = torch.randn(2, batch.theta.numel(), generator=torch.Generator().manual_seed(0)).to(batch.theta)
    v, shift, error = v / v.norm(), 0.01 * u, None
    for first in (forward, reverse):
        tried = replace(batch, first=first, shift=shift)
        try:
            mean, own = torch.cat(tried.along(v[None])), tried.own(v.expand(batch.n, -1), v.expand(batch.n, -1))
        except OUT_OF_MEMORY:
            raise
        except Exception as reason:  # no rule, or not finite
            error = reason
            continue
        if _as_differences(tried, v, mean[:orders], own):
            return first
        error = None
    with suppress(RuntimeError):  # no rule; infinite derivatives at theta itself are named
        replace(batch, first=reverse).along(v[None])
    if isinstance(error, ValueError):
        raise error
    if error is not None:
        raise ValueError(f"the losses have no three derivatives: {error}") from error
    raise ValueError("torch's second or third derivatives of the losses are not those of differences of gradients: "
                     "expected smooth operations that torch differentiates rightly")  # fmt: skip


def _as_differences(batch: Batch, v: Tensor, mean: Tensor, own: Tensor) -> bool:
    """Whether H v and J[v, v] are those of differences with one of three steps, to about an eighth of the digits.

    The products v . H_x v of every example have to be right on average.
    """
    eps, theta = torch.finfo(v.dtype).eps, batch.theta

    def f(at: Tensor) -> Tensor:
        return batch.losses(at).mean()

    for step in (eps**0.25, 0.1 * eps**0.25, 0.01 * eps**0.25):
        right, rounding = differences(f, theta, v, step)[: len(mean)], 100 * eps * float(grad(f)(theta).abs().max())
        close = [
            float((a - b).abs().max()) <= eps**0.125 * float(b.abs().max()) + rounding / step**order
            for order, a, b in zip((1, 2), mean, right, strict=False)
        ]
        scale = float(right[0].norm())
        if all(close) and abs(float(own.mean() - right[0] @ v)) <= eps**0.125 * scale + rounding / step * len(v) ** 0.5:
            return True
    return False


class _Elementary(TorchFunctionMode):
    """Layer normalisation written out: the third derivatives of the built-in operation are wrong in torch 2.13."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.layer_norm, torch.layer_norm):
            return _layer_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, *_):
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, keepdim=True)
    output = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: theta for name, theta in model.named_parameters() if theta.requires_grad}


def _losses(model: nn.Module, loss: Loss, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    named = _parameters(model)
    pieces = theta.split([p.numel() for p in named.values()])
    values = {name: piece.view(p.shape) for (name, p), piece in zip(named.items(), pieces, strict=True)}
    with _Elementary(), sdpa_kernel(SDPBackend.MATH):  # the only attention that is differentiable often enough
        return loss(functional_call(model, values, (x.clone(),)), y)
