"""Lowerings in the forms that LiteRT runs fastest: with channels last, and nothing transposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import conv, windows
from clue_mobile.lowering.forms import unfolding

aten = torch.ops.aten
# A product over more rows than this is split and its parts are added up: as fast, and a tenth of the error
_ROWS = 1024


def _blocks(images: int, rows: int) -> int:
    """Into how many parts of whole images to split, `rows` being those of one image."""
    together = max(1, _ROWS // rows)
    return min(b for b in range(1, images + 1) if images % b == 0 and images // b <= together)


def _dense_gradient(
    grad: Tensor,
    x: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """dL/dW [O, C, kh, kw]: [rows, taps * C] transposed times [rows, copies * O], rows being all pixels.

    Copies on axis 1: `unfolding.unfolded` says of what.
    """
    outputs, channels, *kernel = weight_shape
    taps, grad, moved = unfolding.unfolded(grad, x, (outputs, channels), kernel, stride, padding, dilation)
    columns = torch.cat(taps, 1) if len(taps) > 1 else taps[0]
    blocks = _blocks(x.shape[0], grad.shape[2] * grad.shape[3])
    left, right = (t.permute(0, 2, 3, 1).reshape(blocks, -1, t.shape[1]) for t in (columns, grad))
    product = torch.bmm(left.transpose(1, 2), right).sum(0)
    return product.reshape(len(taps), channels, moved, outputs).permute(3, 1, 2, 0).reshape(*weight_shape)


def _depthwise_gradient(
    grad: Tensor,
    x: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """dL/dW [C, 1, kh, kw]: each element the sum of the gradient times the part of the input it met."""
    kernel, out = weight_shape[2:], grad.shape[2:]
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation)
    sums = [
        (windows.window(padded, offset, out, stride, dilation) * grad).sum([2, 3]).sum(0, keepdim=True)
        for offset in windows.offsets(kernel)
    ]
    return torch.cat(sums, 0).t().reshape(*weight_shape)


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
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """As `conv.convolution_backward`, with the weight gradient of two-dimensional layers in another form."""
    form = None
    if x.dim() == 4 and not transposed and output_mask[1]:
        if groups == 1:
            form = _dense_gradient
        elif groups == x.shape[1] == weight.shape[0]:
            form = _depthwise_gradient
    mask = [output_mask[0], output_mask[1] and form is None, output_mask[2]]
    grad_x, grad_weight, grad_bias = conv.convolution_backward(
        grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask
    )
    if form is not None:
        per_axis = (windows.per_axis(v, 2) for v in (stride, padding, dilation))
        grad_weight = form(grad, x, weight.shape, *per_axis)
    return grad_x, grad_weight, grad_bias


OVERRIDES: dict[Any, Callable[..., Any]] = {aten.convolution_backward.default: convolution_backward}
