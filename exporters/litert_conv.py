"""Convolution whose weights are inputs, in the forms that LiteRT runs fast and right.

XNNPACK, LiteRT's fast path, takes only convolutions with constant weights; those of a program are inputs. A
stride-1 convolution therefore becomes one product of matrices, which XNNPACK does take: 1.3 (16 channels) to
3.5 (64 channels) times faster than LiteRT's own CONV_2D. What is left stays CONV_2D, DEPTHWISE_CONV_2D,
TRANSPOSE_CONV or CONV_3D.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporters.litert_call import F32, Call, Result, is_same, window_pads
from exporters.litert_graph import UnsupportedError
from exporters.litert_layout import Value, channels_last, plain

SAME, VALID = 0, 1
# below, the product is too thin: CONV_2D is faster (3 channels: 2.7 against 11 ms)
_FEWEST_CHANNELS = 8
# above, the partial results that are to be added up are larger than what CONV_2D unfolds
_LARGEST_KERNEL = 5
_MOST_SPLITS = 64


@dataclass(frozen=True)
class Windows:
    """How a kernel moves over the spatial axes: `size` is that of the input, `out` of the result."""

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def all(self) -> tuple[tuple[int, ...], ...]:
        """As `window_pads` and `is_same` take them."""
        return self.size, self.out, self.kernel, self.stride, self.padding, self.dilation


def _spread(value: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(value) if len(value) == axes else tuple(value) * axes


def convolution(c: Call) -> Result:
    """aten.convolution: 1, 2 or 3 spatial axes, any stride, padding, dilation and groups, also transposed."""
    x, weight, bias = c[0], c[1], c[2]
    transposed, groups = c[6], c[8]
    axes = len(x.shape) - 2
    if axes not in (1, 2, 3):
        raise UnsupportedError(f"convolution over {axes} axes")
    stride, padding, dilation = (_spread(c[i], axes) for i in (3, 4, 5))
    windows = Windows(x.shape[2:], tuple(c.out.shape[2:]), weight.shape[2:], stride, padding, dilation)
    if axes == 1:
        out = _one_axis(c, x, weight, windows, transposed, groups)
    elif axes == 3:
        out = _three_axes(c, x, weight, windows, transposed, groups)
    elif transposed:
        out = _transposed(c, x, weight, windows, groups)
    else:
        out = _forward(c, x, weight, windows, groups)
    if bias is not None:
        out = c.binary("ADD", out, c.l.reshape(bias, (1, bias.numel, *[1] * axes)), out.shape)
    return out


def _one_axis(c: Call, x: Value, weight: Value, w: Windows, transposed: bool, groups: int) -> Value:
    x, weight = (c.l.reshape(v, (*v.shape[:2], 1, v.shape[2])) for v in (x, weight))
    w = Windows((1, *w.size), (1, *w.out), (1, *w.kernel), (1, *w.stride), (0, *w.padding), (1, *w.dilation))
    out = (_transposed if transposed else _forward)(c, x, weight, w, groups)
    return c.l.reshape(out, (*out.shape[:2], out.shape[3]))


# two axes; weight is logically [O, C / groups, *kernel]


def _forward(c: Call, x: Value, weight: Value, w: Windows, groups: int, flip: bool = False) -> Value:
    """`flip`: with the kernel turned around, as a transposed convolution's is."""
    channels = x.shape[1]
    if groups == 1:
        if w.kernel == (1, 1) and not any(w.padding):
            return _pointwise(c, x, weight, w)
        if channels >= _FEWEST_CHANNELS and max(w.kernel) <= _LARGEST_KERNEL:
            return (_as_product if w.stride == (1, 1) else _unfolded)(c, x, weight, w, flip)
    if flip:
        weight = _flipped(c, weight)
    if groups == 1:
        return _conv_2d(c, x, weight, w)
    if groups == channels:
        return _depthwise(c, x, weight, w)
    return _split(c, x, weight, groups, lambda part, kernel: _forward(c, part, kernel, w, 1))


