"""Many copies at once, with standard errors: of networks, and of particles on small landscapes."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = ["Estimate", "estimate", "flatten", "gradients", "losses", "networks", "particles"]

if TYPE_CHECKING:
    from implicitreg.ensembles import networks, particles
    from implicitreg.ensembles._estimate import Estimate, estimate
    from implicitreg.ensembles.networks import flatten, gradients, losses
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
        {
            "Estimate": "_estimate",
            "estimate": "_estimate",
            "flatten": "networks",
            "gradients": "networks",
            "losses": "networks",
        },
        torch=["networks", "particles"],
    )
