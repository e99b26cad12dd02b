"""Some of the examples once more, in another order and in other company: what tells whether examples interact."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, cycle, pairwise
from typing import Any

import torch
from implicitreg.gradstats._calls import Pass, plain_layers, recorded
from implicitreg.gradstats._layers import Layer
from implicitreg.gradstats._sample import Sample, entered, near
from torch import Tensor

EXAMPLES = 64  # in a copy
ALONE, SIZES = 8, (19, 37)  # so many examples come alone, the others in parts of these sizes
BATCH = 256  # examples at a time where the copy is compared with a batch of its own


@dataclass(frozen=True, eq=False)
class Seen:
    """What a forward pass shows of some examples; the first axis counts them.

    ``outputs`` and ``marks``, one combination of the inputs of every layer, are None where there is not one row an
    example.
    """

    losses: Tensor
    outputs: Tensor | None
    marks: Tensor | None

    def of(self, change: Callable[[Tensor], Tensor]) -> Seen:
        return Seen(*(None if value is None else change(value) for value in (self.losses, self.outputs, self.marks)))


@dataclass(frozen=True, eq=False)
class Copy:
    """Examples of a sample (their numbers, in order), and what was seen of them.

    ``layers`` are those that were called, with the shapes of one example's inputs and outputs, or None where that
    differed between the parts; ``pair`` are two examples, or the only one, for the loop; ``verified`` says whether
    the call asks for it.
    """

    sample: Sample
    numbers: list[int]
    seen: Seen
    layers: list[tuple[Layer, torch.Size, torch.Size]] | None
    pair: list[int]
    verified: bool

    def agrees(self, other: Pass) -> bool:
        """Whether the layers saw the same of a chunk's examples; an error where the losses are others."""
        first, last = other.part.numbers[0], other.part.numbers[-1]
        here = slice(bisect_left(self.numbers, first), bisect_right(self.numbers, last))
        rows = [number - first for number in self.numbers[here]]
        if not rows:
            return True
        ours, theirs = seen(other, rows), self.seen.of(lambda value: value[here])
        check_alone(self.numbers[here], ours, theirs)
        if ours.marks is None or theirs.marks is None:
            return False
        return all(map(near, ours.marks.unbind(1), theirs.marks.unbind(1)))

    def check_together(self) -> None:
        """An error where the losses of these examples are others in a batch of theirs."""
        for start in range(0, len(self.numbers), BATCH):
            here = slice(start, start + BATCH)
            batch = recorded(self.sample.part(self.numbers[here]), [])
            check_alone(self.numbers[here], seen(batch), self.seen.of(lambda value, here=here: value[here]))


def copied(sample: Sample, verify: bool | str) -> Copy:
    """A copy of at most ``EXAMPLES`` examples, of all with "full", and of one without ``verify``."""
    order = torch.randperm(sample.n, generator=torch.Generator().manual_seed(0)).tolist()
    order = order[: {True: EXAMPLES, False: 1, "full": sample.n}[verify]]
    found = plain_layers(sample.model)
    stops = accumulate(sizes(len(order)), initial=0)
    passes = [recorded(sample.part(order[start:stop]), found) for start, stop in pairwise(stops)]
    back = sorted(range(len(order)), key=order.__getitem__)
    layers = [one.signature for one in passes]
    return Copy(
        replace(sample, written=any(_written(sample, one.part) for one in passes)),
        sorted(order),
        _joined([seen(one) for one in passes]).of(lambda value: value[back]),
        layers[0] if all(other == layers[0] for other in layers) else None,
        order[:2],
        bool(verify),
    )


def check_examples(model: Any, loss: Any, inputs: Any, targets: Any, *, least: int = 1) -> None:
    """An error where the arguments are no sample of examples that do not interact."""
    with entered(model, loss, inputs, targets, least=least) as sample:
        copied(sample, verify=True).check_together()


def sizes(k: int) -> list[int]:
    """Of the parts into which k examples are cut."""
    found, rest, pattern = [1] * min(k, ALONE), max(0, k - ALONE), cycle(SIZES)
    while rest:
        found.append(min(rest, next(pattern)))
        rest -= found[-1]
    return found


def seen(one: Pass, rows: Any = slice(None)) -> Seen:
    """What a pass shows of these rows."""
    outputs, n = one.outputs, one.part.n
    by_row = isinstance(outputs, Tensor) and outputs.ndim > 0 and len(outputs) == n and outputs.numel() > 0
    marks = [_mark(call.a.detach()[rows]) for call in one.calls] if one.signature else None
    return Seen(one.losses.detach()[rows], outputs.detach()[rows] if by_row else None,
                torch.stack(marks, 1) if marks else None)  # fmt: skip


def check_alone(numbers: list[int], batch: Seen, alone: Seen) -> None:
    """The same outputs and losses in two companies, or there is no loss of one example."""
    extra = 1.0
    if batch.outputs is not None and alone.outputs is not None and batch.outputs.shape == alone.outputs.shape:
        extra = float(alone.outputs.abs().max())
        same = near(batch.outputs, alone.outputs)
    else:
        same = True
    rounding = 100 * torch.finfo(alone.losses.dtype).eps * extra  # which is all there is of a loss that is nearly zero
    if not (same and near(batch.losses, alone.losses, rounding)):
        k = int((batch.losses - alone.losses).abs().argmax())
        raise ValueError(
            f"the loss of example {numbers[k]} is {float(batch.losses[k]):.6g} in one batch and "
            f"{float(alone.losses[k]):.6g} in another: expected equal numbers; something couples the examples (a "
            "statistic of the batch, a contrastive loss, a division by the batch size) or is random (dropout, noise)"
        )


def _joined(parts: list[Seen]) -> Seen:
    def cat(values: list[Tensor | None]) -> Tensor | None:
        if any(value is None for value in values) or len({value.shape[1:] for value in values}) > 1:
            return None
        return torch.cat(values)

    return Seen(*(cat([getattr(part, name) for part in parts]) for name in ("losses", "outputs", "marks")))


def _mark(a: Tensor) -> Tensor:
    """A combination of the entries of every row, which tells rows apart: (k,)."""
    a = a.flatten(1)
    return a @ torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device).sin()


def _written(sample: Sample, part: Sample) -> bool:
    """Whether the part's inputs or targets, which are copies, were changed."""
    pairs = ((sample.inputs, part.inputs), (sample.targets, part.targets))
    return any(copy._version > 0 or not torch.equal(copy, whole[part.numbers]) for whole, copy in pairs)
