"""Backward of convolution as forward operators.

Input gradient: a transposed convolution, which every runtime has as a fast kernel. Weight gradient: one matrix product of the
unfolded input [k*C, N*L] with the output gradient [N*L, O]; measured 4 to 10 times faster in ONNX Runtime than the same sum as a
convolution whose kernel is as large as the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clue_mobile.errors import ClueError
from clue_mobile.lowering import windows

aten = torch.ops.aten


def weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """dL/dW, shape [O, C/groups, *kernel], from grad [N, O, *out] and x [N, C, *size]."""
    out_channels, group_in, *kernel = weight_shape
    out = grad.shape[2:]
    group_out = out_channels // groups
    rows = grad.shape[0] * out.numel()

    padded = windows.pad_for_windows(x.transpose(0, 1), out, kernel, stride, padding, dilation)
    taps = [windows.window(padded, offset, out, stride, dilation) for offset in windows.offsets(kernel)]
    if groups == 1:  # a plain matrix product: runtimes have faster kernels for it than for a batch of one
        columns = torch.cat(taps).reshape(len(taps) * group_in, rows)
        grads = grad.permute(0, *range(2, grad.dim()), 1).reshape(rows, group_out)
        per_tap = torch.mm(columns, grads).reshape(len(taps), group_in, group_out)
        return per_tap.permute(2, 1, 0).reshape(*weight_shape)
    columns = torch.cat([tap.reshape(groups, group_in, rows) for tap in taps], 1)
    grads = grad.transpose(0, 1).reshape(groups, group_out, rows).transpose(1, 2)
    product = torch.bmm(columns, grads).reshape(groups, len(taps), group_in, group_out)
    return product.permute(0, 3, 2, 1).reshape(*weight_shape)


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
    """Gradients of (x, weight, bias) where `output_mask` asks for them. Raises ClueError for transposed convolutions."""
    if transposed:
        raise ClueError(
            "the backward pass of a transposed convolution is not lowered yet; choices: convolution with any stride, padding, "
            "dilation and groups, or freeze the layer"
        )
    axes = x.dim() - 2
    stride, padding, dilation = (windows.per_axis(v, axes) for v in (stride, padding, dilation))
    grad_x = grad_weight = grad_bias = None
    if output_mask[0]:
        rest = [  # the tail that no window touched, shorter than a stride: the transposed convolution's output padding
            x.shape[2 + a] - (windows.padded_size(grad.shape[2 + a], weight.shape[2 + a], stride[a], dilation[a]) - 2 * padding[a])
            for a in range(axes)
        ]
        grad_x = aten.convolution(grad, weight, None, stride, padding, dilation, True, rest, groups)
    if output_mask[1]:
        grad_weight = weight_gradient(grad, x, weight.shape, stride, padding, dilation, groups)
    if output_mask[2]:
        grad_bias = grad.sum([0, *range(2, grad.dim())])
    return grad_x, grad_weight, grad_bias


TABLE = {aten.convolution_backward.default: convolution_backward}
