"""Weight gradients by unfolding: copies of the input, and of the gradient where that is cheaper, for one
product. Any number of axes and groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clue_mobile.lowering import windows


def unfolded(
    grad: Tensor,
    x: Tensor,
    features: tuple[int, int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[list[Tensor], Tensor, int]:
    """What a product makes a weight's gradient of: copies of x, the gradient, and how many copies it has.

    features: output and input channels of a group; the first two axes of grad and x are free. Unfolding
    copies the input once for each element of the kernel. Where it is cheaper, the kernel's first axis moves
    copies of the gradient, side by side on axis 1: a 3x3 kernel then takes 3 copies of each instead of 9 of
    the input.
    """
    outputs, channels = features
    out: Sequence[int] = grad.shape[2:]
    others = math.prod(kernel[1:])
    moved = 1
    if stride[0] == 1 and others * channels + kernel[0] * outputs < others * kernel[0] * channels:
        moved, kernel = kernel[0], kernel[1:]
        places = (i * dilation[0] - padding[0] for i in range(moved))
        grad = torch.cat([windows.place(grad, 2, before, x.shape[2]) for before in places], 1)
    axes = len(kernel)
    out, stride, padding, dilation = (v[len(v) - axes :] for v in (out, stride, padding, dilation))
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation)
    taps = [windows.window(padded, offset, out, stride, dilation) for offset in windows.offsets(kernel)]
    return taps, grad, moved


def weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """dL/dW [O, C / groups, *kernel] from grad [N, O, *out] and x [N, C, *size].

    For each group one product of [C * taps, rows] with [rows, O].
    """
    out_channels, channels, *kernel = weight_shape
    group_out = out_channels // groups
    x, grad = x.transpose(0, 1), grad.transpose(0, 1)
    taps, grad, moved = unfolded(grad, x, (group_out, channels), kernel, stride, padding, dilation)
    columns = torch.cat(taps, 1) if len(taps) > 1 else taps[0]
    rows = taps[0].numel() // taps[0].shape[0]
    if groups == 1:  # a plain matrix product: runtimes have faster kernels for it than for a batch of one
        product = torch.mm(columns.reshape(-1, rows), grad.reshape(-1, rows).t())
    else:
        columns, grad = columns.reshape(groups, -1, rows), grad.reshape(groups, -1, rows)
        product = torch.bmm(columns, grad.transpose(1, 2))
    product = product.reshape(groups, channels, len(taps), group_out, moved)
    return product.permute(0, 3, 1, 4, 2).reshape(*weight_shape)
