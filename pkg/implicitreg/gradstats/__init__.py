r"""Per-example gradients of torch models: mean, trace of the covariance and its gradient, Gram matrix, curvature.

The loss of example i is :math:`\ell_i(\theta)`, its gradient :math:`g_i`, its Hessian :math:`h_i`; a bar is the mean
over the n examples. Results are detached tensors on the model's device, in its dtype. A gradient is flat, in the order
of ``model.parameters()``, over the parameters with ``requires_grad``: a frozen parameter is no coordinate of theta.

Each function takes a model, a loss without reduction, n inputs and n targets. Where all parameters belong to
`torch.nn.Linear` and `torch.nn.Conv2d` layers, each called once, no per-example gradient is formed for a plain linear
layer, and few at a time are for sequences and convolutions: the time is that of an ordinary backward pass or a few.
That this is so is seen in every chunk of examples that is computed: the layers called, the shapes of what one example
gives them, that every row of their outputs counts in the loss of its own example only, and that no other way leads from
the losses to a parameter. Of the rows this is seen in a second backward pass with random weights on the losses, which
must give the same derivatives times the weights, unless model and loss are known (below). Any other model goes through
`torch.func`, and where that fails, example by example; the answers are the same.

Examples must not interact, nor depend on chance or on earlier calls: there is no :math:`\ell_i` otherwise, and a
ValueError says so. What is looked at, with ``verify=True``:

* **Chance and state.** The generators of torch, NumPy and Python, those that model or loss hold (in attributes, lists,
  closures, bound methods), and their parameters, buffers and tensors are compared before and after, and put back. Other
  threads may have drawn, too: where a generator has moved, model and loss are tried again, and refused if one batch
  moves it in each of three trials.
* **Company.** At most 64 examples, of a seeded choice, are computed once more: alone if they are 32 or fewer, else ten
  of them alone and the others in the order of the sums of their inputs, in parts of 18 and 36. Losses and outputs must
  be those of the chunks that are computed (of batches of the whole sample, where the gradients come one by one or the
  chunks are single examples), up to half of the digits of the largest; and so must the inputs of the linear layers and
  convolutions, or the chunks are not used.
* **The loop.** Two of these examples are compared with plain backward passes of one example each: ``|g_i|²``,
  g_i . g_j, g_i, h_i v or the share in the gradient of the trace. Where they differ, a slower method serves, the last
  of which is that loop.

Some models need fewer trials, as torch's own parts are known: a `torch.nn.Sequential` of linear layers, convolutions,
max- and average-pooling, `Flatten` and common activations, without hooks. Of it two examples are computed once more;
the other trials of company are made with the loss alone, of rows of the model's outputs. If the loss is known, too,
(`torch.nn.functional.cross_entropy` or ``nll_loss`` in a `functools.partial`, or their modules, with
``reduction="none"``), neither chance, state, company nor the rows are tried, and the loop is compared in ``|g_i|²`` or
g_i . g_j.

``verify="full"`` has all the examples in the second computation. ``verify=False`` has one of them, and leaves out the
loop for linear layers and convolutions: for the inner steps of a run whose first step was verified. What none of this
sees is an interaction among examples that were not chosen, one that leaves the losses and outputs as they are, and
chance that seldom shows and comes from a generator which is held elsewhere.

Attributes of modules, inputs, targets and the fields ``grad`` are left as they were, too. A model that writes into its
inputs gets copies.

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
