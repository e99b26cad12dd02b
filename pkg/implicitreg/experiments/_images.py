"""The images of an experiment as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from implicitreg import _validate, datasets
from implicitreg._brief import brief
from implicitreg._torch import torch


@dataclass(frozen=True, eq=False)
class Population:
    """Images with labels, of which the experiments draw.

    Attributes
    ----------
    inputs : tensor (n, d) or (n, C, H, W)
        float64 in [0, 1], flattened unless asked otherwise.
    targets : tensor (n,)
        int64 labels.
    classes : int
        Number of classes.
    source : str
        What was read, in words.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    classes: int
    source: str
    __repr__ = brief


def population(settings: Mapping[str, Any], device: torch.device, *, flat: bool = True) -> Population:
    """The images that ``settings["data"]`` names, with ``settings["split"]`` and ``settings["limit"]`` where given.

    Parameters
    ----------
    settings : mapping
        ``data`` as in `datasets.load`; ``split`` (default ``"all"``) and ``limit`` (default: no limit) may be absent.
    device : torch.device
        Where the tensors go.
    flat : bool
        Whether an image is a row of numbers or ``(C, H, W)``.

    Returns
    -------
    Population

    Raises
    ------
    ValueError
        As `datasets.load`.

    Examples
    --------
    >>> population({"data": "digits"}, torch.device("cpu")).inputs.shape
    torch.Size([1797, 64])
    """
    if "data" not in _validate.mapping("settings", settings):
        raise ValueError("settings has no entry data: expected the name of a data set")
    flat = _validate.flag("flat", flat)
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device is a {type(device).__name__}: expected a torch.device")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device = {device!r}: expected 'cpu' or 'cuda'") from error
    drawn = datasets.load(settings["data"], split=settings.get("split", "all"), limit=settings.get("limit"))
    inputs = torch.as_tensor(drawn.images, dtype=torch.float64, device=device)
    targets = torch.as_tensor(drawn.labels, device=device)
    return Population(inputs.flatten(1) if flat else inputs, targets, len(drawn.classes), drawn.source)
