"""Part IV, noise you can choose: stochastic gradients as random weights on the examples."""

from implicitreg._lazy import attach

__getattr__, __dir__ = attach(__name__, ["cumulants", "escape", "leastsquares", "msgd", "replicas", "sampling"])
