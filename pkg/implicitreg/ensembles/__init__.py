"""Many copies at once, with standard errors: of networks, and of particles on small landscapes."""

from implicitreg._lazy import attach

__getattr__, __dir__ = attach(
    __name__,
    ["networks", "particles"],
    {
        "Estimate": "_estimate",
        "estimate": "_estimate",
        "flatten": "networks",
        "gradients": "networks",
        "losses": "networks",
    },
)
