"""Models whose parameters are those of linear and convolutional layers: one backward pass serves all examples.

Every chunk is looked at. The layers are called once each, in the order and with the shapes of the copy's; every row of
their inputs belongs to an example, which the copy's examples must confirm; every row of their outputs counts in the
loss of its example only, which random weights on the losses show where model and loss are not known; and no other way
leads from the losses to a parameter. Where this does not hold, `Unfit` says so, and nothing that was computed is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from implicitreg.gradstats._calls import (
    Call,
    Pass,
    Unfit,
    backward,
    close,
    has_images,
    in_layout,
    plain_layers,
    recorded,
    trainable,
)
from implicitreg.gradstats._copy import Copy
from implicitreg.gradstats._graph import check_second_derivatives, reaches
from implicitreg.gradstats._layers import Layer, Use
from implicitreg.gradstats._sample import Sample, check_finite, slices
from torch import Tensor

VECTORS, IMAGES = 1000, 100  # examples in a chunk: what is fastest on a CPU
ELEMENTS = 2**25  # of the activations of a chunk, at most
BLOCKS = 8  # of rows of a Gram matrix
CANCELLED = 100.0  # sum |g_i|² over sum |g_i - gbar|² above which float32 is too short


class Ghost:
    """All parameters belong to plain layers, each called once; ``size`` examples at a time.

    Two examples are compared with the loop, where the call is verified.
    """

    def __init__(self, copy: Copy) -> None:
        self.sample, self.copy, self.layers = copy.sample, copy, plain_layers(copy.sample.model)
        self.own = [id(theta) for layer in self.layers for theta in trainable(layer)]
        if not copy.layers or any(0 in (*layer.weight.shape, *a, *b) for layer, a, b in copy.layers):
            raise Unfit
        if sorted(self.own) != sorted(id(theta) for theta in self.sample.theta):
            raise Unfit
        fitting = ELEMENTS // max(1, sum(a.numel() + b.numel() for _, a, b in copy.layers))
        self.size = max(1, min(IMAGES if has_images(self.layers) else VECTORS, fitting))

    def moments(self, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """gbar, |gbar|² and sum |g_i - gbar|², the last two in float64.

        The last is a difference. Where it loses more than two digits of float32, the products are formed again in
        float64 from the same a and b.
        """
        mean, square, squares = self._moments(size, self.sample.dtype)
        if self.sample.dtype == torch.float32 and squares.sum() > CANCELLED * (squares - square).sum():
            mean, square, squares = self._moments(size, torch.float64)
        check_finite("the gradient", squares)
        if self.copy.verified:
            self._check_norms(squares[self.copy.pair])
        return mean, square, squares.sum() - self.sample.n * square

    def _moments(self, size: int | None, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """gbar, and in float64 |gbar|² and every |g_i|²."""
        squares, total = [], {}
        for _, found in self.chunks(size):
            terms = []
            for use in found:
                square, sums = use.to(dtype).sums()
                terms.append(square.double())
                _add(total, use.layer, sums)
            squares.append(sum(terms))
        mean = self._flat(total).div_(self.sample.n)
        return mean, torch.linalg.vector_norm(mean, dtype=torch.float64) ** 2, torch.cat(squares)

    def pull(self, size: int | None) -> Tensor:
        """sum h_i (g_i - gbar), by one backward pass through the a and b of all layers: (p,)."""
        whole = self.sample.n <= (size or self.size)
        G = None if whole else self._mean(size)
        pulled, squares = 0.0, {}
        for part, found in self.chunks(size, create_graph=True):
            pulled = pulled + self._pull(part, found, G)
            squares |= self._squares(part, found) if self.sample.known else {}
        if self.copy.verified and self.sample.known:  # second derivatives, too, are torch's own
            self._check_norms(torch.stack([squares[number] for number in self.copy.pair]))
        elif self.copy.verified:
            self._check_products()
        return pulled

    def _squares(self, part: Sample, found: list[Use]) -> dict[int, Tensor]:
        """|g|² of those of the pair that are in a chunk, by their numbers."""
        numbers = [number for number in self.copy.pair if number in part.numbers]
        rows = [number - part.numbers[0] for number in numbers]
        few = [replace(use, a=use.a[rows], b=use.b[rows]) for use in found] if rows else []
        return dict(zip(numbers, sum(use.sums()[0] for use in few), strict=True)) if rows else {}

    def _check_norms(self, squares: Tensor) -> None:
        """The |g|² of the pair are those of the loop."""
        norms = [torch.stack([piece.norm() for piece in self.copy.gradient(k)]).norm() for k in (0, 1)]
        if not close(squares.sqrt().to(self.sample.dtype), torch.stack(norms)):
            raise Unfit

    def _mean(self, size: int | None) -> dict[int, Tensor]:
        """gbar by plain backward passes, by the id of the parameter."""
        total: dict[int, Tensor] = {}
        for part in self._parts(size):
            pieces = backward(part.losses().sum(), part.theta, materialize_grads=True)
            for theta, piece in zip(part.theta, pieces, strict=True):
                total[id(theta)] = total.get(id(theta), 0.0) + piece
        return {key: g / self.sample.n for key, g in total.items()}

    def _pull(self, part: Sample, found: list[Use], G: dict[int, Tensor] | None) -> Tensor:
        """The part's share; without G, the part is all there is."""
        pairs = []
        for use in found:
            mean = [s / part.n for s in use.total()] if G is None else [G[id(t)] for t in trainable(use.layer)]
            q_a, q_b = use.cotangents(mean)
            pairs += [(x, q) for x, q in ((use.a, q_a), (use.b, q_b)) if x.requires_grad]
        if not pairs:  # one layer, and a loss linear in its outputs
            return part.theta[0].new_zeros(part.p)
        xs, qs = zip(*pairs, strict=True)
        parts = backward(xs, part.theta, qs, materialize_grads=True)
        return torch.cat([piece.reshape(-1) for piece in parts])

    def _check_products(self) -> None:
        """With the first of the pair in place of gbar, h (g - gbar) of the second is all that is left."""
        theta, pair = self.sample.theta, self.sample.part(self.copy.pair)
        first, other = self.copy.gradient(0), self.copy.gradient(1, create_graph=True)
        G = {id(parameter): g for parameter, g in zip(theta, first, strict=True)}
        ours = self._pull(pair, self._uses(pair, create_graph=True)[1], G).detach()
        loop = torch.zeros_like(ours)
        curved = [(h, (h - g).detach()) for g, h in zip(first, other, strict=True) if h.requires_grad]
        if curved:  # unless the loss is linear
            h, along = zip(*curved, strict=True)
            loop = torch.cat([part.reshape(-1) for part in backward(h, theta, along, materialize_grads=True)])
        if not close(ours, loop):
            raise Unfit

    def gram(self, size: int | None) -> Tensor:
        """All products g_i . g_j: (n, n)."""
        features: dict[Layer, list] = {}
        for _, found in self.chunks(size):
            for use in found:
                features.setdefault(use.layer, []).append(use.features())
        K = self.sample.theta[0].new_zeros(self.sample.n, self.sample.n)
        for layer, pairs in features.items():
            _add_products(K, *map(_whole, zip(*pairs, strict=True)), bias=len(trainable(layer)) > 1)
        _mirror(K)
        if self.copy.verified:
            pair = self.copy.pair
            rows = [[piece.reshape(-1) for piece in self.copy.gradient(k)] for k in range(len(pair))]
            found = [(j, k) for j in range(len(pair)) for k in range(j + 1)]
            loop = torch.stack([sum(map(torch.dot, rows[j], rows[k])) for j, k in found])
            if not close(torch.stack([K[pair[j], pair[k]] for j, k in found]), loop):
                raise Unfit
        return K

    def chunks(self, size: int | None, create_graph: bool = False) -> Iterator[tuple[Sample, list[Use]]]:
        """Chunks of examples, and the uses of the layers, which saw what the copy's did."""
        if (size or self.size) == 1:
            self.copy.check_together()
        for part in self._parts(size):
            chunk, found = self._uses(part, create_graph)
            if not self.copy.agrees(chunk):
                raise Unfit
            yield part, found

    def _parts(self, size: int | None) -> Iterator[Sample]:
        return (in_layout(part, self.layers) for part in self.sample.parts(size or self.size))

    def _uses(self, part: Sample, create_graph: bool) -> tuple[Pass, list[Use]]:
        """A forward pass, and the derivatives by the layers' outputs; the parameters' are not computed."""
        chunk = recorded(part, self.layers)
        if chunk.signature != self.copy.layers or reaches(chunk.losses, self.own, chunk.calls):
            raise Unfit
        check_finite("the loss", chunk.losses.detach(), part.numbers)
        if create_graph:
            check_second_derivatives(chunk.losses)
        edges = [call.output for call in chunk.calls]
        how = {"retain_graph": True, "allow_unused": True}
        b = backward(chunk.losses.sum(), edges, create_graph=create_graph, **how)
        if self.copy.verified and not self.sample.known:
            weights = _weights(part.n, self.sample)
            weighted = backward(weights @ chunk.losses, edges, **how)
            if not all(_own(d, w, weights) for d, w in zip(b, weighted, strict=True)):
                raise Unfit
        return chunk, [self._use(call, d) for call, d in zip(chunk.calls, b, strict=True)]

    def _use(self, call: Call, b: Tensor | None) -> Use:
        """The layer's inputs, as they were at the call, and the derivatives, zero where no loss depends on them."""
        b = torch.zeros(call.shape, dtype=call.a.dtype, device=call.a.device) if b is None else b
        if call.a._version != call.version or {call.a.dtype, b.dtype} != {self.sample.dtype}:
            raise Unfit
        return Use(call.layer, call.a, b)

    def _flat(self, total: dict[int, Tensor]) -> Tensor:
        return torch.cat([total[id(theta)].reshape(-1) if id(theta) in total else torch.zeros_like(theta).reshape(-1)
                          for theta in self.sample.theta])  # fmt: skip


