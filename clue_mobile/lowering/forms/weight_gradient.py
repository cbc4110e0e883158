"""Forms of a convolution's weight gradient: grad [N, O, *out] and x [N, C, *size] give [O, C / groups,
*kernel]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clue_mobile.lowering import windows
from clue_mobile.lowering.forms import columns as pieces
from clue_mobile.lowering.forms.geometry import Form, Geometry, form
from clue_mobile.lowering.forms.unfolding import weight_gradient

aten = torch.ops.aten
# A product over more rows than this is split and its parts are added up: as fast, and a tenth of the error
_ROWS = 1024


@form(lambda at: at.plane)
def unfolded(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """One product for each group, [copies C, N pixels] with [N pixels, copies O]: of x and of the gradient as
    many copies as come cheapest."""
    shape = (at.outputs, at.channels // at.groups, *at.kernel)
    return weight_gradient(grad, x, shape, at.stride, at.padding, at.dilation, at.groups)


def _reordered(product: Tensor, at: Geometry) -> Tensor:
    """[O, C, *kernel] of [O, taps C]."""
    return (
        product.reshape(at.outputs, at.taps, at.channels)
        .permute(0, 2, 1)
        .reshape(at.outputs, at.channels, *at.kernel)
    )


@form(lambda at: at.dense and at.taps > 1)
def input_columns(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """One product, [taps C, N pixels] with [N pixels, O]: copies of x alone."""
    parts = pieces.joined(pieces.taps(x.transpose(0, 1), at), 0).reshape(at.taps * at.channels, -1)
    product = torch.mm(parts, grad.transpose(0, 1).reshape(at.outputs, -1).t())
    return product.reshape(*at.kernel, at.channels, at.outputs).permute(3, 2, 0, 1)


@form(lambda at: at.dense)
def batched(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """A product for each image, [O, pixels] with [pixels, taps C], and their sum; the columns are those of
    the convolution's form of the same name."""
    pixels = grad.reshape(at.batch, at.outputs, -1)
    return _reordered(torch.bmm(pixels, pieces.columns(x, at).transpose(1, 2)).sum(0), at)


