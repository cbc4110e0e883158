"""ATen's normalisation layers as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from exporters.onnx_graph import Call, Result, UnsupportedError

aten = torch.ops.aten


def _layer_norm(c: Call) -> Result:
    width = len(c[1])
    weight = c[2] or c.b.constant(torch.ones(c[1], dtype=c.out[0].dtype).numpy())
    return c.b.add(
        "LayerNormalization",
        c[0],
        weight,
        *([c[3]] if c[3] else []),
        outputs=3,
        axis=-width,
        epsilon=float(c[4]),
    )


def _per_channel(c: Call, index: int, value: float) -> str:
    """A vector of one number for each channel, given or all `value`."""
    given = c[index]
    if given is not None:
        return str(given)
    return c.b.constant(torch.full((c.shape(0)[1],), value, dtype=c.out[0].dtype).numpy())


def _batch_norm_training(c: Call) -> Result:
    """(output, mean, 1/std): with momentum 0 the new running statistics are those of the batch."""
    if len(c.shape(0)) < 3:
        raise UnsupportedError("batch norm in training mode of rank 2")
    weight, bias = _per_channel(c, 1, 1.0), _per_channel(c, 2, 0.0)
    # ONNX Runtime writes the new running statistics over the old ones, whatever else reads those: so they are
    # values made for this, and of x, since two layers that share them then have the same statistics
    others = [0, *range(2, len(c.shape(0)))]
    starts, ends = c.b.ints([0] * len(others)), c.b.ints([1] * len(others))
    first = c.b.add("Slice", c[0], starts, ends, c.b.ints(others))
    old = c.b.add("Reshape", first, c.b.ints([c.shape(0)[1]]))
    out, mean, var = c.b.add(
        "BatchNormalization",
        c[0],
        weight,
        bias,
        old,
        c.b.add("Neg", old),
        outputs=3,
        momentum=0.0,
        epsilon=float(c[5]),
        training_mode=1,
    )
    std = c.b.add("Sqrt", c.b.add("Add", var, c.b.scalar(c[5], c.out[0].dtype)))
    return out, mean, c.b.add("Reciprocal", std)


def _batch_norm(c: Call) -> Result:
    """(output, nothing, nothing) by the running statistics."""
    weight, bias = _per_channel(c, 1, 1.0), _per_channel(c, 2, 0.0)
    return (c.b.add("BatchNormalization", c[0], weight, bias, c[3], c[4], epsilon=float(c[6])), "", "")


TABLE: dict[Any, Callable[[Call], Result]] = {
    aten.native_layer_norm.default: _layer_norm,
    aten._native_batch_norm_legit.no_stats: _batch_norm_training,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
}
