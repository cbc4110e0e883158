"""Forms of a convolution's input gradient: grad [N, O, *out] and the weight [O, C / groups, *kernel] give
[N, C, *size]."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from clue_mobile.lowering import windows
from clue_mobile.lowering.forms import columns as pieces
from clue_mobile.lowering.forms import forward
from clue_mobile.lowering.forms.geometry import Form, Geometry, form

aten = torch.ops.aten


@form(lambda at: True)
def transposed_convolution(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """The runtime's own operator."""
    # the tail that no window touched, shorter than a stride: the operator's output padding
    tail = [
        n + 2 * p - windows.padded_size(o, k, s, d)
        for n, p, o, k, s, d in zip(
            at.size, at.padding, at.out, at.kernel, at.stride, at.dilation, strict=True
        )
    ]
    return aten.convolution(grad, weight, None, at.stride, at.padding, at.dilation, True, tail, at.groups)


def _mirror(at: Geometry) -> Geometry:
    mirror = at.mirrored()
    assert mirror is not None
    return mirror


@form(lambda at: at.dense and at.mirrored() is not None)
def convolution(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Stride 1: the runtime's convolution with the kernel turned around."""
    return forward.convolution(grad, pieces.turned(weight), _mirror(at))


@form(lambda at: at.dense and at.mirrored() is not None and at.taps > 1)
def row_copies(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Stride 1: the form of the same name of the convolution with the kernel turned around."""
    return forward.row_copies(grad, pieces.turned(weight), _mirror(at))


@form(lambda at: at.dense and at.mirrored() is not None and at.taps > 1)
def rows(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Stride 1: the form of the same name of the convolution with the kernel turned around."""
    return forward.rows(grad, pieces.turned(weight), _mirror(at))


@form(lambda at: at.dense and at.mirrored() is not None and at.kernel == (3, 3) and at.plain)
def winograd(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Stride 1: the form of the same name of the convolution with the kernel turned around."""
    return forward.winograd(grad, pieces.turned(weight), _mirror(at))


@form(lambda at: at.dense and not at.steps_by_one)
def spread(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """With strides: zeros between the elements of the gradient, then the convolution with the kernel turned
    around."""
    lengths = []
    for axis in range(2):
        reach = at.dilation[axis] * (at.kernel[axis] - 1)
        grad = windows.dilate(grad, 2 + axis, at.stride[axis])
        lengths.append(at.size[axis] + reach)
        grad = windows.place(grad, 2 + axis, reach - at.padding[axis], lengths[axis])
    mirror = replace(
        at, channels=at.outputs, outputs=at.channels, size=tuple(lengths), stride=(1, 1), padding=(0, 0)
    )
    return forward.convolution(grad, pieces.turned(weight), mirror)


@form(lambda at: at.dense and not at.steps_by_one and at.plain)
def residues(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """With strides: for each residue of a pixel's place a small convolution with every stride-th element of
    the kernel; their results are interleaved, and no product is with a zero.

    Row r + s t of the padded input, r below the stride s, has met the elements r, r + s, .. of the kernel:
    its gradient is the sum over m of grad[t - m] times element r + s m.
    """
    turned = pieces.turned(weight)  # element r + s m stands at k - 1 - r - s m
    counts = [(n + p + s - 1) // s for n, p, s in zip(at.size, at.padding, at.stride, strict=True)]
    bands = {}
    for first in range(min(at.stride[0], at.kernel[0])):
        parts = {}
        for second in range(min(at.stride[1], at.kernel[1])):
            part, kernel, sizes = grad, turned, []
            for axis, residue in enumerate((first, second)):
                k, s = at.kernel[axis], at.stride[axis]
                last = k - 1 - residue
                kernel = aten.slice.Tensor(kernel, 2 + axis, last % s, last + 1, s)
                reach = last // s
                sizes.append(counts[axis] + reach)
                part = windows.place(part, 2 + axis, reach, sizes[axis])
            at_part = replace(
                at, channels=at.outputs, outputs=at.channels, size=tuple(sizes), stride=(1, 1),
                padding=(0, 0), kernel=(int(kernel.shape[2]), int(kernel.shape[3])),
            )  # fmt: skip
            parts[second] = forward.convolution(part, kernel, at_part)
        bands[first] = windows.interleave(parts, 3, at.stride[1])
    whole = windows.interleave(bands, 2, at.stride[0])
    for axis in range(2):
        whole = windows.place(whole, 2 + axis, -at.padding[axis], at.size[axis])
    return whole


def _matrix(weight: Tensor, at: Geometry) -> Tensor:
    """[1, taps C, O]."""
    return weight.permute(2, 3, 1, 0).reshape(1, at.taps * at.channels, at.outputs)


@form(lambda at: at.dense and not at.pointwise)
def folded(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """A product for each image, [taps C, O] with [O, pixels], whose columns are added up in their places
    (col2im)."""
    pixels = grad.reshape(at.batch, at.outputs, -1)
    product = torch.bmm(_matrix(weight, at).expand(at.batch, -1, -1), pixels)
    product = product.reshape(at.batch, at.taps, at.channels, *at.out)
    parts = [product.select(1, tap) for tap in range(at.taps)]
    return windows.unwindow(parts, at.size, at.kernel, at.stride, at.padding, at.dilation)


def _between_zeros(pixels: Tensor, at: Geometry) -> Tensor:
    """The results of a kernel of one element in their places."""
    for axis in range(2):
        pixels = windows.dilate(pixels, 2 + axis, at.stride[axis])
        pixels = windows.place(pixels, 2 + axis, 0, at.size[axis])
    return pixels


@form(lambda at: at.pointwise)
def pointwise(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """A kernel of one element: a product for each image."""
    matrix = weight.reshape(at.outputs, at.channels).t().unsqueeze(0).expand(at.batch, -1, -1)
    product = torch.bmm(matrix, grad.reshape(at.batch, at.outputs, math.prod(at.out)))
    return _between_zeros(product.reshape(at.batch, at.channels, *at.out), at)


@form(lambda at: at.pointwise)
def pointwise_rows(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """A kernel of one element: one product of all pixels with channels last."""
    pixels = grad.permute(0, 2, 3, 1).reshape(-1, at.outputs)
    product = torch.mm(pixels, weight.reshape(at.outputs, at.channels))
    product = product.reshape(at.batch, *at.out, at.channels).permute(0, 3, 1, 2)
    return _between_zeros(product, at)


@form(lambda at: at.depthwise)
def shifted(grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Depthwise: the gradient times each element of the kernel, added up in its place."""
    kernels = weight.reshape(at.channels, at.taps)
    parts = [grad * kernels.narrow(1, tap, 1).reshape(1, at.channels, 1, 1) for tap in range(at.taps)]
    return windows.unwindow(parts, at.size, at.kernel, at.stride, at.padding, at.dilation)


FORMS: dict[str, Form] = {
    "transposed_convolution": transposed_convolution,
    "convolution": convolution,
    "row_copies": row_copies,
    "rows": rows,
    "winograd": winograd,
    "spread": spread,
    "residues": residues,
    "folded": folded,
    "pointwise": pointwise,
    "pointwise_rows": pointwise_rows,
    "shifted": shifted,
}
