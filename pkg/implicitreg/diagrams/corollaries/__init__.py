"""What the diagrams say in closed form: Tenka's corollaries, each with the conditions and constants that hold."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = [
    "curvature",
    "displacement",
    "epoch_shift",
    "gap_penalty",
    "gd_minus_sgd",
    "gdc",
    "gdc_penalty",
    "half_split_penalty",
    "ode_series",
    "overfitting",
    "reuse",
    "ridge",
    "sde_series",
    "series",
    "sgd_series",
    "skew",
    "skew_diagram",
    "skew_effect",
    "tune_ridge",
    "valley",
    "velocity",
    "worst_curvature",
]

if TYPE_CHECKING:
    from implicitreg.diagrams.corollaries import curvature, gdc, reuse, ridge, series, skew, valley
    from implicitreg.diagrams.corollaries.curvature import overfitting, worst_curvature
    from implicitreg.diagrams.corollaries.gdc import gdc_penalty, half_split_penalty
    from implicitreg.diagrams.corollaries.reuse import epoch_shift, gd_minus_sgd
    from implicitreg.diagrams.corollaries.ridge import gap_penalty, tune_ridge
    from implicitreg.diagrams.corollaries.series import ode_series, sde_series, sgd_series
    from implicitreg.diagrams.corollaries.skew import skew_diagram, skew_effect
    from implicitreg.diagrams.corollaries.valley import displacement, velocity
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
        {
            "displacement": "valley",
            "velocity": "valley",
            "overfitting": "curvature",
            "worst_curvature": "curvature",
            "gap_penalty": "ridge",
            "tune_ridge": "ridge",
            "gd_minus_sgd": "reuse",
            "epoch_shift": "reuse",
            "gdc_penalty": "gdc",
            "half_split_penalty": "gdc",
            "sgd_series": "series",
            "ode_series": "series",
            "sde_series": "series",
            "skew_effect": "skew",
            "skew_diagram": "skew",
        },
        torch=["gdc", "reuse", "series"],
    )
