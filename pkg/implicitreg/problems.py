"""A finite distribution over per-example losses, for which expectations over training sets are finite sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg._torch import torch
from numpy.typing import ArrayLike

__all__ = ["FiniteProblem", "Loss", "kinks"]

MAX_ORDER = 10  # of derivatives: nested automatic differentiation costs a factor of two or more an order

Loss = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class FiniteProblem:
    r"""A distribution over m examples: example i has probability :math:`p_i` and loss :math:`\ell_i(\theta)`.

    The population (test) loss is the mean

    .. math:: L(\theta) = \sum_{i<m} p_i\, \ell_i(\theta),

    and a training set of size N is N independent draws from :math:`p`, so that every expectation over training sets is
    a finite sum.

    Parameters
    ----------
    losses : sequence of m callables
        Each takes a float64 tensor ``(d,)`` and returns a float64 scalar tensor, differentiable by autograd. A loss
        whose control flow depends on the value of theta is allowed, and slow: it is evaluated one theta at a time.
    probabilities : array_like (m,)
        Positive weights that sum to one (to 1e-12); stored divided by their sum.
    theta0 : array_like (d,)
        Where the optimizers start.

    Raises
    ------
    ValueError
        If there is no loss, the counts differ, a probability is not positive, the probabilities do not sum to one,
        ``theta0`` is not a finite vector, or a loss at ``theta0`` fails (for another number of parameters, or made of
        NumPy functions) or is not a finite float64 scalar with finite gradient.
    TypeError
        If a loss is not callable or returns no tensor, or an array is not numeric.

    Examples
    --------
    Curvature 1 or 3 with equal probability, in one dimension:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> problem.loss([2.0])
    4.0
    >>> problem.gradients([[1.0], [2.0]])[..., 0]
    array([[1., 3.],
           [2., 6.]])
    """

    losses: Sequence[Loss]
    probabilities: ArrayLike
    theta0: ArrayLike
    __repr__ = brief

    def __post_init__(self) -> None:
        losses = _callables(self.losses)
        p = _validate.probabilities("probabilities", self.probabilities, size=len(losses))
        theta0 = _validate.vector("theta0", _numeric(self.theta0)).copy()
        for i, loss in enumerate(losses):
            _check_loss(f"losses[{i}]", loss, theta0)
        object.__setattr__(self, "losses", losses)
        object.__setattr__(self, "probabilities", _frozen(p / p.sum()))
        object.__setattr__(self, "theta0", _frozen(theta0))

    @property
    def m(self) -> int:
        """Number of examples in the support of the distribution."""
        return len(self.losses)

    @property
    def d(self) -> int:
        """Dimension of theta."""
        return self.theta0.size

    def loss(self, theta: ArrayLike) -> float:
        """Population loss L at one ``theta`` of shape ``(d,)``, infinite where float64 overflows."""
        theta = _validate.vector("theta", _numeric(theta), size=self.d)
        return float(self.values(theta[None])[0] @ self.probabilities)

    def values(self, thetas: ArrayLike) -> np.ndarray:
        """Every example's loss at every row of ``thetas (P, d)``: shape ``(P, m)``.

        Infinite where float64 overflows.
        """
        thetas = torch.from_numpy(_validate.matrix("thetas", _numeric(thetas), columns=self.d))
        with torch.no_grad():
            return torch.stack([_batched(loss, thetas) for loss in self.losses], 1).numpy()

    def gradients(self, thetas: ArrayLike) -> np.ndarray:
        """Every example's gradient at every row of ``thetas (P, d)``: shape ``(P, m, d)``, infinite where float64
        overflows."""
        thetas = torch.from_numpy(_validate.matrix("thetas", _numeric(thetas), columns=self.d))
        return torch.stack([_gradient(loss, thetas) for loss in self.losses], 1).numpy()

    def derivatives(self, order: int, theta: ArrayLike | None = None) -> tuple[np.ndarray, ...]:
        r"""Every example's derivatives :math:`\nabla^k \ell_i` at one theta, for k = 0 to ``order``.

        Parameters
        ----------
        order : int
            The highest derivative, at least 0.
        theta : array_like (d,), optional
            Where; by default at ``theta0``.

        Returns
        -------
        tuple of order + 1 ndarrays
            Shapes ``(m,)``, ``(m, d)``, ``(m, d, d)``, …: by automatic differentiation, exact up to rounding, one
            example after the other, so that a loss may branch on the value of theta.

        Raises
        ------
        ValueError
            If a derivative of order 1 or more is not finite (the losses may be infinite), or theta has another shape;
            or if a loss normalises (layer or group norm, …) and automatic differentiation contradicts differences, as
            it does for some of torch's higher derivatives there.

        Examples
        --------
        The loss t³/6 at t = 2:

        >>> from implicitreg import FiniteProblem
        >>> problem = FiniteProblem([lambda t: t[0] ** 3 / 6], [1.0], [2.0])
        >>> [float(tensor.squeeze()) for tensor in problem.derivatives(4)[1:]]
        [2.0, 2.0, 1.0, 0.0]
        """
        order = _validate.integer("order", order, low=0, high=MAX_ORDER)
        theta = self.theta0 if theta is None else _validate.vector("theta", _numeric(theta), size=self.d)
        parts = [_derivatives(f"losses[{i}]", loss, theta, order) for i, loss in enumerate(self.losses)]
        return tuple(np.stack(tensors) for tensors in zip(*parts, strict=True))

    def kinks(self) -> tuple[str, ...]:
        """Operations in the losses that have no second derivative somewhere, such as ``relu`` and ``abs``.

        They are found in the graph of automatic differentiation at ``theta0``: names of PyTorch's backward nodes,
        sorted. A series in the step size assumes smooth losses, and holds with kinks only as long as no iterate
        crosses one.

        Examples
        --------
        >>> from implicitreg import FiniteProblem
        >>> FiniteProblem([lambda t: torch.relu(t[0]), lambda t: t[0] ** 2], [0.5, 0.5], [1.0]).kinks()
        ('ReluBackward0',)
        """
        theta = torch.from_numpy(self.theta0.copy()).requires_grad_()
        with torch.enable_grad():
            return tuple(sorted(set().union(*(kinks(loss(theta)) for loss in self.losses))))


# Backward nodes of the operations whose derivative jumps, by the start of their names.
_KINKS = (
    "Relu", "LeakyRelu", "PreluKernel", "Rrelu", "Hardtanh", "Hardsigmoid", "Hardswish", "Abs", "Clamp", "Threshold",
    "Softshrink", "Hardshrink", "Maximum", "Minimum", "Max", "Min", "Amax", "Amin", "Fmax", "Fmin", "AdaptiveMax",
    "Sort", "Topk", "Kthvalue", "Median", "Sign", "Floor", "Ceil", "Round", "Trunc", "Frac", "Where", "SmoothL1",
    "Huber", "L1Loss", "Elu", "Celu", "MultiMargin", "MultilabelMargin",
)  # fmt: skip


def kinks(value: torch.Tensor) -> set[str]:
    """The backward nodes below a tensor whose operations have a kink or a jump."""
    _validate.instance("value", value, torch.Tensor)
    return {name for name in _nodes(value) if name.startswith(_KINKS)}


def _nodes(value: torch.Tensor) -> set[str]:
    """The names of the backward nodes below a tensor."""
    seen, stack = set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(parent for parent, _ in node.next_functions)
    return {node.name() for node in seen}


def _derivatives(name: str, loss: Loss, theta: np.ndarray, order: int, verify: bool = True) -> list[np.ndarray]:
    """Value and derivatives of one loss; each differentiates every component of the one before."""
    at = torch.from_numpy(theta.copy()).requires_grad_()
    with torch.enable_grad():
        flat = loss(at).reshape(1)
        tensors = [flat]
        for _ in range(order):
            flat = _jacobian(flat, at).reshape(-1)
            tensors.append(flat)
    for k, tensor in enumerate(tensors):
        if k and not torch.isfinite(tensor).all():
            what = ("gradient", "Hessian")[k - 1] if k < 3 else f"derivative of order {k}"
            where = f"at theta = {theta.tolist()}"
            raise ValueError(f"{name} has the {what} {tensor.tolist()} {where}: expected finite numbers")
    found = [tensor.detach().numpy().reshape((theta.size,) * k) for k, tensor in enumerate(tensors)]
    if verify:
        _verify_normalized(name, loss, theta, found)
    return found


def _jacobian(values: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """d values / d theta: (len(values), d), differentiable again."""
    if not values.requires_grad:  # constant, here
        return torch.zeros(values.numel(), theta.numel(), dtype=theta.dtype)
    rows = torch.eye(values.numel(), dtype=values.dtype)
    options = {"create_graph": True, "materialize_grads": True}
    try:
        return torch.autograd.grad(values, theta, rows, is_grads_batched=True, **options)[0]
    except RuntimeError:  # an operation whose backward pass does not batch
        return torch.stack([torch.autograd.grad(values, theta, row, **options)[0] for row in rows])


def _verify_normalized(name: str, loss: Loss, theta: np.ndarray, tensors: list[np.ndarray]) -> None:
    """Where the loss normalises, compare with differences: some of torch's higher derivatives there are wrong."""
    value = loss(torch.from_numpy(theta.copy()).requires_grad_())
    if len(tensors) < 3 or not any("Norm" in node and "VectorNorm" not in node for node in _nodes(value)):
        return
    step = 1e-4 * (1 + np.abs(theta)) * np.where(np.arange(theta.size) % 2, -1, 1)
    ahead, behind = (
        _derivatives(name, loss, at, len(tensors) - 2, verify=False) for at in (theta + step, theta - step)
    )
    for k in range(2, len(tensors)):
        found, expected = tensors[k] @ step, (ahead[k - 1] - behind[k - 1]) / 2
        if np.abs(found - expected).max() > 1e-4 * np.abs(tensors[k]).max() * np.abs(step).max():
            raise ValueError(
                f"{name}: automatic differentiation is wrong for its derivative of order {k} (by differences "
                f"{expected.ravel()[:3].tolist()}, it gives {found.ravel()[:3].tolist()}): expected a loss whose "
                f"normalisation is written out with elementary operations"
            )


