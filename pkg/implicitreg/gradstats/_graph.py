"""The graph that torch keeps of the losses: what it leads to, and whether its operations keep the examples apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from implicitreg.gradstats._calls import Call, Pass
from torch import Tensor, nn

# Operations that compute a row (first axis) from the same rows, where the sizes are right (`_keeps`):
ENTRIES = {
    "Abs", "Add", "BinaryCrossEntropyWithLogits", "Clone", "Div", "Elu", "Exp", "Gelu", "LeakyRelu", "Log",
    "LogSigmoid", "MseLoss", "Mul", "Neg", "Pow", "Relu", "Sigmoid", "Silu", "Sin", "Softplus", "Sqrt", "Sub", "Tanh",
}  # fmt: skip
AXES = {"LogSoftmax", "Mean", "Select", "Softmax", "Squeeze", "Sum"}
OTHER = {"AvgPool2D", "MaxPool2DWithIndices", "NllLoss", "UnsafeView", "View"}


def reaches(values: Tensor, parameters: list[int], calls: Iterable[Call] = ()) -> bool:
    """Whether a path of the graph leads from the losses to a parameter (ids) by another way than from within a call."""
    return any(id(getattr(node, "variable", None)) in parameters for node in nodes(values, calls))


def nodes(values: Tensor, calls: Iterable[Call] = ()) -> Iterator[Any]:
    """All nodes of the graph of the losses, but for those between a call and what produced its inputs."""
    jumps = {call.output.node: [call.source] for call in calls}
    seen, stack = set(), [values.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += jumps[node] if node in jumps else [following for following, _ in node.next_functions]
            yield node


def keeps_rows(one: Pass) -> bool:
    """Whether the graph shows that a loss depends on its own row only of every call's outputs.

    It does not show hooks on what the loss computes. False only says that another operation than the known was seen.
    """
    behind, n = {call.output.node for call in one.calls}, one.part.n
    images = all(call.a.ndim == 4 for call in one.calls if isinstance(call.layer, nn.Conv2d))
    known = images and not one.outputs._backward_hooks
    return known and all(node in behind or _keeps(node, n) for node in nodes(one.losses, one.calls))


def _keeps(node: Any, n: int) -> bool:
    """Whether it is a known operation that turns n rows into n, each by itself."""
    kind = node.name().rpartition("Backward")[0]
    if kind not in ENTRIES | AXES | OTHER:
        return False
    shape = node._input_metadata[0].shape  # of what the operation computes
    before = [other._input_metadata[k].shape for other, k in node.next_functions if other is not None]
    if any(len(sizes) == 0 or sizes[0] != n for sizes in (shape, *before)):
        return False
    if kind in ENTRIES:  # of one number of axes: a shorter one would be repeated along the first
        return all(len(sizes) == len(shape) for sizes in before)
    return kind in OTHER or 0 not in _axes(node, len(before[0]))


def _axes(node: Any, ndim: int) -> set[int]:
    """Those along which it computes, counted from the first; torch keeps -1 as 2^64 - 1."""
    dim = getattr(node, "_saved_dim", 0)
    return {(d - 2**64 if d >= 2**63 else d) % ndim for d in (dim if isinstance(dim, tuple) else (dim,))}


def check_second_derivatives(losses: Tensor) -> None:
    """An error where torch gets none right."""
    if any(node.name().startswith("WeightNormInterface") for node in nodes(losses)):
        raise ValueError("model uses weight_norm, whose second derivatives torch computes wrongly: expected a "
                         "model without it (torch.nn.utils.parametrize.remove_parametrizations)")  # fmt: skip
