"""Training with chosen noise on images: ResNet-18 with group norm.

As `noise_small_conv`. On a CPU images are means of 2 × 2 pixels, the network has an eighth of the width, there are few
images and steps, and Langevin dynamics is left out, whose trace costs many times a step here. With batch norm, as in
the source, examples would interact, and none of these methods would have the covariance that it is meant to have
(`nets.resnet18`).

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
    "data": "digits", "split": "all", "network": "resnet18", "width": 8, "shrink": 1, "train": 200, "test": 1000,
    "wrong": 0.2, "eta": 0.1, "b": 10, "B": 50, "steps": 400, "every": 25, "rates": [0.3],
    "methods": [method for method in METHODS if method != "gld_iso"], "precision": "bfloat16", "seeds": [10, 11, 12],
}  # fmt: skip
FOR_DEVICE = {
    "cuda": {"width": 64, "train": 5000, "test": 5000, "b": 100, "B": 1000, "steps": 1000, "every": 50, "wrong": 0.0}
}
FOR_DATA = {"mnist": {"split": "test"}, "cifar10": {"shrink": 2}, "cifar10_jpeg": {"shrink": 2}}
QUICK = {"train": 40, "test": 40, "B": 20, "steps": 4, "every": 2, "seeds": [10, 11]}