def _pointwise(c: Call, x: Value, weight: Value, w: Windows) -> Value:
    x = c.cut(
        x, {2 + i: (0, w.out[i], w.stride[i]) for i in range(2) if w.stride[i] > 1 or w.out[i] < w.size[i]}
    )
    n, channels, height, width = x.shape
    rows = c.l.reshape(c.l.permute(x, (0, 2, 3, 1)), (n * height * width, channels))
    kernel = c.l.permute(c.l.reshape(weight, weight.shape[:2]), (1, 0))
    product = c.matmul(rows, kernel, (n * height * width, weight.shape[0]))
    return _image(c, product, (n, height, width, weight.shape[0]))


def _image(c: Call, rows: Value, shape: Sequence[int]) -> Value:
    """Rows of channels as [N, C, H, W], stored with channels last."""
    return c.l.permute(c.l.reshape(rows, shape), (0, 3, 1, 2))


def _as_product(c: Call, x: Value, weight: Value, w: Windows, flip: bool) -> Value:
    """One axis of the kernel (rows) moves copies of the input, the other copies of the result.

    3 copies of each for a 3x3 kernel, where unfolding takes 9 of the input. The rows of the product are the
    pixels of the input padded along the other axis, its columns the parts of the result that are added up.
    """
    n = x.shape[0]
    pads, _ = window_pads(*w.all)
    x = c.pad(c.l.to(x, channels_last(4)), [(0, 0), (0, 0), *pads])
    x = c.cut(x, {2 + i: (0, w.out[i] + w.dilation[i] * (w.kernel[i] - 1), 1) for i in range(2)})
    first = 0 if w.kernel[0] > 1 else 1
    second = 1 - first

    def places(axis: int) -> list[int]:
        offsets = [i * w.dilation[axis] for i in range(w.kernel[axis])]
        return offsets[::-1] if flip else offsets

    copies = [c.slice(x, 2 + first, place, w.out[first]) for place in places(first)]
    columns = c.concatenate(copies, 1)
    _, depth, height, width = columns.shape
    rows = c.l.reshape(c.l.permute(columns, (0, 2, 3, 1)), (n * height * width, depth))
    outputs = weight.shape[0]
    kernel = c.l.permute(weight, (2 + second, 0, 2 + first, 1))  # [parts, O, copies, C]
    kernel = c.l.reshape(kernel, (w.kernel[second] * outputs, depth))
    product = c.matmul(rows, c.l.permute(kernel, (1, 0)), (n * height * width, kernel.shape[0]))
    parts = _image(c, product, (n, height, width, kernel.shape[0]))
    out: Value | None = None
    for number, place in enumerate(places(second)):
        part = c.cut(parts, {1: (number * outputs, outputs, 1), 2 + second: (place, w.out[second], 1)})
        out = part if out is None else c.binary("ADD", out, part, part.shape)
    assert out is not None
    return out


def _unfolded(c: Call, x: Value, weight: Value, w: Windows, flip: bool) -> Value:
    """One copy of the input for each element of the kernel: with strides these are small."""
    n, outputs = x.shape[0], weight.shape[0]
    pads, _ = window_pads(*w.all)
    x = c.pad(c.l.to(x, channels_last(4)), [(0, 0), (0, 0), *pads])
    copies = []
    for offset in itertools.product(*(range(k) for k in w.kernel)):
        place = [i * d for i, d in zip(offset, w.dilation, strict=True)]
        copies.append(c.cut(x, {2 + i: (place[i], w.out[i], w.stride[i]) for i in range(2)}))
    columns = c.concatenate(copies, 1)
    pixels = n * math.prod(w.out)
    rows = c.l.reshape(c.l.permute(columns, (0, 2, 3, 1)), (pixels, columns.shape[1]))
    kernel = c.l.reshape(c.l.permute(weight, (0, 2, 3, 1)), (outputs, columns.shape[1]))
    product = c.matmul(rows, c.l.permute(kernel, (1, 0)), (pixels, outputs))
    return _image(c, product, (n, *w.out, outputs))


