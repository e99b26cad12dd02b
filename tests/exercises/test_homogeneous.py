"""Exercises on homogeneous networks: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check


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
    "homogeneous-degree": lambda theta, q, g: np.linalg.norm(theta) * np.linalg.norm(g) / q,
    "homogeneous-share": lambda a, b, loss: share(a, b, loss) / 2,
    "homogeneous-balance": lambda w, width: balance(w, width, first=1.0),
    "homogeneous-winner": lambda u, z, m: np.argmax(z),
}


def test_short_layers_must_have_the_right_predictor():
    assert not check("homogeneous-balance", lambda w, width: balance(-w, width))
