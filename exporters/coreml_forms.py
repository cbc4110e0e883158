"""Convolutions in the form that Core ML takes where weights are inputs: neither dilated nor transposed.

Its `conv` refuses dilations, and before iOS 17 its `conv_transpose` refuses any weights, that are no
constants. A transposed convolution, which is also every input gradient, is a plain one of the spread
gradient with the turned kernel; a dilated kernel is a larger one with zeros between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import windows

aten = torch.ops.aten


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
    """x [N, C, *size], weight as PyTorch has it. NotImplemented where Core ML takes it as it is."""
    axes = x.dim() - 2
    stride, padding, dilation, output_padding = (
        windows.per_axis(v, axes) for v in (stride, padding, dilation, output_padding)
    )
    dilated = any(d > 1 for d in dilation)
    if not transposed and not dilated:
        return NotImplemented
    kernel = weight.shape[2:]
    if transposed:
        weight = _turned(weight, groups)
        if all(k == 1 for k in kernel):  # spread what comes out, which is a stride's square less to compute
            y = _plain(x, weight, [1] * axes, [0] * axes, groups)
            for axis in range(axes):
                size = (x.shape[2 + axis] - 1) * stride[axis] + 1 - 2 * padding[axis] + output_padding[axis]
                y = windows.place(windows.dilate(y, 2 + axis, stride[axis]), 2 + axis, -padding[axis], size)
            return _with_bias(y, bias)
        x, padding = _spread(x, kernel, stride, padding, dilation, output_padding)
        stride = [1] * axes
    for axis in range(axes):
        if dilation[axis] > 1:
            spread = windows.dilate(weight, 2 + axis, dilation[axis])
            weight = spread.narrow(2 + axis, 0, dilation[axis] * (kernel[axis] - 1) + 1)
    return _with_bias(_plain(x, weight, stride, padding, groups), bias)


def _plain(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    ones, zeros = [1] * len(stride), [0] * len(stride)
    return aten.convolution(x, weight, None, stride, padding, ones, False, zeros, groups)


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.reshape(1, -1, *([1] * (y.dim() - 2)))


def _turned(weight: Tensor, groups: int) -> Tensor:
    """A transposed convolution's weight [C, O / groups, ...] as a plain one's [O, C / groups, ...]."""
    channels, group_out, *kernel = weight.shape
    if groups == 1:
        turned = weight.transpose(0, 1)
    else:
        apart = weight.reshape(groups, channels // groups, group_out, -1).transpose(1, 2)
        turned = apart.reshape(groups * group_out, channels // groups, *kernel)
    axes = [axis for axis in range(2, weight.dim()) if weight.shape[axis] > 1]
    return turned.flip(axes) if axes else turned


def _spread(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> tuple[Tensor, list[int]]:
    """x with a stride's zeros between its elements, and the padding that its plain convolution still needs.

    What is alike on both sides is left to the operator's own padding.
    """
    own = []
    for axis in range(len(kernel)):
        dim = 2 + axis
        size = x.shape[dim]
        before = dilation[axis] * (kernel[axis] - 1) - padding[axis]
        length = (size - 1) * stride[axis] + 1
        total = length + 2 * before + output_padding[axis]
        x = windows.dilate(x, dim, stride[axis])
        alike = max(min(before, total - before - x.shape[dim]), 0)
        own.append(alike)
        x = windows.place(x, dim, before - alike, total - 2 * alike)
    return x, own


TABLE: dict[Any, Callable[..., Any]] = {aten.convolution.default: convolution}
