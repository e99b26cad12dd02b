r"""Per-example gradients of torch models: mean, trace of the covariance and its gradient, Gram matrix, curvature.

The loss of example i is :math:`\ell_i(\theta)`, its gradient :math:`g_i`, its Hessian :math:`h_i`; a bar is the mean
over the n examples. Results are detached tensors on the model's device, in its dtype. A gradient is flat, in the order
of ``model.parameters()``, over the parameters with ``requires_grad``: a frozen parameter is no coordinate of theta.

Each function takes a model, a loss without reduction, n inputs and n targets. Where all parameters belong to
`torch.nn.Linear` and `torch.nn.Conv2d` layers, each called once, no per-example gradient is formed for a plain linear
layer, and few at a time are for sequences and convolutions: the time is that of an ordinary backward pass or a few.
Any other model goes through `torch.func`, and where that fails, example by example; the answers are the same.

Examples must not interact. The first and the last are tried together and alone, and a difference of their losses is an
error: batch normalisation in training mode, a contrastive loss and dropout are refused, as there is no :math:`\ell_i`.
What this cannot see is a coupling of the gradients that leaves the losses as they are.

Float32 and float64, no autocast and no TF32. Second derivatives are autograd's: a kink of ReLU or max-pooling counts
as flat.
"""

from implicitreg import _torch  # noqa: F401 (says how to install it)
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
