"""Some of the examples once more, in another order and in other company: what tells whether examples interact."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, cycle, pairwise
from typing import Any

import torch
from implicitreg.gradstats._calls import Pass, backward, in_layout, plain_layers, recorded, recording
from implicitreg.gradstats._layers import Layer
from implicitreg.gradstats._sample import Sample, check_finite, entered
from torch import Tensor

EXAMPLES = 64  # in a copy
FEW = 32  # up to here all come alone
ALONE, SIZES = 10, (18, 36)  # so many of more do, and the others come in parts of these sizes
VECTORS, IMAGES = 256, 64  # examples at a time where the copy is compared with batches of the whole sample


@dataclass(frozen=True, eq=False)
class Seen:
    """What a forward pass shows of some examples; the first axis counts them.

    ``outputs`` and ``marks``, one combination of the inputs of every layer, are None where there is not one row an
    example.
    """

    losses: Tensor
    outputs: Tensor | None
    marks: Tensor | None

    def at(self, rows: Any) -> Seen:
        return Seen(*(None if value is None else value[rows] for value in (self.losses, self.outputs, self.marks)))


@dataclass(frozen=True, eq=False)
class Copy:
    """Examples of a sample (their numbers, in order), and what was seen of them.

    ``layers`` are those that were called, with the shapes of one example's inputs and outputs, or None where that
    differed between the parts; ``pair`` are two examples, or the only one, for the loop, and ``losses`` those of each
    alone; ``verified`` says whether the call asks for it. Of a known model these two are all, and ``company`` are those
    with which the loss is tried. With a known loss, too, nothing is left to compare.
    """

    sample: Sample
    numbers: list[int]
    seen: Seen
    layers: list[tuple[Layer, torch.Size, torch.Size]] | None
    pair: list[int]
    losses: list[Tensor]
    verified: bool
    company: list[int]

    def agrees(self, other: Pass) -> bool:
        """Whether the layers saw the same of a chunk's examples; an error where the losses are others."""
        self._check_loss(other)
        here = self._within(other.part)
        if here.start == here.stop:
            return True
        numbers = self.numbers[here]
        ours, theirs = seen([other], _places(numbers, other)), self.seen.at(here)
        check_alone(numbers, ours, theirs)
        return ours.marks is not None and theirs.marks is not None and _near(ours.marks, theirs.marks)

    def check_together(self) -> None:
        """An error where the losses of these examples are others in batches of all."""
        for part in self.sample.parts(VECTORS if self.sample.inputs.ndim <= 2 else IMAGES):
            if any(number in part.numbers for number in (*self.numbers, *self.company)):
                self.agrees(recorded(part, []))

    def _check_loss(self, other: Pass) -> None:
        """An error where the loss of a chunk's outputs is another one in other company."""
        numbers = [number for number in self.company if number in other.part.numbers]
        if not numbers:
            return
        few, rows = self.sample.part(numbers), _places(numbers, other)
        written = other.outputs._version > 0  # perhaps by the loss
        outputs = few.model(few.inputs) if written else other.outputs[rows]
        losses = torch.cat([few.losses_of(outputs[cut], few.targets[cut]) for cut in _cuts(few.n)])
        batch, alone = (Seen(found.detach(), outputs.detach(), None) for found in (other.losses[rows], losses))
        check_alone(numbers, batch, alone)

    def _within(self, part: Sample) -> slice:
        """The copy's examples that are in a part of the sample."""
        return slice(bisect_left(self.numbers, part.numbers[0]), bisect_right(self.numbers, part.numbers[-1]))

    def gradient(self, k: int, create_graph: bool = False) -> tuple[Tensor, ...]:
        """That of the pair's k-th by every parameter, from a pass of one example."""
        how = {"retain_graph": True, "create_graph": create_graph, "materialize_grads": True}
        return backward(self.losses[k], self.sample.theta, **how)


def copied(sample: Sample, verify: bool | str) -> Copy:
    """A copy of at most ``EXAMPLES`` examples, of all with "full", and of one without ``verify``.

    The first of them come alone, the others in the order of the sums of their inputs, so that the parts are no small
    images of the whole. Of a known model two are enough, and the loss is tried with the others unless it is known.
    """
    order = torch.randperm(sample.n, generator=torch.Generator().manual_seed(0), device="cpu").tolist()
    order = order[: {True: 2 if sample.known else EXAMPLES, False: 1, "full": sample.n}[verify]]
    if len(order) > ALONE:
        sums = sample.inputs[order[ALONE:]].reshape(len(order) - ALONE, -1).sum(1).tolist()
        order[ALONE:] = [i for _, i in sorted(zip(sums, order[ALONE:], strict=True))]
    order, company = (order[:2], [] if sample.known else order) if sample.apart else (order, [])
    layers = plain_layers(sample.model)
    whole = in_layout(sample.part(order), layers)
    found, signatures, losses, passes = [], [], [], []
    with recording(layers, edges=False) as calls:
        for rows in _cuts(len(order)):
            part = whole.part(rows)
            passes.append(Pass(part, *part.forward(), calls.copy()))
            calls.clear()
            losses += [passes[-1].losses[0]] if rows.stop <= 2 else []
            if rows.stop == len(order) or sum(one.part.n for one in passes) >= EXAMPLES:  # no more are held
                found.append(seen(passes))
                signatures += [one.signature for one in passes]
                passes = []
    shown = Seen(*(_joined([getattr(some, name) for some in found]) for name in ("losses", "outputs", "marks")))
    check_finite("the loss", shown.losses, order)
    back = sorted(range(len(order)), key=order.__getitem__)
    return Copy(
        replace(sample, written=_written(whole, sample.part(order))),
        [] if sample.known else sorted(order),
        shown.at(back),
        signatures[0] if all(other == signatures[0] for other in signatures) else None,
        order[:2],
        losses,
        bool(verify),
        company,
    )


