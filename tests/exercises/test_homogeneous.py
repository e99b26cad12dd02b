"""Exercises on homogeneous networks: right answers are right, and the likely mistakes are not."""

import numpy as np


def share(a, b, loss):
    q, c = np.log(1 / loss), a**2 - b**2
    return 2 * q / np.sqrt(c**2 + 4 * q**2)


def balance(w, width, first=0.5):
    """Layers of norms |w|^first and |w|^(1 - first), along one hidden unit."""
    W1, W2, size = np.zeros((width, len(w))), np.zeros(width), np.linalg.norm(w)
    W1[-1], W2[-1] = w / size ** (1 - first), size ** (1 - first)
    return np.r_[W1.ravel(), W2]


RIGHT = {
    "homogeneous-degree": lambda theta, q, g: theta @ g / q,
    "homogeneous-share": share,
    "homogeneous-balance": balance,
    "homogeneous-winner": lambda u, z, m: np.argmax(z * u ** (m - 2)),
}
WRONG = {
    "homogeneous-degree": [  # Cauchy-Schwarz; upside down; always two layers; the norms of theta alone
        lambda theta, q, g: np.linalg.norm(theta) * np.linalg.norm(g) / q,
        lambda theta, q, g: q / (theta @ g),
        lambda theta, q, g: 2.0,
        lambda theta, q, g: theta @ g,
    ],
    "homogeneous-share": [  # not of the largest margin; the start forgotten; the loss for the output; the sum for c
        lambda a, b, loss: share(a, b, loss) / 2,
        lambda a, b, loss: 1.0,
        lambda a, b, loss: 2 * loss / np.sqrt((a**2 - b**2) ** 2 + 4 * loss**2),
        lambda a, b, loss: 2 * np.log(1 / loss) / np.hypot(a**2 + b**2, 2 * np.log(1 / loss)),
        lambda a, b, loss: 2 * a * b / (a**2 + b**2),
    ],
    "homogeneous-balance": [  # all in one layer; in the other; the wrong predictor; twice as long
        lambda w, width: balance(w, width, first=1.0),
        lambda w, width: balance(w, width, first=0.0),
        lambda w, width: balance(-w, width),
        lambda w, width: balance(w, width) * 2**0.5,
        lambda w, width: np.r_[balance(w, width)[:-width] * 2, balance(w, width)[-width:] / 2],
    ],
    "homogeneous-winner": [  # the example alone; its product with the start, its square, its m-th power; the first
        lambda u, z, m: np.argmax(z),
        lambda u, z, m: np.argmax(u * z),
        lambda u, z, m: np.argmax(z * u**2),
        lambda u, z, m: np.argmax(z * u**m),
        lambda u, z, m: np.argmax(z * u ** (m - 1)),
        lambda u, z, m: np.argmax(u),
        lambda u, z, m: np.argmin(z * u ** (m - 2)),
        lambda u, z, m: 0,
    ],
}
