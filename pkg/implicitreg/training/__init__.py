r"""Training with weights on the examples: the loop, its devices, its checkpoints and what it measures on the way.

The weights W of each step come from outside, and the step is :math:`\theta - \eta \sum_i W_i \nabla\ell_i(\theta)`:
the loop knows nothing of the noise that they make (`implicitreg.noise.msgd` does).
"""

from implicitreg import _torch  # noqa: F401 (says how to install it)
from implicitreg.training._history import History
from implicitreg.training._loop import run

__all__ = ["History", "run"]
