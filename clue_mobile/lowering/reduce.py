"""Sums, statistics and products that have a spelling in fewer operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import axes

aten = torch.ops.aten


def _all_axes(x: Tensor, dim: Sequence[int] | int | None) -> list[int]:
    if isinstance(dim, int):
        return [dim]
    return list(dim) if dim else list(range(x.dim()))


def var_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """(variance, mean) over the axes `dim`; `correction` (1 where not given) is taken off their size."""
    over = _all_axes(x, dim)
    mean = x.mean(over, keepdim=True)
    count = math.prod(x.shape[axis] for axis in over)
    centred = x - mean
    squares = centred * centred
    off = 1 if correction is None else correction
    var = squares.mean(over, keepdim=keepdim)
    if off:
        var = var * (count / max(count - off, 0)) if count > off else var * math.inf
    kept = [size for axis, size in enumerate(x.shape) if axis not in {a % x.dim() for a in over}]
    return var, mean if keepdim else mean.reshape(kept)


def var(x: Tensor, dim: Sequence[int] | None = None, **options: Any) -> Tensor:
    """The first of `var_mean`."""
    return var_mean(x, dim, **options)[0]


def std(x: Tensor, dim: Sequence[int] | None = None, **options: Any) -> Tensor:
    """The root of `var`."""
    return torch.sqrt(var_mean(x, dim, **options)[0])


def vector_norm(
    x: Tensor,
    order: float = 2,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    """The norm of order 2, 1 or infinity over the axes `dim`; others stay as they are."""
    over = _all_axes(x, dim)
    if dtype is not None or order not in (1, 2, math.inf) or not x.dim():
        return NotImplemented
    if order == 2:
        return torch.sqrt((x * x).sum(over, keepdim=keepdim))
    if order == 1:
        return torch.abs(x).sum(over, keepdim=keepdim)
    return torch.amax(torch.abs(x), over, keepdim)


def logsumexp(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))), from the largest element on."""
    top = torch.amax(x, _all_axes(x, dim), True)
    total = torch.log(torch.exp(x - top).sum(_all_axes(x, dim), keepdim=True)) + top
    return total if keepdim else aten.squeeze.dims(total, _all_axes(x, dim))


def max_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """(maxima, the first places of them) along an axis."""
    return torch.amax(x, dim, keepdim), torch.argmax(x, dim, keepdim)


def min_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """(minima, the first places of them) along an axis."""
    return -torch.amax(-x, dim, keepdim), torch.argmax(-x, dim, keepdim)


def cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """Running sums: a product with the matrix of ones below the diagonal."""
    if not x.is_floating_point() or dtype not in (None, x.dtype) or not x.dim():
        return NotImplemented
    matrix = [[float(j <= i) for j in range(x.shape[dim])] for i in range(x.shape[dim])]
    return axes.along(x, [matrix, *[None] * (x.dim() - 1 - dim % x.dim())])


def baddbmm(x: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * x + alpha * left @ right."""
    product = torch.bmm(left, right)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


def mv(matrix: Tensor, vector: Tensor) -> Tensor:
    """A matrix times a vector."""
    return torch.mm(matrix, vector.unsqueeze(1)).squeeze(1)


def dot(left: Tensor, right: Tensor) -> Tensor:
    """The inner product of two vectors."""
    return (left * right).sum()


def addcmul(x: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    """x + value * left * right."""
    product = left * right
    return x + (product if value == 1 else product * value)


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` where the mask is true."""
    filler = value if isinstance(value, Tensor) else torch.full((), value, dtype=x.dtype)
    return torch.where(mask, filler, x)


def _others(x: Tensor, dim: int) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != dim % x.dim()]


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """(g * v / |v|, |v|), the norm taken over all axes but `dim` (Salimans and Kingma 2016)."""
    norm = torch.sqrt((v * v).sum(_others(v, dim), keepdim=True))
    return v * (g / norm), norm


def weight_norm_backward(grad: Tensor, v: Tensor, g: Tensor, norm: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Gradients of (v, g)."""
    along = (grad * v).sum(_others(v, dim), keepdim=True) / norm
    return (grad - v * (along / norm)) * (g / norm), along


TABLE: dict[Any, Callable[..., Any]] = {
    aten.var_mean.correction: var_mean,
    aten.var.correction: var,
    aten.std.correction: std,
    aten.linalg_vector_norm.default: vector_norm,
    aten.logsumexp.default: logsumexp,
    aten.max.dim: max_dim,
    aten.min.dim: min_dim,
    aten.cumsum.default: cumsum,
    aten.baddbmm.default: baddbmm,
    aten.mv.default: mv,
    aten.dot.default: dot,
    aten.vdot.default: dot,
    aten.addcmul.default: addcmul,
    aten.masked_fill.Scalar: masked_fill,
    aten.masked_fill.Tensor: masked_fill,
    aten._weight_norm_interface.default: weight_norm,
    aten._weight_norm_interface_backward.default: weight_norm_backward,
}
