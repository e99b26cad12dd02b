"""Part II, what a step does to the generalization gap."""

from implicitreg._lazy import attach

__getattr__, __dir__ = attach(
    __name__,
    ["gaussian", "onestep", "precondition", "schedules"],
    {"drift": "schedules", "moments": "onestep", "one_step": "onestep", "variance": "onestep"},
)
