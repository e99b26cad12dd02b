"""Training with chosen noise on images: ResNet-18 with group norm.

As `noise_small_conv`. On a CPU images of more than 16 × 16 pixels are averaged over 2 × 2, the network has an eighth of
the width, there are few images and steps, and Langevin dynamics is left out, whose trace costs many times a step here;
learning rate and steps were chosen such that SGD comes to fit the labels with seed 0 on CIFAR-10. The setting for a GPU
is a guess. With batch norm, as in the source, examples would interact, and none of these methods would have the
covariance that it is meant to have (`nets.resnet18`).

References
----------
Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Figures 1 (c) and 2 (b): CIFAR-10, 50 000 images,
b = 100, B = 1000, 100 000 steps, batch norm; Figure 2 (c) has augmentation and weight decay.
"""

from __future__ import annotations

from typing import Any

from implicitreg.experiments._noise_on_images import METHODS, measure, summary, units

__all__ = ["FOR_DATA", "FOR_DEVICE", "QUICK", "SETTINGS", "measure", "summary", "units"]

SETTINGS: dict[str, Any] = {
    "data": "digits", "split": "all", "network": "resnet18", "width": 8, "largest": 16, "train": 200, "test": 1000,
    "wrong": 0.2, "eta": 0.05, "b": 10, "B": 50, "steps": 600, "every": 40, "rates": [0.2],
    "methods": [method for method in METHODS if method != "gld_iso"], "precision": "bfloat16", "seeds": [10, 11, 12],
}  # fmt: skip
FOR_DEVICE = {
    "cuda": {
        "width": 64, "largest": 32, "train": 5000, "test": 5000, "eta": 0.1, "b": 100, "B": 1000, "steps": 1000,
        "every": 50, "rates": [0.3], "wrong": 0.0,
    }
}  # fmt: skip
FOR_DATA = {"digits": {"train": 200, "test": 1000}, "mnist": {"split": "test"}}
QUICK = {"train": 40, "test": 40, "B": 20, "steps": 4, "every": 2, "seeds": [10, 11]}