def _parts(images: int, pixels: int) -> int:
    """Into how many parts of whole images to split a product."""
    together = max(1, _ROWS // pixels)
    return min(b for b in range(1, images + 1) if images % b == 0 and images // b <= together)


@form(lambda at: at.dense)
def split(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """Split-K with channels last: for every few images a product, [taps C, rows] with [rows, O], and their
    sum."""
    parts = _parts(at.batch, math.prod(at.out))
    left = pieces.rows(x, at).reshape(parts, -1, at.taps * at.channels)
    right = grad.permute(0, 2, 3, 1).reshape(parts, -1, at.outputs)
    product = torch.bmm(left.transpose(1, 2), right).sum(0)
    return product.reshape(*at.kernel, at.channels, at.outputs).permute(3, 2, 0, 1)


def _by_shifts(at: Geometry) -> bool:
    return at.dense and at.steps_by_one and at.taps > 1


@form(_by_shifts)
def shifts(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """Copies of x moved by column and of the gradient moved by row; for each pair and image a product of
    [O, pixels] with [pixels, C]. Nothing is joined before a product, nor transposed."""
    grads, inputs = pieces.shifts(grad, x, at)
    products = [
        torch.bmm(
            left.reshape(at.batch, at.outputs, -1), right.reshape(at.batch, at.channels, -1).transpose(1, 2)
        ).unsqueeze(1)
        for left in grads
        for right in inputs
    ]
    product = torch.cat(products, 1).sum(0)  # [taps, O, C]
    return product.permute(1, 2, 0).reshape(at.outputs, at.channels, *at.kernel)


@form(_by_shifts)
def shifts_by_column(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """As `shifts`, with the copies of the gradient joined: a product for each column of the kernel and
    image."""
    grads, inputs = pieces.shifts(grad, x, at)
    left = pieces.joined(grads, 1).reshape(at.batch, -1, math.prod(grads[0].shape[2:]))
    products = [
        torch.bmm(left, right.reshape(at.batch, at.channels, -1).transpose(1, 2)).unsqueeze(1)
        for right in inputs
    ]
    product = torch.cat(products, 1).sum(0)  # [kw, kh O, C]
    product = product.reshape(at.kernel[1], at.kernel[0], at.outputs, at.channels)
    return product.permute(2, 3, 1, 0)


@form(_by_shifts)
def shifts_joined(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """As `shifts`, with both copies joined: one product for each image."""
    grads, inputs = pieces.shifts(grad, x, at)
    pixels = math.prod(grads[0].shape[2:])
    left = pieces.joined(grads, 1).reshape(at.batch, -1, pixels)
    right = pieces.joined(inputs, 1).reshape(at.batch, -1, pixels)
    product = torch.bmm(left, right.transpose(1, 2)).sum(0)
    product = product.reshape(at.kernel[0], at.outputs, at.kernel[1], at.channels)
    return product.permute(1, 3, 0, 2)


@form(_by_shifts)
def shifts_single(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """As `shifts`, of all images at once with channels first: a product for each element of the kernel."""
    grads, inputs = pieces.shifts(grad.transpose(0, 1), x.transpose(0, 1), at)
    products = [
        torch.mm(left.reshape(at.outputs, -1), right.reshape(at.channels, -1).t()).unsqueeze(0)
        for left in grads
        for right in inputs
    ]
    return torch.cat(products, 0).permute(1, 2, 0).reshape(at.outputs, at.channels, *at.kernel)


def _flat(grad: Tensor, x: Tensor, at: Geometry) -> tuple[list[Tensor], Tensor]:
    """x and the gradient with channels first in one padded layout, as flat vectors: what an element of the
    kernel meets is then a contiguous slice of x, and the gradient's zeros meet whatever lies between the rows
    and images."""
    touched = [
        windows.padded_size(o, k, 1, d) for o, k, d in zip(at.out, at.kernel, at.dilation, strict=True)
    ]
    for axis in range(2):
        x = windows.place(x, 2 + axis, at.padding[axis], touched[axis])
        grad = windows.place(grad, 2 + axis, 0, touched[axis])
    x = x.transpose(0, 1).reshape(at.channels, -1)
    grad = grad.transpose(0, 1).reshape(at.outputs, -1)
    starts = [i * at.dilation[0] * touched[1] + j * at.dilation[1] for i, j in windows.offsets(at.kernel)]
    length = grad.shape[1] - starts[-1]  # behind it the gradient has only zeros
    return [x.narrow(1, start, length) for start in starts], grad.narrow(1, 0, length).t()


@form(_by_shifts)
def flat(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """Every column a contiguous slice of x in a padded layout; a product for each element of the kernel."""
    slices, right = _flat(grad, x, at)
    product = torch.cat([torch.mm(part, right).unsqueeze(0) for part in slices], 0)
    return product.permute(2, 1, 0).reshape(at.outputs, at.channels, *at.kernel)


@form(_by_shifts)
def flat_joined(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """As `flat`, with the slices joined for one product."""
    slices, right = _flat(grad, x, at)
    product = torch.mm(torch.cat(slices, 0), right)
    return product.reshape(*at.kernel, at.channels, at.outputs).permute(3, 2, 0, 1)


@form(lambda at: at.dense)
def swapped(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """The runtime's convolution with batch and channels exchanged, the gradient its kernel: for small
    results."""
    for axis in range(2):  # what no window touches would make the result larger than the kernel
        touched = windows.padded_size(at.out[axis], at.kernel[axis], at.stride[axis], at.dilation[axis])
        x = windows.place(x, 2 + axis, at.padding[axis], touched)
    made = aten.convolution(
        x.transpose(0, 1), grad.transpose(0, 1), None, at.dilation, [0, 0], at.stride, False, [0, 0], 1
    )
    return made.transpose(0, 1)


@form(lambda at: at.plane and (at.dilation[1] == 1 or at.kernel[1] == 1))
def correlation(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """The runtime's convolution of x with the gradient as its kernel, over rows and over (columns, channels)
    as one axis: [1, N, H, W C] with [O, N, *out] gives [1, O, kh, kw C].

    A step on the joined axis is a channel, and C steps, the dilation of the kernel, are a column: so every
    element of every channel is a place of the kernel, next to its neighbour in memory. x and the gradient are
    copied once, for their order of axes, and unfolded only inside the operator, in the processor's cache.
    """
    padding = list(at.padding)
    for axis in range(2):  # what no window touches would make the result larger than the kernel
        touched = windows.padded_size(at.out[axis], at.kernel[axis], at.stride[axis], at.dilation[axis])
        if touched != at.size[axis] + 2 * at.padding[axis]:
            x, padding[axis] = windows.place(x, 2 + axis, at.padding[axis], touched), 0
    channels, (height, width) = at.channels // at.groups, x.shape[2:]
    if at.groups == 1:
        image = x.permute(0, 2, 3, 1)
    else:
        image = x.reshape(at.batch, at.groups, channels, height, width).permute(1, 0, 3, 4, 2)
    image = image.reshape(1, at.groups * at.batch, height, width * channels)
    made = aten.convolution(
        image, grad.transpose(0, 1), None, [at.dilation[0], 1], [padding[0], padding[1] * channels],
        [at.stride[0], at.stride[1] * channels], False, [0, 0], at.groups,
    )  # fmt: skip
    return made.reshape(at.outputs, *at.kernel, channels).permute(0, 3, 1, 2)


@form(lambda at: at.depthwise)
def sums(grad: Tensor, x: Tensor, at: Geometry) -> Tensor:
    """Depthwise: each element the sum of the gradient times the part of the input that it met."""
    found = [(part * grad).sum([2, 3]).sum(0, keepdim=True) for part in pieces.taps(x, at)]
    return torch.cat(found, 0).t().reshape(at.outputs, 1, *at.kernel)


FORMS: dict[str, Form] = {
    "unfolded": unfolded,
    "input_columns": input_columns,
    "batched": batched,
    "split": split,
    "shifts": shifts,
    "shifts_by_column": shifts_by_column,
    "shifts_joined": shifts_joined,
    "shifts_single": shifts_single,
    "flat": flat,
    "flat_joined": flat_joined,
    "swapped": swapped,
    "correlation": correlation,
    "sums": sums,
}
