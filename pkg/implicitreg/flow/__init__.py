"""Part I, where gradient flow goes."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = ["diagonal", "factorization", "geometry", "homogeneous", "incremental", "maxmargin", "minnorm", "neuron"]

if TYPE_CHECKING:
    from implicitreg.flow import diagonal, factorization, geometry, homogeneous, incremental, maxmargin, minnorm, neuron
else:
    __getattr__, __dir__ = attach(__name__, __all__)