def _written(part: Sample, before: Sample) -> bool:
    """Whether a part's own inputs or targets were written into, also by ways that torch does not count."""
    both = (part.inputs, before.inputs), (part.targets, before.targets)
    return any(ours._version > 0 or not torch.equal(ours, theirs) for ours, theirs in both)


def check_examples(model: Any, loss: Any, inputs: Any, targets: Any, *, least: int = 1) -> None:
    """An error where the arguments are no sample of examples that do not interact."""
    with entered(model, loss, inputs, targets, least=least) as sample:
        copied(sample, verify=True).check_together()


def _places(numbers: list[int], one: Pass) -> Tensor:
    """Of examples (their numbers) in a pass."""
    return torch.tensor(numbers, device=one.losses.device) - one.part.numbers[0]


def _cuts(k: int) -> list[slice]:
    """The parts into which k examples are cut."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes(k), initial=0))]


def sizes(k: int) -> list[int]:
    """Of the parts into which k examples are cut."""
    alone = k if k <= FEW else ALONE
    found, rest, pattern = [1] * alone, k - alone, cycle(SIZES)
    while rest:
        found.append(min(rest, next(pattern)))
        rest -= found[-1]
    return found


def seen(passes: list[Pass], rows: Any = slice(None)) -> Seen:
    """What passes show of these rows of each."""
    losses = torch.cat([one.losses.detach()[rows] for one in passes])
    outputs = _joined([_by_row(one, rows) for one in passes])
    layers, marks = passes[0].signature, None
    if layers and all(one.signature == layers for one in passes):
        inputs = [[one.calls[k].a for one in passes] for k in range(len(layers))]
        marks = torch.stack([_mark(torch.cat([a.detach()[rows] for a in of_layer])) for of_layer in inputs], 1)
    return Seen(losses, outputs, marks)


def _by_row(one: Pass, rows: Any) -> Tensor | None:
    """These rows of the outputs, where they have one an example."""
    outputs = one.outputs
    regular = isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.shape[:1] == (one.part.n,)
    return outputs.detach()[rows] if regular and outputs.numel() else None


def check_alone(numbers: list[int], batch: Seen, alone: Seen) -> None:
    """The same outputs and losses in two companies, or there is no loss of one example."""
    size, same = 1.0, True
    if batch.outputs is not None and alone.outputs is not None and batch.outputs.shape == alone.outputs.shape:
        size, same = alone.outputs.abs().max(), _near(batch.outputs.flatten(), alone.outputs.flatten())
    rounding = 100 * torch.finfo(alone.losses.dtype).eps * size  # which is all there is of a loss that is nearly zero
    if not (same and _near(batch.losses, alone.losses, rounding)):
        k = int((batch.losses - alone.losses).abs().argmax())
        raise ValueError(
            f"the loss of example {numbers[k]} is {float(batch.losses[k]):.6g} in one batch and "
            f"{float(alone.losses[k]):.6g} in another: expected equal numbers; something couples the examples (a "
            "statistic of the batch, a contrastive loss, a division by the batch size) or is random (dropout, noise)"
        )


def _near(a: Tensor, b: Tensor, extra: float | Tensor = 0.0) -> bool:
    """Half of the digits of the largest entry of every column agree, up to ``extra``."""
    return bool(((a - b).abs().amax(0) <= torch.finfo(b.dtype).eps ** 0.5 * b.abs().amax(0) + extra).all())


def _joined(values: list[Tensor | None]) -> Tensor | None:
    """One behind the other, or None where one is missing or of another shape."""
    alike = all(value is not None for value in values) and len({value.shape[1:] for value in values}) == 1
    return torch.cat(values) if alike else None


def _mark(a: Tensor) -> Tensor:
    """A combination of the entries of every row, which tells rows apart: (k,)."""
    a = a.flatten(1)
    return a @ _weights(a.shape[1], a.dtype, a.device)


@lru_cache(maxsize=16)
def _weights(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(1, size + 1, dtype=dtype, device=device).sin_()
