"""What the diagrams say in closed form: Tenka's corollaries, each with the conditions and constants that hold."""

from implicitreg._lazy import attach

__getattr__, __dir__ = attach(
    __name__,
    ["curvature", "gdc", "reuse", "ridge", "series", "skew", "valley"],
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
)
