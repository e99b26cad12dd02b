"""Part III, SGD as a sum over histories: diagrams, their counts and values, and what follows from them."""

from implicitreg._lazy import attach

__getattr__, __dir__ = attach(
    __name__,
    ["corollaries", "diagram", "landscapes", "networks", "predictions", "resummed", "series"],
    {
        "Diagram": "diagram",
        "enumerate_diagrams": "diagram",
        "gap_series": "series",
        "resummed_test_loss": "resummed",
        "resummed_weights": "resummed",
        "terms": "series",
        "test_loss_series": "series",
        "train_loss_series": "series",
        "weights_series": "series",
    },
)
