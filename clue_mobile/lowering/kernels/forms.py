"""ATen's convolutions, batch norms and ReLU's backward as the kernels' operators: overrides of the lowering.

Each converts to channels last and back; `passes.clean` and `fuse` cancel the conversions between them. What
the kernels do not have (other ranks than images', transposed convolutions, float16) keeps its usual lowering.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import activation, conv, norm, pool
from clue_mobile.lowering.kernels.operators import first
from clue_mobile.lowering.windows import per_axis

aten, clue = torch.ops.aten, torch.ops.clue

UNCLAMPED = (-math.inf, math.inf)
MOST_TAPS, MOST_ALONG = 1024, 64  # of a kernel, as the library's `geometry` checks


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _has(x: Tensor, weight: Tensor | None = None) -> bool:
    """Whether the kernels take such tensors; float64 is for tests, where the references run."""
    taken = x.dim() == 4 and x.dtype in (torch.float32, torch.float64)
    if weight is not None:
        kernel = weight.shape[2:]
        taken = taken and kernel.numel() <= MOST_TAPS and max(kernel, default=0) <= MOST_ALONG
    return taken


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """aten.convolution of images."""
    if transposed or not _has(x, weight):
        return NotImplemented
    window = (*(per_axis(each, 2) for each in (stride, padding, dilation)), groups)
    return first(clue.conv(_last(x), weight, bias, *window))


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """aten.convolution_backward of images."""
    if transposed or not _has(x, weight):
        return conv.convolution_backward(
            grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups,
            output_mask,
        )  # fmt: skip
    window = (*(per_axis(each, 2) for each in (stride, padding, dilation)), groups)
    g, grad_x, grad_w = _last(grad), None, None
    if output_mask[0] and output_mask[1]:
        grad_x, grad_w = clue.conv_grad(g, _last(x), weight, *window)
    elif output_mask[0]:
        grad_x = clue.conv_input_grad(g, weight, list(x.shape[2:]), *window)
    elif output_mask[1]:
        grad_w = clue.conv_weight_grad(g, _last(x), list(weight.shape[2:]), *window)
    grad_x = None if grad_x is None else first(grad_x)
    return grad_x, grad_w, g.sum([0, 1, 2]) if output_mask[2] else None


def max_pool_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Any:
    """As `pool.max_pool_backward`; its forward pass becomes a kernel in `layout.sink`."""
    if ceil_mode or not _has(x):
        return pool.max_pool_backward(2, grad, x, kernel, stride, padding, dilation, ceil_mode, indices)
    window = [per_axis(each, 2) for each in (kernel, stride or kernel, padding, dilation)]
    return first(clue.max_pool_grad(_last(grad), _last(x), *window))


def batch_norm_functional(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """As `norm.batch_norm_functional`."""
    if not _has(x):
        return norm.batch_norm_functional(x, weight, bias, running_mean, running_var, training, momentum, eps)
    n = norm.values_per_channel(x)
    out, mean, var, invstd = _normalise(x, weight, bias, eps)
    return out, mean, invstd, *norm.moved(running_mean, running_var, mean, var, momentum, n)


def batch_norm_without_running(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> Any:
    """As `norm.batch_norm_without_running`."""
    if not _has(x):
        return norm.batch_norm_without_running(x, weight, bias, training, momentum, eps)
    out, mean, _, invstd = _normalise(x, weight, bias, eps)
    return out, mean, invstd


def _normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
    rows = _last(x)
    mean, var = clue.stats(rows)
    invstd = torch.rsqrt(var + eps)
    return first(clue.norm(rows, mean, invstd, weight, bias, None, *UNCLAMPED)), mean, var, invstd


def batch_norm_no_training(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Any:
    """As `norm.batch_norm_no_training`."""
    if not _has(x):
        return norm.batch_norm_no_training(x, weight, bias, running_mean, running_var, momentum, eps)
    invstd = torch.rsqrt(running_var + eps)
    out = first(clue.norm(_last(x), running_mean, invstd, weight, bias, None, *UNCLAMPED))
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
) -> Any:
    """As `norm.native_batch_norm_backward`."""
    if not _has(x):
        return norm.native_batch_norm_backward(
            grad, x, weight, running_mean, running_var, save_mean, save_invstd, train, eps, output_mask
        )
    if train:
        mean, invstd = save_mean, save_invstd
    else:
        assert running_var is not None
        mean, invstd = running_mean, torch.rsqrt(running_var + eps)
    gx, gw, gb, _ = clue.norm_grad(
        _last(grad), _last(x), mean, invstd, weight, None, None, None, train, *UNCLAMPED
    )
    return (
        first(gx) if output_mask[0] else None,
        gw if output_mask[1] and weight is not None else None,
        gb if output_mask[2] else None,
    )


def threshold_backward(grad: Tensor, x: Tensor, threshold: float) -> Any:
    """ReLU's backward; autograd passes its output."""
    if threshold != 0 or not _has(x):
        return activation.threshold_backward(grad, x, threshold)
    return first(clue.clamp_grad(_last(grad), _last(x), 0.0, math.inf))


def hardtanh_backward(grad: Tensor, x: Tensor, low: float, high: float) -> Any:
    """As `activation.hardtanh_backward`, ReLU6's among others; autograd passes its input."""
    if not _has(x):
        return activation.hardtanh_backward(grad, x, low, high)
    return first(clue.clamp_grad(_last(grad), _last(x), float(low), float(high)))


def _normalises_last(x: Tensor, normalized_shape: Sequence[int]) -> bool:
    return x.dim() > 1 and len(normalized_shape) == 1 and x.dtype in (torch.float32, torch.float64)


def native_layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Any:
    """aten.native_layer_norm over the last axis."""
    if not _normalises_last(x, normalized_shape):
        return NotImplemented
    return clue.layer_norm(x, weight, bias, eps)


def native_layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    normalized_shape: Sequence[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: Sequence[bool],
) -> Any:
    """As `norm.native_layer_norm_backward`."""
    if not _normalises_last(x, normalized_shape):
        return norm.native_layer_norm_backward(
            grad, x, normalized_shape, mean, rstd, weight, bias, output_mask
        )
    gx, gw, gb = clue.layer_norm_grad(grad, x, mean, rstd, weight)
    return (
        gx if output_mask[0] else None,
        gw if output_mask[1] and weight is not None else None,
        gb if output_mask[2] and bias is not None else None,
    )


def gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """aten.gelu."""
    if approximate != "none" or x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    return clue.gelu(x)


def gelu_backward(grad: Tensor, x: Tensor, *, approximate: str = "none") -> Any:
    """As `activation.gelu_backward`."""
    if approximate != "none" or x.dtype not in (torch.float32, torch.float64):
        return activation.gelu_backward(grad, x, approximate=approximate)
    return clue.gelu_grad(grad, x)


OVERRIDES: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: convolution,
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten._native_batch_norm_legit.no_stats: batch_norm_without_running,
    aten._native_batch_norm_legit_functional.default: batch_norm_functional,
    aten._native_batch_norm_legit_no_training.default: batch_norm_no_training,
    aten.native_batch_norm_backward.default: native_batch_norm_backward,
    aten.threshold_backward.default: threshold_backward,
    aten.hardtanh_backward.default: hardtanh_backward,
    aten.native_layer_norm.default: native_layer_norm,
    aten.native_layer_norm_backward.default: native_layer_norm_backward,
    aten.gelu.default: gelu,
    aten.gelu_backward.default: gelu_backward,
}
