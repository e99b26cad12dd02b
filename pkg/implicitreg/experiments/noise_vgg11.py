"""Training with chosen noise on images: VGG-11 without batch norm.

As `noise_small_conv`. On a CPU the network has a quarter of the width, and there are few images and steps; learning
rate and steps were chosen such that SGD comes to fit most labels with seed 0, on MNIST and on CIFAR-10, with 200
images. The setting for a GPU is a guess.

References
----------
Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Figures 1 (b) and 2 (a): SVHN, 25 000 images, b = 100,
B = 1000, 100 000 steps, the learning rate 0.1 divided by 10 after 40 000 and 60 000.
"""

from __future__ import annotations

from typing import Any

from implicitreg.experiments._noise_on_images import METHODS, measure, summary, units

__all__ = ["FOR_DATA", "FOR_DEVICE", "QUICK", "SETTINGS", "measure", "summary", "units"]

SETTINGS: dict[str, Any] = {
    "data": "digits", "split": "all", "network": "vgg11", "width": 16, "largest": 32, "train": 120, "test": 1000,
    "wrong": 0.2, "eta": 0.05, "b": 10, "B": 50, "steps": 600, "every": 40, "rates": [0.15],
    "methods": list(METHODS), "precision": "bfloat16", "seeds": [10, 11, 12],
}  # fmt: skip
FOR_DEVICE = {
    "cuda": {"width": 64, "train": 5000, "test": 5000, "b": 100, "B": 1000, "steps": 2000, "every": 100, "wrong": 0.0}
}
FOR_DATA = {"digits": {"train": 120, "test": 1000}, "mnist": {"split": "test"}}
QUICK = {"width": 1, "train": 40, "test": 40, "B": 20, "steps": 4, "every": 2, "seeds": [10, 11]}
