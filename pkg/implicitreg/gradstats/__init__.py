"""Statistics of per-example gradients of torch models: mean, covariance trace and its gradient, Gram matrix, curvature.

The loss of example i is :math:`\\ell_i(\\theta)`, its gradient :math:`g_i`, its Hessian :math:`h_i`; a bar is the mean
over the n examples. Results are detached tensors on the model's device, in its dtype. A gradient is flat, in the order
of ``model.parameters()``, over the parameters with ``requires_grad``: a frozen parameter is no coordinate of theta.
"""

from implicitreg.gradstats import naive
from implicitreg.gradstats.estimators import GramMoments, from_gram, two_halves
from implicitreg.gradstats.statistics import (
    CurvatureMoments,
    GradientMoments,
    curvature,
    grad_trace,
    gram,
    moments,
    per_example,
)

__all__ = [
    "CurvatureMoments",
    "GradientMoments",
    "GramMoments",
    "curvature",
    "from_gram",
    "grad_trace",
    "gram",
    "moments",
    "naive",
    "per_example",
    "two_halves",
]
