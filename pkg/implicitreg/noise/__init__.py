"""Part IV, noise you can choose: stochastic gradients as random weights on the examples."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = ["cumulants", "escape", "leastsquares", "msgd", "replicas", "sampling"]

if TYPE_CHECKING:
    from implicitreg.noise import cumulants, escape, leastsquares, msgd, replicas, sampling
else:
    __getattr__, __dir__ = attach(__name__, __all__, torch=["escape", "msgd", "replicas"])
