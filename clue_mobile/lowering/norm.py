"""Batch and group norm, and the backward passes of these and of layer norm, from means and element-wise
operators.

The tracer hands batch norm over in its functional form: the new running statistics are outputs instead of
writes. In training mode PyTorch's running variance is the unbiased one, n / (n - 1) times the variance that
normalises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clue_mobile.errors import ClueError

aten = torch.ops.aten

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def per_channel(value: Tensor, rank: int) -> Tensor:
    """[C] as [1, C, 1, ...], to broadcast over an activation of `rank` axes."""
    return value.reshape(1, -1, *([1] * (rank - 2)))


def values_per_channel(x: Tensor) -> int:
    """What a statistic of the batch is taken over. Raises ClueError for one value, whose unbiased variance
    does not exist."""
    n = x.numel() // x.shape[1]
    if n < 2:
        raise ClueError(
            "batch norm in training mode needs more than one value per channel: use a larger --batch, "
            "or frozen statistics"
        )
    return n


def moved(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, n: int
) -> tuple[Tensor, Tensor]:
    """The running statistics after a batch of `n` values a channel, of its mean and population variance; all
    [C]."""
    new_mean = running_mean * (1 - momentum) + mean * momentum
    return new_mean, running_var * (1 - momentum) + var * (momentum * n / (n - 1))


def _other_axes(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(output, mean, variance, 1/std) of x [N, C, ...] by its own statistics; statistics [1, C, 1, ...]."""
    axes, rank = _other_axes(x), x.dim()
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    var = (centred * centred).mean(axes, keepdim=True)
    invstd = torch.rsqrt(var + eps)
    out = centred * (invstd if weight is None else invstd * per_channel(weight, rank))
    return (out if bias is None else out + per_channel(bias, rank)), mean, var, invstd


def batch_norm_without_running(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(output, saved mean [C], saved 1/std [C]) of a layer that always normalises by the batch."""
    out, mean, _, invstd = _normalise(x, weight, bias, eps)
    return out, mean.reshape(-1), invstd.reshape(-1)


def batch_norm_functional(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(output, saved mean, saved 1/std, new running mean, new running variance), all but the first [C].

    Raises ClueError for one value per channel, whose unbiased variance does not exist.
    """
    n = values_per_channel(x)
    out, mean, var, invstd = _normalise(x, weight, bias, eps)
    mean, var = mean.reshape(-1), var.reshape(-1)
    return out, mean, invstd.reshape(-1), *moved(running_mean, running_var, mean, var, momentum, n)


def batch_norm_no_training(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(output, empty, empty) by the running statistics: one multiplication and one addition of x's size."""
    scale = torch.rsqrt(running_var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    out = x * per_channel(scale, x.dim()) + per_channel(shift, x.dim())
    return out, x.new_empty(0), x.new_empty(0)


def native_batch_norm_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> Gradients:
    """Gradients of (x, weight, bias) where `output_mask` asks for them (Ioffe and Szegedy 2015, part 3)."""
    axes, rank = _other_axes(x), x.dim()
    if train:
        assert save_mean is not None
        assert save_invstd is not None
        mean, invstd = per_channel(save_mean, rank), per_channel(save_invstd, rank)
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, invstd = per_channel(running_mean, rank), per_channel(torch.rsqrt(running_var + eps), rank)
    centred = x - mean
    total = grad.sum(axes, keepdim=True)
    along = (grad * centred).sum(axes, keepdim=True) * invstd
    grad_x = grad
    if train:
        n = x.numel() // x.shape[1]
        grad_x = grad - total / n - centred * (along * invstd / n)
    scale = invstd if weight is None else invstd * per_channel(weight, rank)
    return (
        grad_x * scale if output_mask[0] else None,
        along.reshape(-1) if output_mask[1] and weight is not None else None,
        total.reshape(-1) if output_mask[2] else None,
    )


def native_layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    normalized_shape: Sequence[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: Sequence[bool],
) -> Gradients:
    """Gradients of (x, weight, bias); mean and rstd keep the normalised axes with size 1 (Ba et al. 2016)."""
    inner = list(range(x.dim() - len(normalized_shape), x.dim()))
    outer = list(range(x.dim() - len(normalized_shape)))
    normalised = (x - mean) * rstd
    scaled = grad if weight is None else grad * weight
    total = scaled.mean(inner, keepdim=True)
    along = (scaled * normalised).mean(inner, keepdim=True)
    grad_x = (scaled - total - normalised * along) * rstd

    def over_rest(value: Tensor) -> Tensor:
        return value.sum(outer) if outer else value  # a sum over no axes would sum over all in ONNX

    return (
        grad_x if output_mask[0] else None,
        over_rest(grad * normalised) if output_mask[1] and weight is not None else None,
        over_rest(grad) if output_mask[2] and bias is not None else None,
    )


def native_group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    channels: int,
    inner: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(output, mean [n, groups], 1/std [n, groups]) of x [n, channels, ...], `inner` elements a channel."""
    grouped = x.reshape(n, groups, -1)
    mean = grouped.mean(2, keepdim=True)
    centred = grouped - mean
    invstd = torch.rsqrt((centred * centred).mean(2, keepdim=True) + eps)
    out = (centred * invstd).reshape(n, channels, inner)
    if weight is not None:
        out = out * per_channel(weight, 3)
    if bias is not None:
        out = out + per_channel(bias, 3)
    return out.reshape(x.shape), mean.reshape(n, groups), invstd.reshape(n, groups)


def native_group_norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    n: int,
    channels: int,
    inner: int,
    groups: int,
    output_mask: Sequence[bool],
) -> Gradients:
    """Gradients of (x, weight, bias): layer norm's within each group (Wu and He 2018)."""
    invstd = invstd.reshape(n, groups, 1)
    normalised = (x.reshape(n, groups, -1) - mean.reshape(n, groups, 1)) * invstd
    grad = grad.reshape(n, channels, inner)
    scaled = (grad if weight is None else grad * per_channel(weight, 3)).reshape(n, groups, -1)
    total = scaled.mean(2, keepdim=True)
    along = (scaled * normalised).mean(2, keepdim=True)
    grad_x = (scaled - total - normalised * along) * invstd
    return (
        grad_x.reshape(x.shape) if output_mask[0] else None,
        (grad * normalised.reshape(grad.shape)).sum([0, 2]) if output_mask[1] else None,
        grad.sum([0, 2]) if output_mask[2] else None,
    )


TABLE: dict[Any, Callable[..., Any]] = {
    aten._native_batch_norm_legit.no_stats: batch_norm_without_running,
    aten._native_batch_norm_legit_functional.default: batch_norm_functional,
    aten._native_batch_norm_legit_no_training.default: batch_norm_no_training,
    aten.native_batch_norm_backward.default: native_batch_norm_backward,
    aten.native_layer_norm_backward.default: native_layer_norm_backward,
    aten.native_group_norm.default: native_group_norm,
    aten.native_group_norm_backward.default: native_group_norm_backward,
}
