"""Models whose parameters are those of linear and convolutional layers: one backward pass serves all examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from implicitreg.gradstats._layers import Layer, Use
from implicitreg.gradstats._sample import Sample, check_alone, slices, tried
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

VECTORS, IMAGES = 1000, 100  # examples in a chunk: what is fastest on a CPU
ELEMENTS = 2**25  # of the activations of a chunk, at most
BLOCKS = 8  # of rows of a Gram matrix
CANCELLED = 100.0  # sum |g_i|² over sum |g_i - gbar|² above which float32 is too short


@dataclass(frozen=True, eq=False)
class Call:
    """A layer, its inputs, the nodes of the graph before and behind it (in-place changes do not move them), and the
    number of its outputs for one example."""

    layer: Layer
    a: Tensor
    source: Any
    output: GradientEdge
    width: int


@dataclass(frozen=True, eq=False)
class Ghost:
    """All parameters belong to these layers, each called once; ``size`` examples at a time."""

    sample: Sample
    layers: list[Layer]
    size: int

    def parts(self, size: int | None) -> Iterator[Sample]:
        """Chunks of examples; on the CPU max-pooling is twice as fast with the channels last."""
        images = any(isinstance(layer, nn.Conv2d) for layer in self.layers) and self.sample.inputs.ndim == 4
        for rows in slices(self.sample.n, size or self.size):
            part = self.sample.part(rows)
            if images and part.inputs.is_cpu:
                part = replace(part, inputs=part.inputs.contiguous(memory_format=torch.channels_last))
            yield part

    def moments(self, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """gbar, every |g_i|² and sum |g_i - gbar|², the last two in float64.

        The last is a difference. Where it loses more than two digits of float32, the products are formed again in
        float64 from the same a and b.
        """
        mean, squares, centred = self._moments(size, self.sample.dtype)
        if self.sample.dtype == torch.float32 and squares.sum() > CANCELLED * centred:
            mean, squares, centred = self._moments(size, torch.float64)
        return mean, squares, centred

    def _moments(self, size: int | None, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        n, squares, total = self.sample.n, [], {}
        for part in self.parts(size):
            terms = []
            for use in uses(*recorded(part, self.layers)):
                square, sums = replace(use, a=use.a.to(dtype), b=use.b.to(dtype)).sums()
                terms.append(square.double())
                _add(total, use.layer, sums)
            squares.append(sum(terms))
        mean = self._flat(total) / n
        squares = torch.cat(squares)
        return mean, squares, squares.sum() - n * torch.linalg.vector_norm(mean, dtype=torch.float64) ** 2

    def pull(self, size: int | None) -> Tensor:
        """sum h_i (g_i - gbar), by one backward pass through the a and b of all layers: (p,)."""
        whole = self.sample.n <= (size or self.size)
        G = None if whole else self._mean(size)
        return sum(self._pull(part, G) for part in self.parts(size))

    def _mean(self, size: int | None) -> dict[int, Tensor]:
        """gbar by plain backward passes, by the id of the parameter."""
        total: dict[int, Tensor] = {}
        for part in self.parts(size):
            pieces = torch.autograd.grad(part.losses().sum(), part.theta, materialize_grads=True)
            for theta, piece in zip(part.theta, pieces, strict=True):
                total[id(theta)] = total.get(id(theta), 0.0) + piece
        return {key: g / self.sample.n for key, g in total.items()}

    def _pull(self, part: Sample, G: dict[int, Tensor] | None) -> Tensor:
        """The part's share; without G, the part is all there is."""
        pairs = []
        for use in uses(*recorded(part, self.layers), create_graph=True):
            mean = [s / part.n for s in use.sums()[1]] if G is None else [G[id(t)] for t in _trainable(use.layer)]
            q_a, q_b = use.cotangents(mean)
            pairs += [(x, q) for x, q in ((use.a, q_a), (use.b, q_b)) if x.requires_grad]
        if not pairs:  # one layer, and a loss linear in its outputs
            return part.theta[0].new_zeros(part.p)
        xs, qs = zip(*pairs, strict=True)
        parts = torch.autograd.grad(xs, part.theta, qs, materialize_grads=True)
        return torch.cat([piece.reshape(-1) for piece in parts])

    def gram(self, size: int | None) -> Tensor:
        """All products g_i . g_j: (n, n)."""
        features: dict[Layer, list] = {}
        for part in self.parts(size):
            for use in uses(*recorded(part, self.layers)):
                features.setdefault(use.layer, []).append(use.features())
        K = self.sample.theta[0].new_zeros(self.sample.n, self.sample.n)
        for pairs in features.values():
            U, V = (None if parts[0] is None else torch.cat(parts) for parts in zip(*pairs, strict=True))
            _add_products(K, U, V)
        return K.tril() + K.tril(-1).T

    def _flat(self, total: dict[int, Tensor]) -> Tensor:
        return torch.cat([total[id(theta)].reshape(-1) if id(theta) in total else torch.zeros_like(theta).reshape(-1)
                          for theta in self.sample.theta])  # fmt: skip