def _weights(n: int, sample: Sample) -> Tensor:
    """Random numbers in (0, 1), the same in every call: (n,)."""
    random = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    return random.to(sample.device, sample.dtype)


def _own(b: Tensor | None, weighted: Tensor | None, weights: Tensor) -> bool:
    """Whether a row of a layer's outputs counts in the loss of its own example only.

    The derivative of the sum of the losses by that row is then that of one loss, and with weights on the losses it is
    multiplied by the weight of that one.
    """
    if b is None or weighted is None:
        return b is weighted
    return close(weighted, b.detach() * weights.reshape(-1, *[1] * (b.ndim - 1)))


def _whole(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The parts of a sample in one, without a copy of the only one."""
    return parts[0] if len(parts) == 1 or parts[0] is None else torch.cat(parts)


def _blocks(n: int) -> list[slice]:
    """Of the rows of a Gram matrix."""
    return slices(n, max(64, -(-n // BLOCKS)))


def _add_products(K: Tensor, U: Tensor, V: Tensor | None, bias: bool) -> None:
    """Add the (u_i . u_j + bias)(v_i . v_j), or u_i . u_j, in blocks on the diagonal and below it."""
    for rows in _blocks(len(K)):
        before, products = slice(0, rows.stop), U[rows] @ U[: rows.stop].T
        if V is not None:
            products += bias
            products *= V[rows] @ V[before].T
        K[rows, before] += products


def _mirror(K: Tensor) -> None:
    """What is above the diagonal, from what is below."""
    for rows in _blocks(len(K)):
        K[: rows.start, rows] = K[rows, : rows.start].T
        corner = K[rows, rows].tril()
        K[rows, rows] = corner + corner.tril(-1).T


def _add(total: dict[int, Tensor], layer: Layer, sums: list[Tensor]) -> None:
    """Add to the totals, in float64 from the second chunk on."""
    for theta, value in zip(trainable(layer), sums, strict=True):
        known = total.get(id(theta))
        total[id(theta)] = value if known is None else known.double().add_(value)
