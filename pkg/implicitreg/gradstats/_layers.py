r"""One use of a linear or convolutional layer: statistics of its per-example gradients, few of them held at a time.

With the inputs :math:`A_i` (T, D) of the layer for example i and the derivatives :math:`B_i` (T, O) of its loss by the
outputs, the gradient of the weights is :math:`C_i = B_i^T A_i`, and that of the bias is the sum of the rows of
:math:`B_i`. T is 1 for a plain linear layer, the length of a sequence, or the number of positions of a convolution,
whose G groups are one more axis. The squared norm is :math:`|C_i|^2`, or the sum of the entries of
:math:`A_i A_i^T \circ B_i B_i^T`, which is cheaper for small T.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from implicitreg.gradstats._sample import slices
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d
CACHED = 2**20  # elements of the largest array of a block of examples, so that it stays in cache
ELSEWHERE = 2**26  # the same on other devices than the CPU


@dataclass(frozen=True, eq=False)
class Use:
    """A layer, its inputs a and the derivatives b of the losses by its outputs; the first axis counts examples."""

    layer: Layer
    a: Tensor
    b: Tensor

    @property
    def bias(self) -> bool:
        return self.layer.bias is not None and self.layer.bias.requires_grad

    def to(self, dtype: torch.dtype) -> Use:
        return self if self.a.dtype == dtype else Use(self.layer, self.a.to(dtype), self.b.to(dtype))

    def sums(self) -> tuple[Tensor, list[Tensor]]:
        """|g_i|² of this layer's parameters (c,), and the sum of the g_i: weight, bias."""
        if self.a.ndim == 2:  # the same in fewer words
            a, b = (torch.linalg.vector_norm(rows.detach(), dim=1).square_() for rows in (self.a, self.b))
            return (a.add_(1.0) if self.bias else a).mul_(b), self.total()
        squares, W, v = zip(*(sums(A, B, self.bias) for A, B in self._blocks()), strict=True)
        W, v = (sum(rest, first) for first, *rest in (W, v))
        return torch.cat(squares), [W.view_as(self.layer.weight), v.flatten()][: 1 + self.bias]

    def total(self) -> list[Tensor]:
        """The sum of the g_i: weight, bias."""
        if self.a.ndim == 2:
            a, b = self.a.detach(), self.b.detach()
            return [b.T @ a, b.sum(0)] if self.bias else [b.T @ a]
        W, v = (sum(rest, first) for first, *rest in zip(*(total(A, B) for A, B in self._blocks()), strict=True))
        return [W.view_as(self.layer.weight), v.flatten()][: 1 + self.bias]

    def cotangents(self, G: list[Tensor]) -> tuple[Tensor | None, Tensor]:
        """Half the derivatives of sum |g_i|² - 2 g_i . G by a (None if it depends on no parameter) and by b."""
        groups, deep = getattr(self.layer, "groups", 1), self.a.requires_grad
        G_W = G[0].reshape(groups, len(G[0]) // groups, -1)
        G_b = G[1].view(groups, 1, -1) if self.bias else None
        q_a, q_b = torch.empty_like(self.a) if deep else None, torch.empty_like(self.b)  # in the layout of a and b
        for rows, (A, B) in zip(self._rows(), self._blocks(), strict=True):
            q_A, q_B = cotangents(A, B, G_W, G_b, deep)
            q_b[rows] = (q_B.transpose(2, 3) if isinstance(self.layer, nn.Conv2d) else q_B).reshape(q_b[rows].shape)
            if deep:
                q_a[rows] = self._inputs(q_A)
        return q_a, q_b

    def features(self) -> tuple[Tensor, Tensor | None]:
        """U, V (c, .) with g_i . g_j = (u_i . u_j + bias)(v_i . v_j) in this layer, or u_i . u_j without V."""
        if self.a.ndim == 2:
            return self.a.detach(), self.b.detach()
        rows = [(B.transpose(2, 3) @ A, B.sum(2)) for A, B in self._blocks()]
        return torch.cat([torch.cat([part.flatten(1) for part in pair[: 1 + self.bias]], 1) for pair in rows]), None

    def _rows(self) -> list[slice]:
        """Blocks of examples; one is enough for single positions."""
        T = self.b[0].numel() // len(self.layer.weight)
        elements = T * max(self.layer.weight.shape[0], self.layer.weight[0].numel())
        limit = CACHED if self.a.is_cpu else ELSEWHERE
        return slices(len(self.b), len(self.b) if T == 1 else max(1, limit // elements))

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The matrices A (c, G, T, D) and B (c, G, T, O), a block of examples at a time."""
        for rows in self._rows():
            a, b = self.a[rows].detach(), self.b[rows].detach()
            if isinstance(self.layer, nn.Conv2d):
                yield columns(self.layer, a), b.reshape(len(b), self.layer.groups, -1, b[0, 0].numel()).transpose(2, 3)
            else:
                yield a.reshape(len(a), 1, -1, a.shape[-1]), b.reshape(len(b), 1, -1, b.shape[-1])

    def _inputs(self, q_A: Tensor) -> Tensor:
        """The adjoint of what takes a to A, for a block of examples."""
        if isinstance(self.layer, nn.Linear):
            return q_A.reshape(len(q_A), *self.a.shape[1:])
        with torch.enable_grad():
            a = self.a.new_zeros(len(q_A), *self.a.shape[1:]).requires_grad_()
            padded = pad(self.layer, a)
        return torch.autograd.grad(padded, a, uncolumns(self.layer, padded, q_A))[0]


def sums(A: Tensor, B: Tensor, bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """|g_i|² (c,), and the sums over i of C_i (G, O, D) and of the bias gradients (G, O)."""
    if by_norms(A, B):
        squares = ((inner(A) + bias) * inner(B)).sum((1, 2, 3))
        return squares, *total(A, B)
    C, v = B.transpose(2, 3) @ A, B.sum(2)
    return C.square().sum((1, 2, 3)) + bias * v.square().sum((1, 2)), C.sum(0), v.sum(0)


def total(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over i of C_i (G, O, D) and of the bias gradients (G, O)."""
    if A.shape[1] == 1:
        return (B.flatten(0, 2).T @ A.flatten(0, 2))[None], B.sum((0, 2))
    return (B.transpose(2, 3) @ A).sum(0), B.sum((0, 2))


def cotangents(A: Tensor, B: Tensor, G_W: Tensor, G_b: Tensor | None, deep: bool) -> tuple[Tensor | None, Tensor]:
    """Half the derivatives of sum |g_i|² - 2 g_i . G by A (if ``deep``) and by B; G_W (G, O, D), G_b (G, 1, O)."""
    if by_norms(A, B):
        q_B = times(inner(A) + (G_b is not None), B) - F.linear(A, G_W[0], G_b[0, 0] if G_b is not None else None)
        return times(inner(B), A) - B @ G_W[0] if deep else None, q_B
    A_t, B_t = A.transpose(2, 3), B.transpose(2, 3)  # of a convolution, these are the ones in order
    C = B_t @ A - G_W
    q_B = (C @ A_t).transpose(2, 3)
    if G_b is not None:
        q_B += B.sum(2, keepdim=True) - G_b
    return (C.transpose(2, 3) @ B_t).transpose(2, 3) if deep else None, q_B


def by_norms(A: Tensor, B: Tensor) -> bool:
    """Whether products of rows are cheaper than the gradients."""
    (G, T, D), O = A.shape[1:], B.shape[3]
    return G == 1 and (T == 1 or T * (D + O) < D * O)


def inner(A: Tensor) -> Tensor:
    """A_i A_i': (c, 1, T, T)."""
    return torch.linalg.vector_norm(A, dim=3, keepdim=True) ** 2 if A.shape[2] == 1 else A @ A.transpose(2, 3)


def times(M: Tensor, A: Tensor) -> Tensor:
    """M_i A_i for M (c, 1, T, T)."""
    return M * A if M.shape[2] == 1 else M @ A


def pad(layer: nn.Conv2d, a: Tensor) -> Tensor:
    """The images with the borders that the convolution adds, contiguous."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(a, layer._reversed_padding_repeated_twice, mode).contiguous()


def columns(layer: nn.Conv2d, a: Tensor) -> Tensor:
    """What the kernel sees at each position: (c, groups, positions, D). F.unfold takes twice as long."""
    patches = _patches(layer, pad(layer, a))
    return patches.reshape(len(a), layer.groups, patches[0, 0, :, :, :, 0, 0].numel(), -1).transpose(2, 3)


def uncolumns(layer: nn.Conv2d, padded: Tensor, q_A: Tensor) -> Tensor:
    """The adjoint of `columns`, up to the padding: each entry back to where it was seen."""
    out = torch.zeros_like(padded)
    target = _patches(layer, out)
    source = q_A.transpose(2, 3).reshape(target.shape)
    for i in range(target.shape[3]):
        for j in range(target.shape[4]):
            target[:, :, :, i, j] += source[:, :, :, i, j]
    return out


def _patches(layer: nn.Conv2d, a: Tensor) -> Tensor:
    """A view (c, groups, channels, kernel, kernel, height, width) of padded images."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    c, channels, H, W = a.shape
    shape = (c, layer.groups, channels // layer.groups, kh, kw,
             (H - dh * (kh - 1) - 1) // sh + 1, (W - dw * (kw - 1) - 1) // sw + 1)  # fmt: skip
    n, m, h, w = a.stride()
    return a.as_strided(shape, (n, m * shape[2], m, h * dh, w * dw, h * sh, w * sw))
