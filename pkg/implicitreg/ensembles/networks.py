"""Many copies of one network at once, each with its own parameters and data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from implicitreg._failures import explained
from implicitreg._torch import torch
from torch import nn
from torch.func import functional_call, vmap

__all__ = ["Loss", "flatten", "gradients", "losses"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def flatten(model: nn.Module) -> torch.Tensor:
    """The parameters ``(p,)`` of a model in the order of ``model.parameters()``, a copy without a graph.

    Examples
    --------
    >>> from implicitreg import nets
    >>> flatten(nets.mlp((2, 1)))[-1].item()
    0.0
    """
    _check_model(model)
    return nn.utils.parameters_to_vector(p.detach() for p in model.parameters()).clone()


def losses(
    model: nn.Module, loss: Loss, thetas: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    r"""Per-example losses :math:`\ell(\theta_r, x_{ri})` of R networks with the architecture of `model`.

    Parameters
    ----------
    model : nn.Module
        Gives the architecture; its own parameters are not used or changed.
    loss : callable
        ``loss(outputs, targets) -> (n,)`` per-example losses, for instance ``F.cross_entropy`` with
        ``reduction="none"``.
    thetas : tensor (R, p)
        One row of parameters a network, in the order of ``model.parameters()``.
    inputs : tensor (R, n, …)
        The inputs of each network; ``x.expand(R, *x.shape)`` gives all the same ones without copying.
    targets : tensor (R, n) or (R, n, …)

    Returns
    -------
    tensor (R, n)
        The losses, differentiable in `thetas` where these require gradients.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite (a run that diverged), the loss is not one
        number an example, or model or loss fails, say for another dtype, or where they depend on chance.
    TypeError
        If an argument is not of its type.

    Examples
    --------
    Two networks with constant outputs 1 and 3, and the target 0:

    >>> thetas = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    >>> square = lambda outputs, targets: ((outputs[:, 0] - targets) ** 2) / 2
    >>> losses(nn.Linear(1, 1), square, thetas, torch.ones(2, 1, 1), torch.zeros(2, 1)).tolist()
    [[0.5], [4.5]]
    """
    _check(model, loss, thetas, inputs, targets)
    return _losses(model, loss, thetas, inputs, targets)


def gradients(
    model: nn.Module, loss: Loss, thetas: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    r"""Gradients of the mean losses of R networks,

    .. math:: \partial_\theta \frac1n \sum_{i \le n} \ell(\theta_r, x_{ri}), \qquad r \le R.

    All networks share one batched forward and one batched backward pass.

    Parameters
    ----------
    model, loss, thetas, inputs, targets
        As in `losses`. Batch losses are means.

    Returns
    -------
    tensor (R, p)
        One row a network, without a graph.

    Raises
    ------
    ValueError, TypeError
        As in `losses`.

    Examples
    --------
    The loss :math:`(\theta x)^2 / 2` has the gradient :math:`x^2 \theta`:

    >>> model = nn.Linear(1, 1, bias=False)
    >>> square = lambda outputs, targets: outputs[:, 0] ** 2 / 2
    >>> x = torch.tensor([[[1.0], [3.0]], [[1.0], [1.0]]])
    >>> gradients(model, square, torch.tensor([[2.0], [7.0]]), x, torch.zeros(2, 2)).tolist()
    [[10.0], [7.0]]
    """
    _check(model, loss, thetas, inputs, targets)
    with torch.enable_grad():
        thetas = thetas.detach().requires_grad_()
        total = _losses(model, loss, thetas, inputs, targets).mean(1).sum()  # rows do not interact
        if not total.requires_grad:
            raise ValueError("loss does not depend on the parameters: expected differentiable torch operations")
        with _explained(inputs):
            g = torch.autograd.grad(total, thetas)[0]
    _finite("the gradient", g)
    return g


def _losses(model: nn.Module, loss: Loss, thetas: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor):
    def outputs(theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return functional_call(model, _named(model, theta), (x,))

    with _explained(inputs):
        f = vmap(outputs)(thetas, inputs)
        values = loss(f.flatten(0, 1), targets.flatten(0, 1))
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"loss returns a {type(values).__name__}: expected a tensor (n,) of per-example losses")
    if values.shape != (targets.shape[0] * targets.shape[1],):
        raise ValueError(
            f"loss returns shape {tuple(values.shape)}: expected (n,) per-example losses, reduction='none'"
        )
    _finite("the loss", values)
    return values.view(targets.shape[:2])


def _explained(inputs: torch.Tensor) -> AbstractContextManager[None]:
    return explained(f"model or loss fails for inputs of shape {tuple(inputs.shape)} and dtype {inputs.dtype}")


def _named(model: nn.Module, theta: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    pieces = theta.split([p.numel() for p in named.values()])
    return {name: piece.view(p.shape) for (name, p), piece in zip(named.items(), pieces, strict=True)}


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")


def _check(model: object, loss: object, thetas: object, inputs: object, targets: object) -> None:
    _check_model(model)
    if not callable(loss):
        raise TypeError(f"loss = {loss!r}: expected a callable (outputs, targets) -> (n,) losses")
    for name, tensor in (("thetas", thetas), ("inputs", inputs), ("targets", targets)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} is {_kind(tensor)}: expected a tensor")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
            raise ValueError(f"{name} has layout {tensor.layout} on {tensor.device} and dtype {tensor.dtype}: "
                             "expected a dense tensor of real numbers")  # fmt: skip
    p = sum(q.numel() for q in model.parameters())
    if thetas.ndim != 2 or thetas.shape[1] != p or len(thetas) == 0:
        raise ValueError(f"thetas has shape {tuple(thetas.shape)}: expected (R, {p}), one row a network")
    for name, tensor in (("inputs", inputs), ("targets", targets)):
        if tensor.ndim < 2 or len(tensor) != len(thetas) or tensor.shape[:2] != inputs.shape[:2] or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected (R, n, …) with R = {len(thetas)}")
        if tensor.is_floating_point() and tensor.dtype != thetas.dtype:
            raise TypeError(f"{name} has dtype {tensor.dtype}: expected {thetas.dtype}, that of thetas")
    for name, tensor in (("thetas", thetas), ("inputs", inputs), ("targets", targets)):
        _finite(name, tensor)


def _finite(name: str, tensor: torch.Tensor) -> None:
    if not torch.isfinite(tensor.detach().sum()):  # one pass; a sum of finite numbers of moderate size is finite
        raise ValueError(f"{name} holds NaN or infinite numbers: expected finite numbers")


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