def _batched(loss: Loss, thetas: torch.Tensor) -> torch.Tensor:
    """The loss at every row: (P,)."""
    try:
        return torch.func.vmap(loss)(thetas)
    except RuntimeError:  # what vmap raises at control flow that depends on the value of theta
        return torch.stack([loss(theta) for theta in thetas])


def _gradient(loss: Loss, thetas: torch.Tensor) -> torch.Tensor:
    """The gradient at every row: (P, d). The rows do not mix, so one backward pass of the sum serves all of them."""
    thetas = thetas.detach().requires_grad_()
    with torch.enable_grad():
        total = _batched(loss, thetas).sum()
    if not total.requires_grad:  # a constant, here
        return torch.zeros_like(thetas)
    return torch.autograd.grad(total, thetas, materialize_grads=True)[0]


def _check_loss(name: str, loss: Loss, theta0: np.ndarray) -> None:
    theta = torch.from_numpy(theta0)
    try:
        value = loss(theta.clone().requires_grad_())
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"{name}(theta0) with {theta0.size} parameters raises {error!r}: expected a loss") from error
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}(theta0) is a {type(value).__name__}: expected a scalar tensor")
    if value.shape != () or value.dtype != torch.float64:
        got = f"shape {tuple(value.shape)} and dtype {value.dtype}"
        raise ValueError(f"{name}(theta0) has {got}: expected a scalar of dtype torch.float64")
    if not torch.isfinite(value):
        raise ValueError(f"{name}(theta0) = {value.item()}: expected a finite loss")
    if not value.requires_grad and loss(theta + 1e-3) != value:
        raise ValueError(f"{name} varies with theta but carries no gradient: expected differentiable torch operations")
    gradient = _gradient(loss, theta[None])[0]
    if not torch.isfinite(gradient).all():
        raise ValueError(f"{name} has the gradient {gradient.tolist()} at theta0: expected finite numbers")


def _callables(losses: Any) -> tuple[Loss, ...]:
    try:
        losses = tuple(losses)
    except TypeError:
        raise TypeError(f"losses = {losses!r}: expected a sequence of callables") from None
    if not losses:
        raise ValueError("losses is empty: expected at least one loss")
    for i, loss in enumerate(losses):
        if not callable(loss):
            raise TypeError(f"losses[{i}] = {loss!r}: expected a callable theta -> loss")
    return losses


def _numeric(value: Any) -> Any:
    """A dense tensor as an array; anything else as it is."""
    dense = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
    return value.detach().cpu().numpy() if dense else value


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
