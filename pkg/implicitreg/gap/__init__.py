"""Part II, what a step does to the generalization gap."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = [
    "drift",
    "gaussian",
    "moments",
    "one_data_set",
    "one_step",
    "onestep",
    "penalties",
    "precondition",
    "training_sets",
    "variance",
]

if TYPE_CHECKING:
    from implicitreg.gap import gaussian, one_data_set, onestep, penalties, precondition, training_sets
    from implicitreg.gap.onestep import moments, one_step, variance
    from implicitreg.gap.training_sets import drift
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
        {"drift": "training_sets", "moments": "onestep", "one_step": "onestep", "variance": "onestep"},
        torch=["one_data_set", "onestep", "penalties", "precondition", "training_sets"],
    )
