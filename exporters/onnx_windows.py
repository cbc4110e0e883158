"""ATen's sliding windows as ONNX operators: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from exporters.onnx_graph import Call, Result, UnsupportedError

aten = torch.ops.aten


def _convolution(c: Call) -> Result:
    inputs = [c[0], c[1], *([c[2]] if c[2] is not None else [])]
    stride, padding, dilation, transposed, output_padding, groups = (c[i] for i in range(3, 9))
    axes = len(c.shape(0)) - 2
    stride, padding, dilation, output_padding = (
        v * axes if len(v) == 1 else v for v in (stride, padding, dilation, output_padding)
    )
    common = {
        "strides": stride,
        "pads": [*padding, *padding],
        "dilations": dilation,
        "group": groups,
        "kernel_shape": c.shape(1)[2:],
    }
    if transposed:
        return c.b.add("ConvTranspose", *inputs, output_padding=output_padding, **common)
    return c.b.add("Conv", *inputs, **common)


def _spread(axes: int, *values: list[int]) -> tuple[list[int], ...]:
    return tuple(v * axes if len(v) == 1 else v for v in values)


def _pool_arguments(c: Call, axes: int) -> tuple[list[int], list[int], list[int]]:
    """Kernel, stride and padding of each axis."""
    if len(c.shape(0)) != axes + 2:
        raise UnsupportedError("pooling of a single image")
    kernel, stride, padding = _spread(axes, c[1], c[2] or c[1], c[3])
    return kernel, stride, padding


def _max_pool(axes: int) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        kernel, stride, padding = _pool_arguments(c, axes)
        (dilation,) = _spread(axes, c[4])
        after = padding
        if c[5]:
            # ONNX and PyTorch differ in which windows may begin behind the image: pad to what PyTorch's touch
            each = zip(c.out.shape[2:], c.shape(0)[2:], kernel, stride, padding, dilation, strict=True)
            after = [max((o - 1) * s + d * (k - 1) + 1 - n - p, 0) for o, n, k, s, p, d in each]
        pads = [*padding, *after]
        return c.b.add("MaxPool", c[0], kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation)

    return translate


def _avg_pool(axes: int) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        kernel, stride, padding = _pool_arguments(c, axes)
        ceil, include_pad, divisor = c[4], c[5], c[6]
        if divisor is not None or ceil:
            raise UnsupportedError("average pooling with divisor_override or ceil_mode")
        return c.b.add(
            "AveragePool",
            c[0],
            kernel_shape=kernel,
            strides=stride,
            pads=[*padding, *padding],
            count_include_pad=int(include_pad),
        )

    return translate


TABLE: dict[Any, Callable[[Call], Result]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d.default: _max_pool(2),
    aten.max_pool3d.default: _max_pool(3),
    aten.avg_pool2d.default: _avg_pool(2),
    aten.avg_pool3d.default: _avg_pool(3),
}
