"""The graph that torch keeps of the losses: what it leads to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from implicitreg.gradstats._calls import Call
from torch import Tensor


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


def check_second_derivatives(losses: Tensor) -> None:
    """An error where torch gets none right."""
    if any(node.name().startswith("WeightNormInterface") for node in nodes(losses)):
        raise ValueError("model uses weight_norm, whose second derivatives torch computes wrongly: expected a "
                         "model without it (torch.nn.utils.parametrize.remove_parametrizations)")  # fmt: skip
