"""Forms of a convolution: x [N, C, *size] and the weight [O, C / groups, *kernel] give [N, O, *out]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clue_mobile.lowering import windows
from clue_mobile.lowering.forms import columns as pieces
from clue_mobile.lowering.forms.geometry import Form, Geometry, form

aten = torch.ops.aten
# F(2 x 2, 3 x 3): what makes a tile's 4 x 4 inputs, 3 x 3 weights and 4 x 4 products its 2 x 2 results
# (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, section 4.1)
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_WEIGHT = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


@form(lambda at: True)
def convolution(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """The runtime's own operator."""
    none = [0] * len(at.kernel)
    return aten.convolution(x, weight, None, at.stride, at.padding, at.dilation, False, none, at.groups)


@form(lambda at: at.dense and not at.pointwise)
def batched(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """im2col by slices and a product for each image: [O, taps C] with [taps C, pixels]."""
    matrix = weight.permute(0, 2, 3, 1).reshape(1, at.outputs, -1).expand(at.batch, -1, -1)
    return torch.bmm(matrix, pieces.columns(x, at)).reshape(at.batch, at.outputs, *at.out)


@form(lambda at: at.dense and not at.pointwise)
def single(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """im2col by slices with channels first, and one product: [O, taps C] with [taps C, N pixels]."""
    parts = pieces.joined(pieces.taps(x.transpose(0, 1), at), 0)
    product = torch.mm(
        weight.permute(0, 2, 3, 1).reshape(at.outputs, -1), parts.reshape(at.taps * at.channels, -1)
    )
    return product.reshape(at.outputs, at.batch, *at.out).transpose(0, 1)


def _from_rows(product: Tensor, at: Geometry) -> Tensor:
    return product.reshape(at.batch, *at.out, at.outputs).permute(0, 3, 1, 2)


def _row_matrix(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


@form(lambda at: at.dense and not at.pointwise)
def rows(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """im2col by slices with channels last, and one product: [N pixels, taps C] with [taps C, O]."""
    return _from_rows(torch.mm(pieces.rows(x, at), _row_matrix(weight)), at)


@form(lambda at: at.dense and at.steps_by_one and at.taps > 1)
def row_copies(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """A copy of x for each row of the kernel; the product makes a result for each column, which are added up
    in their places: kh + kw copies instead of kh kw."""
    padded = windows.pad_for_windows(x, at.out, at.kernel, at.stride, at.padding, at.dilation)
    height, width = at.out[0], padded.shape[3]
    kh, kw = at.kernel
    copies = [padded.narrow(2, i * at.dilation[0], height) for i in range(kh)]
    stacked = pieces.joined(copies, 1).reshape(at.batch, kh * at.channels, height * width)
    matrix = weight.permute(3, 0, 2, 1).reshape(1, kw * at.outputs, kh * at.channels)
    product = torch.bmm(matrix.expand(at.batch, -1, -1), stacked)
    product = product.reshape(at.batch, kw * at.outputs, height, width)
    total: Tensor | None = None
    for j in range(kw):
        part = product.narrow(1, j * at.outputs, at.outputs).narrow(3, j * at.dilation[1], at.out[1])
        total = part if total is None else total + part
    assert total is not None
    return total


def _strided(x: Tensor, at: Geometry) -> Tensor:
    """The pixels that a kernel of one element meets."""
    for axis in range(2):
        stop = (at.out[axis] - 1) * at.stride[axis] + 1
        x = aten.slice.Tensor(x, 2 + axis, 0, stop, at.stride[axis])
    return x


@form(lambda at: at.pointwise)
def pointwise(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """A kernel of one element: a product for each image, nothing copied where the stride is 1."""
    pixels = _strided(x, at).reshape(at.batch, at.channels, -1)
    matrix = weight.reshape(1, at.outputs, at.channels).expand(at.batch, -1, -1)
    return torch.bmm(matrix, pixels).reshape(at.batch, at.outputs, *at.out)


@form(lambda at: at.pointwise)
def pointwise_rows(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """A kernel of one element: one product of all pixels with channels last."""
    pixels = _strided(x, at).permute(0, 2, 3, 1).reshape(-1, at.channels)
    return _from_rows(torch.mm(pixels, weight.reshape(at.outputs, at.channels).t()), at)


@form(lambda at: at.depthwise)
def shifted(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Depthwise: the shifted input times each element of the kernel, added up."""
    kernels = weight.reshape(at.outputs, at.taps)
    total: Tensor | None = None
    for tap, part in enumerate(pieces.taps(x, at)):
        term = part * kernels.narrow(1, tap, 1).reshape(1, at.outputs, 1, 1)
        total = term if total is None else total + term
    assert total is not None
    return total


def _both_axes(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """[rows squared, columns squared]: the matrix applied to both axes of a plane."""
    pairs = [[a * b for a in first for b in second] for first in matrix for second in matrix]
    return torch.tensor(pairs, dtype=like.dtype)


@form(lambda at: at.dense and at.kernel == (3, 3) and at.steps_by_one and at.plain)
def winograd(x: Tensor, weight: Tensor, at: Geometry) -> Tensor:
    """Winograd's F(2 x 2, 3 x 3): 16 products of [O, C] with [C, tiles], 2.25 times fewer multiplications.

    The tiles are cut and transformed by one convolution with constant weights, channel by channel.
    """
    tiles = [(n + 1) // 2 for n in at.out]
    planes = x.reshape(at.batch * at.channels, 1, *at.size)
    padding = list(at.padding)
    if any(2 * t + 2 != n + 2 * p for t, n, p in zip(tiles, at.size, at.padding, strict=True)):
        planes = windows.pad_for_windows(planes, tiles, (4, 4), (2, 2), padding, (1, 1))
        padding = [0, 0]
    cut = _both_axes(_INPUT, x).reshape(16, 1, 4, 4)
    cut = aten.convolution(planes, cut, None, [2, 2], padding, [1, 1], False, [0, 0], 1)
    cut = cut.reshape(at.batch, at.channels, 16, math.prod(tiles)).permute(2, 1, 0, 3)
    kernels = torch.mm(_both_axes(_WEIGHT, x), weight.permute(2, 3, 0, 1).reshape(9, -1))
    product = torch.bmm(kernels.reshape(16, at.outputs, at.channels), cut.reshape(16, at.channels, -1))
    made = torch.mm(_both_axes(_OUTPUT, x), product.reshape(16, -1))  # [2 * 2, O * N * tiles]
    made = made.reshape(2, 2, at.outputs * at.batch, *tiles).permute(2, 3, 0, 4, 1)
    made = made.reshape(at.outputs, at.batch, 2 * tiles[0], 2 * tiles[1]).transpose(0, 1)
    for axis in range(2):
        made = made.narrow(2 + axis, 0, at.out[axis])
    return made


FORMS: dict[str, Form] = {
    "convolution": convolution,
    "batched": batched,
    "single": single,
    "rows": rows,
    "row_copies": row_copies,
    "pointwise": pointwise,
    "pointwise_rows": pointwise_rows,
    "shifted": shifted,
    "winograd": winograd,
}
