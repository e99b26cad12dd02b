"""Training with chosen noise on images: a small convolutional network, 20 % of the labels wrong.

Seeds draw training and test images, wrong labels and initial weights, which all methods share. Learning rate, batch
sizes and number of steps are the same for all methods, but for gradient descent at other rates. ``summary`` has the end
of training, paired differences, curves, and the best test accuracy along each curve (stopping with hindsight).

On a GPU the setting is that of a prototype, chosen there on MNIST among five by SGD's test accuracy with the seeds 0 to
3, for which reason seeds begin at 10 here. On a CPU there are fewer images and steps, at the same learning rate and
batch sizes; that was fixed before anything was seen.

References
----------
Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Figure 1 (a): Fashion-MNIST, 1000 images, raw pixels,
right labels, 10 000 steps.
"""

from __future__ import annotations

from typing import Any

from implicitreg.experiments._noise_on_images import METHODS, measure, summary, units

__all__ = ["FOR_DATA", "FOR_DEVICE", "QUICK", "SETTINGS", "measure", "summary", "units"]

SETTINGS: dict[str, Any] = {
    "data": "digits", "split": "all", "network": "small_conv", "largest": 32, "train": 300, "test": 1400, "wrong": 0.2,
    "eta": 0.03, "b": 10, "B": 100, "steps": 2000, "every": 100, "rates": [0.1, 0.3], "methods": list(METHODS),
    "precision": "float32", "seeds": [10, 11, 12],
}  # fmt: skip
FOR_DEVICE = {"cuda": {"train": 1000, "steps": 4000, "every": 200, "seeds": list(range(10, 20))}}
FOR_DATA = {
    "digits": {"train": 300},
    "mnist": {"split": "test", "test": 3000}, "fashion_mnist": {"split": "test", "test": 3000},
    "fashion_mnist_900": {"train": 300, "test": 600},
}  # fmt: skip
QUICK = {"train": 100, "test": 200, "B": 50, "steps": 20, "every": 10, "seeds": [10, 11], "rates": [0.1]}
