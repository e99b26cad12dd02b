"""What training measures: losses and accuracies at the steps where it looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

SHOWN = 12  # rows of the table


@dataclass(frozen=True, eq=False, repr=False)
class History:
    r"""The course of a training run.

    Attributes
    ----------
    step : ndarray (k,)
        After how many steps it was looked, first 0, last all of them.
    train_loss : ndarray (k,)
        :math:`\frac1n\sum_i \ell_i`, *unweighted*, over all training examples, with the model in eval mode.
    train_accuracy : ndarray (k,) or None
        The part of the training examples whose largest output is that of their class; None where the targets are no
        classes.
    test_loss, test_accuracy : ndarray (k,) or None
        The same over the test examples; None without them.
    settings : dict
        With what the run was made, JSON values.
    """

    step: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray | None
    test_loss: np.ndarray | None
    test_accuracy: np.ndarray | None
    settings: Mapping[str, Any]

    def curves(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name."""
        held = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "settings"}
        return {name: values for name, values in held.items() if values is not None}

    def __repr__(self) -> str:
        last = [f"{name.replace('_', ' ')} {values[-1]:.4g}" for name, values in self.curves().items()]
        return f"History({', '.join(last)})"

    def __str__(self) -> str:
        curves = self.curves()
        rows = np.unique(np.linspace(0, len(self.step) - 1, SHOWN).round().astype(int))
        head = "  ".join(f"{name.replace('_', ' '):>14}" for name in curves)
        body = ["  ".join(f"{values[k]:14.5g}" for values in curves.values()) for k in rows]
        settings = ", ".join(f"{key} = {value}" for key, value in self.settings.items() if value is not None)
        return "\n".join([settings, head, *body])


def history(rows: Sequence[Mapping[str, float]], settings: Mapping[str, Any]) -> History:
    """From one mapping a look, all of the same keys."""
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    names = [field.name for field in fields(History) if field.name != "settings"]
    return History(*(arrays.get(name) for name in names), settings=dict(settings))
