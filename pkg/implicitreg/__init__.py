"""Verified implementations for *The Quiet Regularizer*, a book on the implicit regularization of gradient descent.

>>> import implicitreg as ir
>>> ir.flow.minnorm.limit([[3.0, 4.0]], [25.0])
array([3., 4.])
"""

from typing import TYPE_CHECKING

from implicitreg._lazy import attach

__version__ = "0.1.0"
__all__ = [
    "FiniteProblem",
    "check",
    "checks",
    "datasets",
    "diagrams",
    "ensembles",
    "exact",
    "exercises",
    "experiments",
    "explain",
    "flow",
    "gap",
    "gradstats",
    "ledger",
    "nets",
    "noise",
    "plotting",
    "problems",
    "records",
    "say",
    "training",
]

if TYPE_CHECKING:
    from implicitreg import (
        checks,
        datasets,
        diagrams,
        ensembles,
        exact,
        exercises,
        experiments,
        flow,
        gap,
        gradstats,
        ledger,
        nets,
        noise,
        plotting,
        problems,
        records,
        training,
    )
    from implicitreg.checks import check, say
    from implicitreg.ledger import explain
    from implicitreg.problems import FiniteProblem
else:
    __getattr__, __dir__ = attach(
        __name__,
        __all__,
        {"FiniteProblem": "problems", "check": "checks", "say": "checks", "explain": "ledger"},
        torch=["exact", "gradstats", "nets", "problems", "training"],
    )
