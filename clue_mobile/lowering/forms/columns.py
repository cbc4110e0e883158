"""Pieces that several forms are made of. Equal calls become one node in a program (common subexpressions), so
a forward pass and a weight gradient that ask for the same columns share them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clue_mobile.lowering import windows
from clue_mobile.lowering.forms.geometry import Geometry


def taps(x: Tensor, at: Geometry) -> list[Tensor]:
    """For each element of the kernel the input that it meets: x [.., .., *size] gives [.., .., *out]."""
    padded = windows.pad_for_windows(x, at.out, at.kernel, at.stride, at.padding, at.dilation)
    return [
        windows.window(padded, offset, at.out, at.stride, at.dilation)
        for offset in windows.offsets(at.kernel)
    ]


def joined(parts: list[Tensor], dim: int) -> Tensor:
    """A concatenation, of one part too."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def columns(x: Tensor, at: Geometry) -> Tensor:
    """[N, taps * C, pixels] of x [N, C, *size]."""
    return joined(taps(x, at), 1).reshape(at.batch, at.taps * at.channels, math.prod(at.out))


def rows(x: Tensor, at: Geometry) -> Tensor:
    """[N * pixels, taps * C] of x [N, C, H, W]."""
    padded = windows.pad_for_windows(x, at.out, at.kernel, at.stride, at.padding, at.dilation)
    last = padded.permute(0, 2, 3, 1)
    parts = []
    for offset in windows.offsets(at.kernel):
        part = last
        for axis in reversed(range(2)):
            start = offset[axis] * at.dilation[axis]
            stop = start + (at.out[axis] - 1) * at.stride[axis] + 1
            part = torch.ops.aten.slice.Tensor(part, 1 + axis, start, stop, at.stride[axis])
        parts.append(part)
    return joined(parts, 3).reshape(-1, at.taps * at.channels)


def moved(x: Tensor, dim: int, before: int, size: int) -> Tensor:
    """x shifted along an axis of length `size`: zeros come in, what leaves is cut."""
    return windows.place(x, dim, before, size)


def shifts(grad: Tensor, x: Tensor, at: Geometry) -> tuple[list[Tensor], list[Tensor]]:
    """Copies of the gradient, one for each row of the kernel, and of x, one for each column, whose products
    are the elements of the weight's gradient: stride 1, all of shape [.., .., H, out width].

    Element (i, j) is the sum of grad[h, w] x[h + i d - p, w + j d - p]: i moves the gradient, j moves x.
    """
    height, width = at.size[0], at.out[1]
    grads = [moved(grad, 2, i * at.dilation[0] - at.padding[0], height) for i in range(at.kernel[0])]
    inputs = [moved(x, 3, at.padding[1] - j * at.dilation[1], width) for j in range(at.kernel[1])]
    return grads, inputs


def turned(weight: Tensor) -> Tensor:
    """[C, O, *kernel] of [O, C, *kernel], the kernel turned around: what a convolution's adjoint takes."""
    swapped = weight.transpose(0, 1)
    axes = [axis for axis in range(2, weight.dim()) if weight.shape[axis] > 1]
    return swapped.flip(axes) if axes else swapped
