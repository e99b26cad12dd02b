r"""A preconditioner that slows learning down where the gradient fluctuates: a regularized low-rank inverse of Sigma.

From the centred gradients :math:`J_c` (m, p) of m examples: with the leading r eigenvalues s, and orthonormal
eigenvectors in the rows of V, of the sample covariance :math:`\hat\Sigma = \frac1{m-1}J_c^\top J_c`,

.. math:: P = I - V^\top \mathrm{diag}\Big(1 - \big(\tfrac{\lambda}{s + \lambda}\big)^\alpha\Big)V
          = \lambda^\alpha(\hat\Sigma_r + \lambda)^{-\alpha}, \qquad \lambda = \rho\,s_1 .

P is symmetric, :math:`0 \prec P \preceq I`, and the identity off the rows of V: the step size of plain SGD remains a
valid start. :math:`\alpha = 1` is the inverse, :math:`\alpha = \tfrac12` whitens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from implicitreg import _units, _validate, gradstats
from implicitreg._brief import brief
from implicitreg._torch import torch

__all__ = ["InverseCovariance", "LowRank", "low_rank"]

NEGLIGIBLE = 1e-12  # eigenvalues up to this fraction of the largest (or up to m eps, if more) are rounding and dropped


@dataclass(frozen=True, eq=False)
class LowRank:
    r"""The preconditioner P of :func:`low_rank`.

    Attributes
    ----------
    V : tensor (r, p)
        Eigenvectors, in rows.
    eigenvalues : tensor (r,)
        s, in the units of Sigma: where the squares of the gradients leave the range of the dtype, inf or 0.
    lam, power : float
        :math:`\lambda`, in these units, and :math:`\alpha`.
    shrink : tensor (r,)
        How much each direction of V loses, :math:`1 - (\lambda/(s + \lambda))^\alpha`, from 0 to 1; right at any scale.
    """

    V: torch.Tensor
    eigenvalues: torch.Tensor
    lam: float
    power: float
    shrink: torch.Tensor = field(repr=False)
    __repr__ = brief

    def apply(self, g: torch.Tensor) -> torch.Tensor:
        r"""The product P g for a vector ``(p,)`` or rows ``(k, p)``, in O(r p).

        Raises
        ------
        ValueError
            If the last dimension of ``g`` is not p.
        TypeError
            If ``g`` is no tensor of the dtype of V.

        Examples
        --------
        >>> P = low_rank(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), rank=1, lam=8.0)  # s = 8: that direction is halved
        >>> P.apply(torch.tensor([1.0, 1.0]))
        tensor([0.5000, 1.0000])
        """
        if not isinstance(g, torch.Tensor):
            raise TypeError(f"g is a {type(g).__name__}: expected a torch.Tensor")
        if g.ndim == 0 or g.shape[-1] != self.V.shape[1]:
            raise ValueError(f"g has shape {tuple(g.shape)}: expected (..., {self.V.shape[1]})")
        if g.dtype != self.V.dtype:
            raise TypeError(f"g has dtype {g.dtype}: expected {self.V.dtype}")
        _validate.tensor("g", g)
        return g - (g @ self.V.T * self.shrink) @ self.V

    def dense(self) -> torch.Tensor:
        """P as a matrix (p, p), to look at small ones."""
        return self.apply(torch.eye(self.V.shape[1], dtype=self.V.dtype, device=self.V.device))


def low_rank(
    rows: torch.Tensor, *, rank: int, rho: float | None = None, lam: float | None = None, power: float = 1.0
) -> LowRank:
    r"""The regularized low-rank inverse of the covariance of some per-example gradients.

    .. math:: P = \lambda^\alpha(\hat\Sigma_r + \lambda)^{-\alpha}, \qquad
              \hat\Sigma_r = V^\top\mathrm{diag}(s)V ,

    with the leading r eigenpairs of the sample covariance, which is normalized by 1/(m - 1).

    Parameters
    ----------
    rows : tensor (m, p)
        One example's gradient in each row, m >= 2, of a real floating-point type.
    rank : int
        The largest r; at most m - 1 eigenvalues are not zero, and those up to ``NEGLIGIBLE`` times the largest are
        dropped. ``rank=0`` is P = I.
    rho, lam : float
        The regularizer, positive, exactly one of the two: relative, :math:`\lambda = \rho\,s_1`, or :math:`\lambda` in
        the units of Sigma.
    power : float
        :math:`\alpha`, positive: 1 the inverse, 1/2 the inverse square root.

    Returns
    -------
    LowRank
        ``apply`` multiplies by P.

    Raises
    ------
    ValueError
        If ``rows`` is not a finite matrix with two rows or more, a number is out of its range, or not exactly one of
        ``rho`` and ``lam`` is given.
    TypeError
        If ``rows`` is no real floating-point tensor, or a number is none.

    Notes
    -----
    The (m, m) Gram matrix of the centred rows has the same nonzero eigenvalues, so that the cost is O(m² p + m³) and no
    (p, p) matrix is formed. Multiplying the rows by c multiplies the eigenvalues by c² and leaves P with ``rho``
    unchanged; adding one vector to all rows leaves P unchanged; an orthogonal change of coordinates Q turns it into
    :math:`Q P Q^\top`. The largest sample eigenvalues are biased upward when m is not much larger than r.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, section 4: "one could use the inverse of Sigma as a
    preconditioner"; footnote 5 for the leading eigenvectors. The regularization is ours.

    Examples
    --------
    Two gradients that differ by (2, 0) have s = 2 along the first axis; lambda = s halves it:

    >>> low_rank(torch.tensor([[3.0, 5.0], [1.0, 5.0]]), rank=1, rho=1.0).dense()
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """
    rows = _rows(rows)
    rank, power = _validate.integer("rank", rank, low=0), _validate.number("power", power, above=0)
    unit = _units.unit(rows)
    rows = _units.over(rows, unit)
    centred = rows - rows.mean(0)
    m = len(rows)
    s, U = torch.linalg.eigh(centred @ centred.T / (m - 1))
    s, U = s.flip(0).clamp(min=0), U.flip(1)
    r = min(rank, m - 1, int((s > _floor(rows, float(s[0]))).sum()))
    V = (U[:, :r] / ((m - 1) * s[:r]).sqrt()).T @ centred
    relative = _regularizer(rho, lam, float(s[0]), unit)
    most = min(relative, torch.finfo(rows.dtype).max / 4)  # more leaves P = I, and s + lam finite
    shrink = 1 - (most / (s[:r] + most)) ** power
    return LowRank(V, s[:r] * unit * unit, relative * unit * unit if lam is None else lam, power, shrink)


class InverseCovariance(torch.optim.Optimizer):
    r"""SGD preconditioned by a regularized low-rank inverse of the gradient covariance.

    .. math:: \theta \leftarrow \theta - \eta\,P g, \qquad P = \lambda^\alpha(\hat\Sigma_r + \lambda)^{-\alpha},
              \quad \lambda = \rho\,s_1 ,

    with P as in :func:`low_rank`. P is the identity until the first :meth:`refresh`; call that every 20 steps or so, on
    examples that the next steps do not use.

    Parameters
    ----------
    params : iterable of tensors
        The model's parameters, in one group; those that need no gradient are left alone.
    lr : float
        :math:`\eta`, positive; start from the one of plain SGD, since :math:`P \preceq I`.
    rank : int
        How many directions are slowed down, at least 0 (then it is SGD).
    rho : float
        The regularizer relative to the leading eigenvalue, positive: directions with s much below rho times the
        largest are left alone, the leading one is multiplied by (rho/(1 + rho))^power.
    power : float
        :math:`\alpha`, positive: 1 the inverse, 1/2 whitening.

    Raises
    ------
    ValueError
        If a number is out of its range, or there are several parameter groups: P mixes all parameters.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    P estimated on the batch it then multiplies is correlated with that batch's gradient, which biases the step at first
    order in the step size: hence an independent batch. (P of a sample is in the mean not the P of the law, whatever the
    batch: that part of the bias stays.) ``state_dict`` holds P.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, section 4 and footnote 5.

    Examples
    --------
    One weight, inputs 1 and 3, labels 0: the gradients at w = 1 are 1 and 9, and s = 32 = lambda halves the step.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> loss = lambda outputs, targets: (outputs[:, 0] - targets) ** 2 / 2
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2)
    >>> optimizer = InverseCovariance(model.parameters(), lr=0.1, rank=1, rho=1.0)
    >>> optimizer.refresh(model, loss, inputs, targets)
    >>> loss(model(inputs), targets).mean().backward()  # 5
    >>> optimizer.step()
    >>> round(model.weight.item(), 6)  # 1 - 0.1 * 5 / 2
    0.75
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, *, rank: int = 20, rho: float = 0.1, power: float = 1.0
    ) -> None:
        lr, rho = _validate.number("lr", lr, above=0), _validate.number("rho", rho, above=0)
        rank, power = _validate.integer("rank", rank, low=0), _validate.number("power", power, above=0)
        params = _validate.items("params", params)
        for k, parameter in enumerate(params):
            if not (isinstance(parameter, dict) and "params" in parameter):  # else a group, as torch has it
                _validate.instance(f"params[{k}]", parameter, torch.Tensor)
        if len({id(parameter) for parameter in params}) < len(params):
            raise ValueError("params holds a parameter twice: expected each once")
        super().__init__(params, {"lr": lr, "rank": rank, "rho": rho, "power": power})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Accept the first group only: P mixes all parameters, and two groups would be two optimizers."""
        if self.param_groups:
            raise ValueError("params has several groups: expected one, because P mixes all parameters")
        super().add_param_group(param_group)

    def refresh(
        self, model: torch.nn.Module, loss: Callable[..., torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor,
        *, verify: bool | Literal["full"] = True,
    ) -> None:  # fmt: skip
        """Estimate P anew, at the model's present parameters.

        Parameters
        ----------
        model : Module
            The one whose parameters this optimizer moves.
        loss : callable
            ``loss(outputs, targets) -> (m,)``, the per-example losses.
        inputs, targets : tensors
            m examples, two or more: independent of the batches of the next steps.
        verify : bool or "full"
            How far to look for examples that interact, as in :func:`implicitreg.gradstats.per_example`.

        Raises
        ------
        ValueError, TypeError
            If the model has other parameters, or :func:`implicitreg.gradstats.per_example` refuses the arguments.
        """
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
        ours = self._parameters()
        theirs = [p for p in model.parameters() if p.requires_grad]
        if [id(p) for p in ours] != [id(p) for p in theirs]:
            raise ValueError("model has other parameters than the optimizer: expected those of model.parameters()")
        group = self.param_groups[0]
        rows = gradstats.per_example(model, loss, inputs, targets, verify=verify)
        P = low_rank(rows, rank=group["rank"], rho=group["rho"], power=group["power"])
        parts = P.V.split([p.numel() for p in ours], dim=1)
        for p, part in zip(ours, parts, strict=True):
            self.state[p] = {"V": part.clone(), "shrink": P.shrink}

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One step; ``closure``, if given, is called first and its loss returned. A missing gradient counts as zero."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        lr, ours = self.param_groups[0]["lr"], self._parameters()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in ours]
        if not all("V" in self.state[p] for p in ours):  # not refreshed yet
            steps = gradients
        else:
            components = sum(self.state[p]["V"] @ g.flatten() for p, g in zip(ours, gradients, strict=True))
            removed = components * self.state[ours[0]]["shrink"]
            steps = [
                g - (removed @ self.state[p]["V"]).view_as(g) for p, g in zip(ours, gradients, strict=True)
            ]  # fmt: skip
        for p, direction in zip(ours, steps, strict=True):
            p.sub_(direction, alpha=lr)
        return value

    def _parameters(self) -> list[torch.Tensor]:
        return [p for p in self.param_groups[0]["params"] if p.requires_grad]


def _rows(rows: Any) -> torch.Tensor:
    if not isinstance(rows, torch.Tensor) or rows.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"rows = {type(rows).__name__}: expected a real floating-point tensor (m, p)")
    if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] < 1:
        raise ValueError(f"rows has shape {tuple(rows.shape)}: expected (m, p) with two rows or more")
    return _validate.tensor("rows", rows.detach())


def _floor(rows: torch.Tensor, leading: float) -> float:
    """What an eigenvalue must exceed: the rounding of the Gram matrix, and that of the rows in centring them."""
    noise = len(rows) * torch.finfo(rows.dtype).eps
    return max(max(NEGLIGIBLE, noise) * leading, (noise * float(rows.abs().max())) ** 2)


def _regularizer(rho: float | None, lam: float | None, leading: float, unit: float) -> float:
    """In units of unit², like the leading eigenvalue."""
    if (rho is None) == (lam is None):
        raise ValueError(f"rho = {rho}, lam = {lam}: expected exactly one of the two")
    if rho is None:
        return _validate.number("lam", lam, above=0) / unit / unit
    return _validate.number("rho", rho, above=0) * leading