def _padded(c: Call, x: Value, w: Windows) -> tuple[Value, int]:
    """The input in channels-last order, and the padding that the operator is to add."""
    if is_same(*w.all):
        return c.l.to(x, channels_last(len(x.shape))), SAME
    pads, touched = window_pads(*w.all)
    x = c.pad(x, [(0, 0), (0, 0), *pads])
    x = c.cut(x, {2 + i: (0, length, 1) for i, length in enumerate(touched)})
    return c.l.to(x, channels_last(len(x.shape))), VALID


def _no_bias(c: Call, channels: int) -> Value:
    return c.l.constant(np.zeros(channels, np.float32), F32)


def _conv_2d(c: Call, x: Value, weight: Value, w: Windows) -> Value:
    x, padding = _padded(c, x, w)
    weight = c.l.to(weight, channels_last(4))
    shape = (x.shape[0], weight.shape[0], *w.out)
    return c.l.emit(
        "CONV_2D", [x, weight, _no_bias(c, weight.shape[0])], shape, channels_last(4),
        options="Conv2DOptions", padding=padding, strideH=w.stride[0], strideW=w.stride[1],
        dilationHFactor=w.dilation[0], dilationWFactor=w.dilation[1],
    )  # fmt: skip


def _depthwise(c: Call, x: Value, weight: Value, w: Windows) -> Value:
    if w.stride[0] != w.stride[1]:  # the kernel knows one stride
        raise UnsupportedError(f"depthwise convolution with strides {list(w.stride)}")
    x, padding = _padded(c, x, w)
    outputs = weight.shape[0]
    kernel = c.l.to(c.l.permute(weight, (1, 2, 3, 0)), plain(4))  # [1, kh, kw, O]
    return c.l.emit(
        "DEPTHWISE_CONV_2D", [x, kernel, _no_bias(c, outputs)], (x.shape[0], outputs, *w.out),
        channels_last(4), options="DepthwiseConv2DOptions", padding=padding, strideH=w.stride[0],
        strideW=w.stride[1], depthMultiplier=outputs // x.shape[1], dilationHFactor=w.dilation[0],
        dilationWFactor=w.dilation[1],
    )  # fmt: skip


def _flipped(c: Call, weight: Value) -> Value:
    order = channels_last(len(weight.shape))
    weight = c.l.to(weight, order)
    axes = c.graph.ints(range(1, len(order) - 1))
    return c.l.emit("REVERSE_V2", [weight, axes], weight.shape, order, options="ReverseV2Options")


def _split(c: Call, x: Value, weight: Value, groups: int, one: Callable[[Value, Value], Value]) -> Value:
    """Each group by itself: LiteRT's own grouped kernel is its slow reference."""
    if groups > _MOST_SPLITS:
        raise UnsupportedError(f"convolution with {groups} groups of several channels")
    channels, share = x.shape[1] // groups, weight.shape[0] // groups
    parts = [
        one(c.slice(x, 1, g * channels, channels), c.slice(weight, 0, g * share, share))
        for g in range(groups)
    ]
    return c.concatenate(parts, 1)


# transposed; weight is logically [C, O / groups, *kernel]


def _transposed(c: Call, x: Value, weight: Value, w: Windows, groups: int) -> Value:
    if groups > 1 and groups != x.shape[1]:
        return _split(c, x, weight, groups, lambda part, kernel: _transposed(c, part, kernel, w, 1))
    if groups == 1 and w.kernel == (1, 1):  # the product first: the zeros between its results come cheaper
        x = _pointwise(c, x, c.l.permute(weight, (1, 0, 2, 3)), replace(w, out=w.size, stride=(1, 1)))
        for axis in range(2):
            x = _dilate(c, x, 2 + axis, w.stride[axis])
        return _placed(c, x, x.shape[2:], w)
    if groups == 1 and max(w.stride) > 1 and max(w.dilation) == 1:
        return _transpose_conv(c, x, weight, w)
    if max(w.stride) > 1:
        for axis in range(2):
            x = _dilate(c, x, 2 + axis, w.stride[axis])
    # what is left is a convolution with the kernel turned around
    reach = [d * (k - 1) - p for k, p, d in zip(w.kernel, w.padding, w.dilation, strict=True)]
    x = c.cut(x, {2 + i: (-r, x.shape[2 + i] + r, 1) for i, r in enumerate(reach) if r < 0})
    forward = replace(w, size=x.shape[2:], stride=(1, 1), padding=tuple(max(r, 0) for r in reach))
    if groups == 1:
        return _forward(c, x, c.l.permute(weight, (1, 0, 2, 3)), forward, 1, flip=True)
    multiplier = weight.shape[1]
    kernel = c.l.reshape(weight, (weight.shape[0] * multiplier, 1, *w.kernel))
    return _forward(c, x, kernel, forward, groups, flip=True)


