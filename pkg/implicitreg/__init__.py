"""Verified implementations for *The Quiet Regularizer*, a book on the implicit regularization of gradient descent.

>>> import implicitreg as ir
>>> ir.flow.minnorm.limit([[3.0, 4.0]], [25.0])
array([3., 4.])
"""

from implicitreg._lazy import attach

__version__ = "0.1.0"
__getattr__, __dir__ = attach(
    __name__,
    [
        "checks",
        "datasets",
        "diagrams",
        "ensembles",
        "exact",
        "exercises",
        "experiments",
        "flow",
        "gap",
        "gradstats",
        "ledger",
        "nets",
        "noise",
        "plotting",
        "problems",
        "records",
        "runbook",
        "training",
    ],
    {"FiniteProblem": "problems", "check": "checks", "say": "checks", "explain": "ledger"},
)
