"""Batch norm (both statistics) and the backward passes of batch and layer norm, from means and element-wise operators.

In training mode PyTorch's running variance is the unbiased one, n / (n - 1) times the variance that normalises; the operator
writes the running statistics in place, which the tracer turns into an output of the program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clue_mobile.errors import ClueError

aten = torch.ops.aten


def _channel(value: Tensor, rank: int) -> Tensor:
    """[C] as [1, C, 1, ...], to broadcast over an activation of `rank` axes."""
    return value.view(1, -1, *([1] * (rank - 2)))


def _other_axes(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def native_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (output, saved mean, saved 1/std), the last two [C]; they are empty when running statistics are used."""
    axes = _other_axes(x)
    if training:
        mean = x.mean(axes)
        centred = x - _channel(mean, x.dim())
        var = (centred * centred).mean(axes)
        invstd = torch.rsqrt(var + eps)
        if running_mean is not None and running_var is not None:
            n = x.numel() // x.shape[1]
            if n < 2:
                raise ClueError("batch norm in training mode needs more than one value per channel: use a larger --batch or frozen statistics")
            running_mean.copy_(running_mean * (1 - momentum) + mean * momentum)
            running_var.copy_(running_var * (1 - momentum) + var * (momentum * n / (n - 1)))
        saved = (mean, invstd)
    else:
        assert running_mean is not None
        assert running_var is not None
        invstd = torch.rsqrt(running_var + eps)
        centred = x - _channel(running_mean, x.dim())
        saved = (x.new_empty(0), x.new_empty(0))
    scale = invstd if weight is None else invstd * weight
    out = centred * _channel(scale, x.dim())
    return (out if bias is None else out + _channel(bias, x.dim())), *saved


def _no_training_legit(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return native_batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps)


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
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (x, weight, bias) where `output_mask` asks for them (Ioffe and Szegedy 2015, section 3)."""
    axes, rank = _other_axes(x), x.dim()
    if train:
        assert save_mean is not None
        assert save_invstd is not None
        mean, invstd = save_mean, save_invstd
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, invstd = running_mean, torch.rsqrt(running_var + eps)
    grad_bias = grad.sum(axes)
    normalised = (x - _channel(mean, rank)) * _channel(invstd, rank)
    grad_weight = (grad * normalised).sum(axes)
    scale = _channel(invstd if weight is None else invstd * weight, rank)
    if train:
        n = x.numel() // x.shape[1]
        inner = grad - _channel(grad_bias / n, rank) - normalised * _channel(grad_weight / n, rank)
        grad_x = inner * scale
    else:
        grad_x = grad * scale
    return (
        grad_x if output_mask[0] else None,
        grad_weight if output_mask[1] and weight is not None else None,
        grad_bias if output_mask[2] else None,
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
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (x, weight, bias); mean and rstd keep the normalised axes with size 1 (Ba et al. 2016)."""
    inner = list(range(x.dim() - len(normalized_shape), x.dim()))
    outer = list(range(x.dim() - len(normalized_shape)))
    n = math.prod(normalized_shape)
    normalised = (x - mean) * rstd
    scaled = grad if weight is None else grad * weight
    total = scaled.sum(inner, keepdim=True) / n
    along = (scaled * normalised).sum(inner, keepdim=True) / n
    grad_x = (scaled - total - normalised * along) * rstd

    def over_rest(value: Tensor) -> Tensor:
        return value.sum(outer) if outer else value  # a sum over no axes would sum over all in ONNX

    return (
        grad_x if output_mask[0] else None,
        over_rest(grad * normalised) if output_mask[1] and weight is not None else None,
        over_rest(grad) if output_mask[2] and bias is not None else None,
    )


TABLE = {
    aten.native_batch_norm.default: native_batch_norm,
    aten._native_batch_norm_legit.default: native_batch_norm,
    aten._native_batch_norm_legit_no_training.default: _no_training_legit,
    aten.native_batch_norm_backward.default: native_batch_norm_backward,
    aten.native_layer_norm_backward.default: native_layer_norm_backward,
}
