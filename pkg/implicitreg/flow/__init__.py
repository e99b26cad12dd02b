"""Part I, where gradient flow goes."""

from implicitreg._lazy import attach

__getattr__, __dir__ = attach(
    __name__, ["diagonal", "factorization", "geometry", "homogeneous", "incremental", "maxmargin", "minnorm", "neuron"]
)
