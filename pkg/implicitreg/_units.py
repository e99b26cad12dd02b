"""Tensors in units of their own size, which are powers of two: nothing is rounded, nothing overflows when squared."""

from __future__ import annotations

import math

from implicitreg._torch import torch

__all__ = ["over", "unit"]


def unit(*tensors: torch.Tensor) -> float:
    """The power of two just below the largest absolute entry, or at it; 1 where all are 0.

    Examples
    --------
    >>> unit(torch.tensor([3.0]), torch.tensor([-5.0, 0.0]))
    4.0
    """
    largest = max(float(t.detach().abs().max()) for t in tensors)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0


def over(x: torch.Tensor, power: float) -> torch.Tensor:
    """``x / power`` for a power of two, in two steps: the reciprocal of the least numbers is no number of the dtype.

    Examples
    --------
    >>> over(torch.tensor([2.0**-149]), 2.0**-149)
    tensor([1.])
    """
    exponent = 1 - math.frexp(power)[1]
    return x * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)