def ghost(sample: Sample) -> Ghost | None:
    """The method, or None where the parameters are used in any other way than by one call of a plain layer each.

    Two examples are tried together and alone. Their losses must not change; their counts must be the first axis of
    every layer's inputs, whose first row must be that of the first example; and no other way may lead from the losses
    to a parameter.
    """
    found = [module for module in sample.model.modules() if _plain(module)]
    own = [id(theta) for layer in found for theta in _trainable(layer)]
    (two, calls), (one, call) = recorded(sample.ends, found, tried), recorded(sample.first, found, tried)
    check_alone(two, one, tried(sample.last))
    if len(own) != len(sample.theta) or {id(theta) for theta in sample.theta} != set(own):
        return None
    if not (_fits(calls, 2) and _fits(call, 1) and _in_order(calls, call)) or reaches(two.losses, own, calls):
        return None
    images = any(isinstance(layer, nn.Conv2d) for layer in found)
    fitting = ELEMENTS // max(1, sum(c.a[0].numel() + c.width for c in calls))
    return Ghost(sample, found, max(1, min(IMAGES if images else VECTORS, fitting)))


def recorded(
    sample: Sample, found: list[Layer], compute: Callable[[Sample], Any] = Sample.losses
) -> tuple[Any, list[Call]]:
    """What is computed, by default the losses, and the calls of the layers on the way."""
    calls: list[Call] = []

    def record(layer: Layer, args: tuple, output: Tensor) -> None:
        if output.requires_grad:
            a = args[0] if args else None
            source = getattr(a, "grad_fn", None)
            calls.append(Call(layer, a, source, get_gradient_edge(output), output[0].numel()))

    hooks = [layer.register_forward_hook(record, prepend=True) for layer in found]
    try:
        return compute(sample), calls
    finally:
        for hook in hooks:
            hook.remove()


def uses(values: Tensor, calls: list[Call], create_graph: bool = False) -> list[Use]:
    """The derivatives by the layers' outputs; the parameters' are not computed."""
    edges = [call.output for call in calls]
    b = torch.autograd.grad(values.sum(), edges, create_graph=create_graph, allow_unused=True)
    return [Use(call.layer, call.a, d) for call, d in zip(calls, b, strict=True) if d is not None]


def _plain(module: nn.Module) -> bool:
    """A linear layer or convolution with a trainable weight, computed by torch's own code from its own parameters."""
    return (
        type(module) in (nn.Linear, nn.Conv2d)
        and "forward" not in vars(module)
        and set(module._parameters) == {"weight", "bias"}
        and module.weight is not None
        and module.weight.requires_grad
    )


def _trainable(layer: Layer) -> list[Tensor]:
    return [theta for theta in (layer.weight, layer.bias) if theta is not None and theta.requires_grad]


def _fits(calls: list[Call], n: int) -> bool:
    """Each layer is called at most once, with n examples."""
    once = len({id(call.layer) for call in calls}) == len(calls)
    return once and all(call.a is not None and call.a.ndim > 1 and len(call.a) == n for call in calls)


def _in_order(calls: list[Call], alone: list[Call]) -> bool:
    """The first row of each layer's inputs is that of the first example alone: nobody changes places inside."""
    if [call.layer for call in calls] != [call.layer for call in alone]:
        return False
    return all(close(both.a[0].detach(), one.a[0].detach()) for both, one in zip(calls, alone, strict=True))


def close(a: Tensor, b: Tensor) -> bool:
    """Two computations of one tensor, of which half the digits agree."""
    return a.shape == b.shape and bool((a - b).norm() <= torch.finfo(a.dtype).eps ** 0.5 * b.norm())


def _add_products(K: Tensor, U: Tensor, V: Tensor | None) -> None:
    """Add the (u_i . u_j)(v_i . v_j), or u_i . u_j, in blocks on the diagonal and below it."""
    for rows in slices(len(K), max(64, -(-len(K) // BLOCKS))):
        before, products = slice(0, rows.stop), U[rows] @ U[: rows.stop].T
        K[rows, before] += products if V is None else products.mul_(V[rows] @ V[before].T)


def _add(total: dict[int, Tensor], layer: Layer, sums: list[Tensor]) -> None:
    """Add to the totals, in float64 from the second chunk on."""
    for theta, value in zip(_trainable(layer), sums, strict=True):
        known = total.get(id(theta))
        total[id(theta)] = value if known is None else known.double().add_(value)


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
