"""Part III, SGD as a sum over histories: diagrams, their counts and values, and what follows from them."""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__all__ = [
    "Diagram",
    "corollaries",
    "diagram",
    "enumerate_diagrams",
    "gap_series",
    "landscapes",
    "networks",
    "predictions",
    "resummed",
    "resummed_test_loss",
    "resummed_weights",
    "series",
    "terms",
    "test_loss_series",
    "train_loss_series",
    "weights_series",
]

if TYPE_CHECKING:
    from implicitreg.diagrams import corollaries, diagram, landscapes, networks, predictions, resummed, series
    from implicitreg.diagrams.diagram import Diagram, enumerate_diagrams
    from implicitreg.diagrams.resummed import resummed_test_loss, resummed_weights
    from implicitreg.diagrams.series import gap_series, terms, test_loss_series, train_loss_series, weights_series
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
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
        torch=["landscapes", "networks", "predictions", "resummed", "series"],
    )
