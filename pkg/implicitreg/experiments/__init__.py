"""The runs that take longer than a chapter.

``python -m implicitreg.experiments NAME`` runs one of them and writes ``book/records/NAME.json``; without a name it
lists them.

Each experiment is a module with

``SETTINGS``
    What is run, a dictionary of JSON values with ``"data"`` among them; a key that ends in ``seed`` or ``seeds`` holds
    what seeds the run.
``QUICK``
    What ``--quick`` changes in the settings, so that the run takes seconds.
``FOR_DATA``
    (optional) what other data change in the settings, a dictionary for each data set by the name that `tag` gives it.
``FOR_DEVICE``
    (optional) what another kind of device changes, ``{"cuda": …}``; data change more than it, and ``QUICK`` more still.
``units(settings) -> list[str]``
    The names of independent pieces of work: none needs what another has left, and with ``--jobs`` or ``--dask`` they
    run side by side in processes of their own.
``measure(unit, settings, device) -> dict``
    The results of one piece, JSON values with their standard errors, from nothing but the arguments: whatever is
    random has a generator of its own, seeded by the settings. ``device`` is a `torch.device`.
``summary(results, settings) -> dict``
    (optional) what follows from all pieces; it is added to the results as ``"summary"``.
"""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

NAMES = (
    "drift_slope", "growth", "imitation", "one_step_gap", "preconditioner", "regularized", "tracking",
    "diagram_predictions", "chosen_noise", "noise_small_conv", "noise_vgg11", "noise_resnet18",
)  # fmt: skip

__all__ = [
    "NAMES",
    "chosen_noise",
    "describe",
    "diagram_predictions",
    "drift_slope",
    "growth",
    "imitation",
    "noise_resnet18",
    "noise_small_conv",
    "noise_vgg11",
    "one_step_gap",
    "population",
    "preconditioner",
    "regularized",
    "run",
    "tag",
    "tracking",
]

if TYPE_CHECKING:
    from implicitreg.experiments import (
        chosen_noise,
        diagram_predictions,
        drift_slope,
        growth,
        imitation,
        noise_resnet18,
        noise_small_conv,
        noise_vgg11,
        one_step_gap,
        preconditioner,
        regularized,
        tracking,
    )
    from implicitreg.experiments._images import population
    from implicitreg.experiments._runner import describe, run, tag
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
        {"describe": "_runner", "population": "_images", "run": "_runner", "tag": "_runner"},
        torch=[*NAMES, "_images", "_runner"],
    )