def _transpose_conv(c: Call, x: Value, weight: Value, w: Windows) -> Value:
    """The whole result, of which the padding is cut off."""
    n, outputs = x.shape[0], weight.shape[1]
    whole = [(i - 1) * s + k for i, s, k in zip(w.size, w.stride, w.kernel, strict=True)]
    kernel = c.l.to(c.l.permute(weight, (1, 0, 2, 3)), channels_last(4))
    result = c.l.emit(
        "TRANSPOSE_CONV",
        [c.graph.ints([n, *whole, outputs]), kernel, c.l.to(x, channels_last(4))],
        (n, outputs, *whole), channels_last(4), options="TransposeConvOptions",
        padding=VALID, strideH=w.stride[0], strideW=w.stride[1],
    )  # fmt: skip
    return _placed(c, result, whole, w)


def _placed(c: Call, result: Value, whole: Sequence[int], w: Windows) -> Value:
    """The result without its padding, with zeros for output padding that no window reaches."""
    axes = range(len(whole))
    kept = [min(whole[i] - w.padding[i], w.out[i]) for i in axes]
    result = c.cut(result, {2 + i: (w.padding[i], kept[i], 1) for i in axes})
    return c.pad(result, [(0, 0), (0, 0), *[(0, w.out[i] - kept[i]) for i in axes]])


def _dilate(c: Call, x: Value, dim: int, stride: int) -> Value:
    """stride - 1 zeros between the elements of an axis."""
    if stride == 1 or x.shape[dim] == 1:
        return x
    x = c.l.to(x, channels_last(len(x.shape)))
    stored = c.graph.shape(x.tensor)
    axis, n = x.axis(dim), x.shape[dim]
    flat = c.l.stored_as(x, (math.prod(stored[:axis]), n, 1, math.prod(stored[axis + 1 :])))
    spread = c.pad(flat, [(0, 0), (0, 0), (0, stride - 1), (0, 0)])
    shape = list(x.shape)
    shape[dim] = n * stride
    return c.slice(c.l.stored_as(spread, shape, x.order), dim, 0, (n - 1) * stride + 1)


# three axes


def _three_axes(c: Call, x: Value, weight: Value, w: Windows, transposed: bool, groups: int) -> Value:
    if groups > 1:
        return _split(
            c, x, weight, groups, lambda part, kernel: _three_axes(c, part, kernel, w, transposed, 1)
        )
    if transposed:
        for axis in range(3):
            x = _dilate(c, x, 2 + axis, w.stride[axis])
        reach = [d * (k - 1) - p for k, p, d in zip(w.kernel, w.padding, w.dilation, strict=True)]
        x = c.cut(x, {2 + i: (-r, x.shape[2 + i] + r, 1) for i, r in enumerate(reach) if r < 0})
        w = replace(w, size=x.shape[2:], stride=(1, 1, 1), padding=tuple(max(r, 0) for r in reach))
        weight = _flipped(c, c.l.permute(weight, (1, 0, 2, 3, 4)))
    x, padding = _padded(c, x, w)
    kernel = c.l.to(weight, (2, 3, 4, 1, 0))
    moves: dict[str, Any] = {f"stride{name}": s for name, s in zip("DHW", w.stride, strict=True)}
    moves |= {f"dilation{name}Factor": d for name, d in zip("DHW", w.dilation, strict=True)}
    return c.l.emit(
        "CONV_3D", [x, kernel], (x.shape[0], weight.shape[0], *w.out), channels_last(5),
        options="Conv3DOptions", padding=padding,
        **moves,
    )  # fmt: skip
