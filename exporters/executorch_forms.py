"""Lowerings in the forms that ExecuTorch's XNNPACK delegate runs well.

Its convolution wants constant weights, and a program's weights are inputs: so convolution and its backward
are products of batches of matrices here, one matrix an image, channels first. A product takes its second
operand transposed, and its first the same for all images, without a copy: no image is ever transposed.

A kernel of K x K unfolds into K * K copies of its input. With stride 1 only the kernel's columns are unfolded
(K copies); one product makes the results of all its rows, which are then added up, each moved by its row:
about half the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import conv, windows

aten = torch.ops.aten

Ints = Sequence[int]


@dataclass(frozen=True)
class _Windows:
    """Geometry of a convolution: everything per spatial axis; `size` of the input, `out` of the output."""

    size: Ints
    out: Ints
    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int

    @property
    def taps(self) -> int:
        """Elements of the kernel."""
        return math.prod(self.kernel)

    @property
    def by_rows(self) -> bool:
        """Whether the rows of the kernel need not be unfolded."""
        plane = len(self.kernel) == 2 and self.kernel[0] > 1
        return plane and set(self.stride) == {1} and self.groups == 1

    @property
    def patches(self) -> bool:
        """Whether the windows neither overlap nor leave gaps (rank 6 is the most the delegate takes)."""
        plain = not any(self.padding) and (set(self.dilation) == {1} or self.taps == 1)
        return plain and list(self.kernel) == list(self.stride) and len(self.kernel) <= 2


def _batched(matrix: Tensor, batch: int) -> Tensor:
    """[M, K] as [batch, M, K]: the product takes it without a copy."""
    return matrix.unsqueeze(0).expand(batch, -1, -1)


def _padded(x: Tensor, at: _Windows) -> Tensor:
    return windows.pad_for_windows(x, at.out, at.kernel, at.stride, at.padding, at.dilation)


def _unfold_axis(x: Tensor, at: _Windows, axis: int) -> Tensor:
    """Windows along one spatial axis of padded x: channels become [taps of the axis, channels]."""
    dim = x.dim() - len(at.kernel) + axis
    length = (at.out[axis] - 1) * at.stride[axis] + 1
    starts = [k * at.dilation[axis] for k in range(at.kernel[axis])]
    parts = [
        aten.slice.Tensor(x, dim, start, start + length, at.stride[axis]) if at.stride[axis] > 1
        else x.narrow(dim, start, length)
        for start in starts
    ]  # fmt: skip
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _unfold(x: Tensor, at: _Windows) -> Tensor:
    """[N, C, *size] as [N, taps * C, *out], the taps row-major."""
    if not at.patches:
        x = _padded(x, at)
        for axis in reversed(range(len(at.kernel))):
            x = _unfold_axis(x, at, axis)
        return x
    batch, channels = x.shape[:2]
    for axis, (n, k) in enumerate(zip(at.out, at.kernel, strict=True)):
        x = x.narrow(2 + axis, 0, n * k)
    pairs = [size for pair in zip(at.out, at.kernel, strict=True) for size in pair]
    rank = len(at.out)
    x = x.reshape(batch, channels, *pairs)
    x = x.permute(0, *(3 + 2 * i for i in range(rank)), 1, *(2 + 2 * i for i in range(rank)))
    return x.reshape(batch, at.taps * channels, *at.out)


def _fold(columns: Tensor, at: _Windows) -> Tensor:
    """The adjoint of `_unfold`: [N, taps, C, *out] added up at its place in [N, C, *size]."""
    batch, _, channels = columns.shape[:3]
    if not at.patches:
        parts = [columns.select(1, tap) for tap in range(at.taps)]
        return windows.unwindow(parts, at.size, at.kernel, at.stride, at.padding, at.dilation)
    rank = len(at.out)
    x = columns.reshape(batch, *at.kernel, channels, *at.out)
    order = [axis for i in range(rank) for axis in (rank + 2 + i, 1 + i)]
    x = x.permute(0, rank + 1, *order)
    x = x.reshape(batch, channels, *(n * k for n, k in zip(at.out, at.kernel, strict=True)))
    for axis, size in enumerate(at.size):
        x = windows.place(x, 2 + axis, 0, size)
    return x


def _per_group(columns: Tensor, at: _Windows) -> Tensor:
    """[N, taps * C, *out] as [N * groups, taps * C / groups, pixels]."""
    batch, pixels = columns.shape[0], math.prod(at.out)
    if at.groups == 1:
        return columns.reshape(batch, -1, pixels)
    split = columns.reshape(batch, at.taps, at.groups, -1, pixels).transpose(1, 2)
    return split.reshape(batch * at.groups, -1, pixels)


def _matrices(weight: Tensor, at: _Windows, batch: int) -> Tensor:
    """[O, C / groups, *kernel] as [N * groups, O / groups, taps * C / groups], for every image."""
    matrix = weight.permute(0, *range(2, weight.dim()), 1).reshape(
        at.groups, weight.shape[0] // at.groups, -1
    )
    if at.groups == 1:
        return matrix.expand(batch, -1, -1)
    return matrix.unsqueeze(0).expand(batch, -1, -1, -1).reshape(-1, *matrix.shape[1:])


def _depthwise(weight: Tensor, at: _Windows) -> bool:
    return at.groups == weight.shape[0] and weight.shape[1] == 1 and at.groups > 1


def _tap_weights(weight: Tensor) -> list[Tensor]:
    """Of a depthwise kernel: [1, C, 1, ...] for each tap."""
    flat = weight.reshape(weight.shape[0], -1)
    ones = [1] * (weight.dim() - 2)
    return [flat.narrow(1, tap, 1).reshape(1, -1, *ones) for tap in range(flat.shape[1])]


def _tap_inputs(x: Tensor, at: _Windows) -> list[Tensor]:
    padded = _padded(x, at)
    return [
        windows.window(padded, offset, at.out, at.stride, at.dilation)
        for offset in windows.offsets(at.kernel)
    ]


def _by_rows(x: Tensor, matrix: Tensor, rows: Ints, columns: Ints, out: Ints) -> Tensor:
    """Convolution with stride 1 of padded x [N, C, H, W].

    matrix: [rows * O, columns * C]. rows, columns: where each row and column of the kernel begins in x.
    """
    batch, _, height, _ = x.shape
    wide = torch.cat([x.narrow(3, start, out[1]) for start in columns], 1)
    made = torch.bmm(_batched(matrix, batch), wide.reshape(batch, -1, height * out[1]))
    made = made.reshape(batch, -1, height, out[1])
    channels = made.shape[1] // len(rows)
    parts = [made.narrow(1, i * channels, channels).narrow(2, start, out[0]) for i, start in enumerate(rows)]
    return _total(parts)


def _forward(x: Tensor, weight: Tensor, at: _Windows) -> Tensor:
    batch, out_channels = x.shape[0], weight.shape[0]
    if _depthwise(weight, at):
        products = [tap * w for tap, w in zip(_tap_inputs(x, at), _tap_weights(weight), strict=True)]
        return _total(products)
    # with few input channels the results of all rows would be more than the unfolded input
    if at.by_rows and out_channels <= 2 * x.shape[1]:
        matrix = weight.permute(2, 0, 3, 1).reshape(at.kernel[0] * out_channels, -1)
        rows, columns = ([k * d for k in range(n)] for n, d in zip(at.kernel, at.dilation, strict=True))
        return _by_rows(_padded(x, at), matrix, rows, columns, at.out)
    made = torch.bmm(_matrices(weight, at, batch), _per_group(_unfold(x, at), at))
    return made.reshape(batch, out_channels, *at.out)


def _input_gradient(grad: Tensor, weight: Tensor, at: _Windows) -> Tensor:
    """dL/dx [N, C, *size] of grad [N, O, *out]; also the transposed convolution of grad."""
    batch, channels = grad.shape[0], weight.shape[1] * at.groups
    if _depthwise(weight, at):
        return windows.unwindow(
            [grad * w for w in _tap_weights(weight)], at.size, at.kernel, at.stride, at.padding, at.dilation
        )
    if at.by_rows and channels <= 2 * grad.shape[1]:
        for axis in range(2):
            reach = at.dilation[axis] * (at.kernel[axis] - 1)
            grad = windows.place(grad, 2 + axis, reach - at.padding[axis], at.size[axis] + reach)
        matrix = weight.permute(2, 1, 3, 0).reshape(at.kernel[0] * channels, -1)
        rows, columns = (
            [k * d for k in reversed(range(n))] for n, d in zip(at.kernel, at.dilation, strict=True)
        )
        return _by_rows(grad, matrix, rows, columns, at.size)
    matrices = _matrices(weight, at, batch).transpose(1, 2)
    columns_of = torch.bmm(matrices, grad.reshape(batch * at.groups, -1, math.prod(at.out)))
    columns_of = columns_of.reshape(batch, at.groups, at.taps, -1, math.prod(at.out)).transpose(1, 2)
    return _fold(columns_of.reshape(batch, at.taps, channels, *at.out), at)


def _weight_gradient(grad: Tensor, x: Tensor, shape: Ints, at: _Windows) -> Tensor:
    """dL/dW [O, C / groups, *kernel]: products image by image, then their sum. In stages, so that rounding
    stays small."""
    batch, out_channels = grad.shape[:2]
    axes = [0, *range(2, grad.dim())]
    if at.groups == out_channels and shape[1] == 1 and at.groups > 1:
        sums = [(grad * tap).sum(axes).reshape(-1, 1) for tap in _tap_inputs(x, at)]
        return torch.cat(sums, 1).reshape(list(shape)) if len(sums) > 1 else sums[0].reshape(list(shape))
    if at.by_rows:
        wide = _unfold_axis(_padded(x, at), at, 1)
        starts = [k * at.dilation[0] for k in range(at.kernel[0])]
        tall = torch.cat([windows.place(grad, 2, start, wide.shape[2]) for start in starts], 1)
        pixels = wide.shape[2] * wide.shape[3]
        tall, wide = tall.reshape(batch, -1, pixels), wide.reshape(batch, -1, pixels)
        product = torch.bmm(tall, wide.transpose(1, 2)).sum(0)
        product = product.reshape(at.kernel[0], out_channels, at.kernel[1], -1)
        return product.permute(1, 3, 0, 2)
    columns = _per_group(_unfold(x, at), at)
    rows = grad.reshape(batch * at.groups, -1, columns.shape[2])
    product = torch.bmm(rows, columns.transpose(1, 2))
    product = product.reshape(batch, -1).sum(0).reshape(out_channels, *at.kernel, -1)
    return product.permute(0, product.dim() - 1, *range(1, product.dim() - 1))


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _geometry(
    size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> _Windows:
    axes = len(kernel)
    stride, padding, dilation = (windows.per_axis(v, axes) for v in (stride, padding, dilation))
    return _Windows(size, out, kernel, stride, padding, dilation, groups)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Tensor:
    """Convolution of one to three axes, also transposed, as products."""
    kernel = weight.shape[2:]
    axes = len(kernel)
    stride, padding, dilation = (windows.per_axis(v, axes) for v in (stride, padding, dilation))
    touched = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if transposed:
        extra = windows.per_axis(output_padding, axes)
        made = [
            (n - 1) * s - 2 * p + t + e
            for n, s, p, t, e in zip(x.shape[2:], stride, padding, touched, extra, strict=True)
        ]
        y = _input_gradient(x, weight, _Windows(made, x.shape[2:], kernel, stride, padding, dilation, groups))
    else:
        made = [
            (n + 2 * p - t) // s + 1 for n, s, p, t in zip(x.shape[2:], stride, padding, touched, strict=True)
        ]
        y = _forward(x, weight, _Windows(x.shape[2:], made, kernel, stride, padding, dilation, groups))
    return y if bias is None else y + bias.reshape(1, -1, *([1] * axes))


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Ints | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (x, weight, bias) where `output_mask` asks for them."""
    if transposed:
        return conv.convolution_backward(
            grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups,
            output_mask,
        )  # fmt: skip
    at = _geometry(x.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, groups)
    return (
        _input_gradient(grad, weight, at) if output_mask[0] else None,
        _weight_gradient(grad, x, weight.shape, at) if output_mask[1] else None,
        grad.sum([0, *range(2, grad.dim())]) if output_mask[2] else None,
    )


def native_layer_norm(
    x: Tensor, normalized_shape: Ints, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(output, mean, 1/std) by means and element-wise operators; the statistics keep the axes with size 1."""
    axes = list(range(x.dim() - len(normalized_shape), x.dim()))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    out = centred * rstd
    if weight is not None:
        out = out * weight
    return (out if bias is None else out + bias), mean, rstd


def gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """The tanh approximation spelled out; the delegate has the exact one."""
    if approximate != "tanh":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def erf(x: Tensor) -> Tensor:
    """The delegate has none: 1 minus a polynomial times exp(-x^2), with the sign of x (Abramowitz and Stegun,
    formula 7.1.26). Its error of 1.5e-7 is that of float32."""
    z = x.abs()
    t = 1 / (1 + 0.3275911 * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return torch.sign(x) * (1 - tail * torch.exp(-z * z))


OVERRIDES: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm.default: native_layer_norm,
    aten.gelu.default: gelu,
    aten.erf.default: erf,
    aten.convolution.default: convolution,
    aten.convolution_backward.default: convolution_backward,
}
