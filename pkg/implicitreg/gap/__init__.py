"""Part II, what a step does to the generalization gap."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = ["drift", "gaussian", "moments", "one_step", "onestep", "precondition", "schedules", "variance"]

if TYPE_CHECKING:
    from implicitreg.gap import gaussian, onestep, precondition, schedules
    from implicitreg.gap.onestep import moments, one_step, variance
    from implicitreg.gap.schedules import drift
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
        {"drift": "schedules", "moments": "onestep", "one_step": "onestep", "variance": "onestep"},
        torch=["onestep", "precondition", "schedules"],
    )
