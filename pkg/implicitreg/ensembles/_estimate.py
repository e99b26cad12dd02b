"""A mean over independent draws and its standard error, for NumPy arrays and for tensors."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over independent draws and its standard error, shaped like one draw, of the kind of the draws."""

    mean: np.ndarray | torch.Tensor
    se: np.ndarray | torch.Tensor
    __repr__ = brief


@_validate.in_range
def estimate(draws: np.ndarray | torch.Tensor) -> Estimate:
    r"""Mean of independent draws with its standard error,

    .. math:: \bar x = \frac1R \sum_{r \le R} x_r, \qquad
              \mathrm{se} = \sqrt{\frac{1}{R(R-1)} \sum_{r \le R} (x_r - \bar x)^2}.

    Parameters
    ----------
    draws : ndarray or tensor (R, …)
        At least two draws, finite floating-point numbers.

    Returns
    -------
    Estimate
        ``mean`` and ``se``, in the units of the draws: arrays for an array, tensors for a tensor.

    Raises
    ------
    ValueError
        If there are fewer than two draws or one is not finite.
    TypeError
        If the draws are neither an array nor a tensor of floating-point numbers.

    Examples
    --------
    >>> e = estimate(np.array([0.0, 2.0]))
    >>> float(e.mean), float(e.se)
    (1.0, 1.0)
    """
    tensor = _is_tensor(draws)
    if not (draws.is_floating_point() if tensor else isinstance(draws, np.ndarray) and draws.dtype.kind == "f"):
        kind = f"of {draws.dtype}" if hasattr(draws, "dtype") else f"a {type(draws).__name__}"
        raise TypeError(f"draws is {kind}: expected an array or a tensor of floating-point numbers")
    if tensor and (draws.is_meta or draws.is_sparse):
        raise TypeError(f"draws has layout {draws.layout} on {draws.device}: expected a dense tensor")
    if not tensor:
        draws = _validate.array("draws", draws)
    if draws.ndim == 0 or len(draws) < 2 or 0 in draws.shape:
        raise ValueError(f"draws has shape {tuple(draws.shape)}: expected at least two draws, (R, …) with R >= 2")
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(draws.detach().sum() if tensor else draws.sum())  # one pass, as for networks
    if not np.isfinite(total):
        raise ValueError("draws holds NaN or infinite numbers: expected finite numbers")
    spread = draws.std(0) if tensor else draws.std(0, ddof=1)
    return Estimate(draws.mean(0), spread / len(draws) ** 0.5)


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # whoever holds a tensor has loaded it
    return torch is not None and isinstance(value, torch.Tensor)
