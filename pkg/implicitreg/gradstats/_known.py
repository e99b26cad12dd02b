"""What is known to keep the examples apart, to draw nothing and to change nothing, as it is made of torch's own parts.

Everything else is tried.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules

LAYERS = {
    nn.AvgPool2d, nn.Conv2d, nn.ELU, nn.Flatten, nn.GELU, nn.Identity, nn.LeakyReLU, nn.Linear, nn.MaxPool2d, nn.ReLU,
    nn.Sequential, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Tanh,
}  # fmt: skip
LOSSES = {F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss}
SETTINGS = {"reduction", "ignore_index", "label_smoothing"}  # of these, which concern one example at a time
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def known_model(model: nn.Module, inputs: Tensor) -> bool:
    """Whether it is torch's own layers in a row, which compute every row (first axis) from the same row.

    What has hooks, another ``forward`` or a class of its own is not known.
    """
    modules = list(model.modules())
    images = any(type(module) is nn.Conv2d for module in modules)
    rows = inputs.ndim == 4 if images else inputs.ndim > 1  # or the first axis would be a layer's channels or units
    return rows and all(map(_layer, modules)) and not any(getattr(of_all_modules, "_global" + name) for name in HOOKS)


def known_loss(loss: Any) -> bool:
    """Whether it is one of torch's own that computes the loss of each row."""
    if type(loss) is partial:
        settings = loss.keywords
        own = not loss.args and settings.keys() <= SETTINGS and any(loss.func is known for known in LOSSES)
        return own and settings.get("reduction") == "none"
    return type(loss) in LOSSES and _plain(loss) and loss.reduction == "none" and loss.weight is None


def _layer(module: nn.Module) -> bool:
    whole = type(module) is not nn.Flatten or (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in LAYERS and whole and _plain(module)


def _plain(module: nn.Module) -> bool:
    return "forward" not in vars(module) and not any(getattr(module, name) for name in HOOKS)
