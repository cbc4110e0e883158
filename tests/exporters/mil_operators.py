"""Operators of Apple's ML programs in numpy and PyTorch, as coremltools' documentation describes each.

Written from that documentation, not from the exporter. A parameter that a function below does not name, or a
value of one that it does not know, is an error. Floating-point arithmetic is in float32 here; who calls
rounds the results that a program declares as float16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

Array = np.ndarray[Any, Any]


class RefusedError(Exception):
    """An operator, or a use of it, that is not known here or not allowed by the documentation."""


def need(holds: bool, what: str) -> None:
    if not holds:
        raise RefusedError(what)


def _one_type(*arrays: Array) -> None:
    need(len({a.dtype for a in arrays}) == 1, f"operands of types {[str(a.dtype) for a in arrays]}")


def _elementwise(compute: Callable[[Array, Array], Array], booleans: bool = False) -> Callable[..., Array]:
    def run(*, x: Array, y: Array) -> Array:
        _one_type(x, y)
        need((x.dtype == np.bool_) == booleans, f"operands of type {x.dtype}")
        return np.asarray(compute(x, y))

    return run


def _unary(compute: Callable[[Array], Array]) -> Callable[..., Array]:
    def run(*, x: Array) -> Array:
        need(x.dtype == np.float32, f"an operand of type {x.dtype}")
        return np.asarray(compute(x))

    return run


def _by_torch(compute: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Array]:
    return _unary(lambda x: compute(torch.from_numpy(np.ascontiguousarray(x))).numpy())


def _reduction(compute: Callable[..., Array]) -> Callable[..., Array]:
    def run(*, x: Array, axes: Array, keep_dims: Array) -> Array:
        need(len(set(axes % x.ndim)) == len(axes) > 0, f"axes {axes}")
        return np.asarray(compute(x, axis=tuple(int(a) for a in axes), keepdims=bool(keep_dims)))

    return run


def rsqrt(*, x: Array, epsilon: Array) -> Array:
    return 1 / np.sqrt(x + epsilon)


def log(*, x: Array, epsilon: Array) -> Array:
    return np.log(x + epsilon)


def relu(*, x: Array) -> Array:
    return np.maximum(x, np.zeros((), x.dtype))


def gelu(*, x: Array, mode: str) -> Array:
    cube = x + np.float32(0.044715) * x**3
    if mode == "EXACT":
        inner = torch.erf(torch.from_numpy(x / np.sqrt(np.float32(2)))).numpy()
    else:
        need(mode == "TANH_APPROXIMATION", f"gelu of mode {mode}")
        inner = np.tanh(np.sqrt(np.float32(2 / np.pi)) * cube)
    return np.float32(0.5) * x * (1 + inner)


def softmax(*, x: Array, axis: Array) -> Array:
    e = np.exp(x - x.max(int(axis), keepdims=True))
    return e / e.sum(int(axis), keepdims=True)


def cast(*, x: Array, dtype: str) -> Array:
    kinds = {"int32": np.int32, "fp16": np.float16, "fp32": np.float32, "bool": np.bool_}
    need(dtype in kinds, f"a cast to {dtype}")
    return x.astype(kinds[dtype])


def identity(*, x: Array) -> Array:
    return x


def select(*, cond: Array, a: Array, b: Array) -> Array:
    _one_type(a, b)
    need(cond.dtype == np.bool_, f"a condition of type {cond.dtype}")
    return np.where(cond, a, b)


def logical_not(*, x: Array) -> Array:
    need(x.dtype == np.bool_, f"an operand of type {x.dtype}")
    return ~x


def reshape(*, x: Array, shape: Array) -> Array:
    need(bool((shape > 0).all()), f"a shape of {shape}")
    return x.reshape(shape)


def transpose(*, x: Array, perm: Array) -> Array:
    need(sorted(perm) == list(range(x.ndim)), f"an order of axes {perm}")
    return x.transpose(perm)


def tile(*, x: Array, reps: Array) -> Array:
    need(len(reps) == x.ndim and bool((reps > 0).all()), f"{reps} copies of {x.shape}")
    return np.tile(x, reps)


def concat(*, values: Sequence[Array], axis: Array, interleave: Array) -> Array:
    _one_type(*values)
    need(not interleave, "a concatenation that interleaves")
    return np.concatenate(values, int(axis))


def reverse(*, x: Array, axes: Array) -> Array:
    return np.flip(x, tuple(int(a) for a in axes))


def slice_by_index(*, x: Array, begin: Array, end: Array, stride: Array) -> Array:
    need(len(begin) == len(end) == len(stride) == x.ndim, f"a slice {begin} {end} {stride} of {x.shape}")
    need(bool((begin >= 0).all() and (end <= x.shape).all() and (begin < end).all()), f"{begin} {end}")
    need(bool((stride > 0).all()), f"a stride of {stride}")
    return x[tuple(slice(*cut) for cut in zip(begin, end, stride, strict=True))]


def pad(*, x: Array, pad: Array, mode: str, constant_val: Array) -> Array:
    need(mode == "constant" and bool((pad >= 0).all()), f"a pad {mode} {pad}")
    need(x.dtype == np.float32, f"a pad of {x.dtype}")
    pairs = pad.reshape(-1, 2)
    none = [(0, 0)] * (x.ndim - len(pairs))
    return np.pad(x, none + [(int(a), int(b)) for a, b in pairs], constant_values=constant_val)


def gather(
    *, x: Array, indices: Array, axis: Array, batch_dims: Array | None = None, validate_indices: Any = False
) -> Array:
    need(batch_dims is None or not batch_dims, "a gather by batch")
    need(bool((indices >= 0).all() and (indices < x.shape[int(axis)]).all()), "an index out of bounds")
    return np.take(x, indices, int(axis))


def matmul(*, x: Array, y: Array, transpose_x: Array, transpose_y: Array) -> Array:
    _one_type(x, y)
    need(x.ndim > 1 and y.ndim > 1, "a product with a vector")
    return np.matmul(x.swapaxes(-1, -2) if transpose_x else x, y.swapaxes(-1, -2) if transpose_y else y)


def _padded(x: Array, pad: Array, fill: float) -> torch.Tensor:
    pairs = pad.reshape(-1, 2)
    need(len(pairs) == x.ndim - 2 and bool((pad >= 0).all()), f"a pad {pad} of {x.shape}")
    flat = [int(n) for pair in pairs[::-1] for n in pair]
    return F.pad(torch.from_numpy(np.ascontiguousarray(x)), flat, value=fill)


def conv(
    *, x: Array, weight: Array, strides: Array, pad_type: str, pad: Array, dilations: Array, groups: Array
) -> Array:
    """Of weights that are no constants, as here always: those may not be dilated, nor come with a bias."""
    need(pad_type == "custom", f"a convolution padded {pad_type}")
    need(bool((dilations == 1).all()), f"dilations {dilations} with weights that are no constants")
    _one_type(x, weight)
    kernel = torch.from_numpy(np.ascontiguousarray(weight))
    run: Any = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return run(_padded(x, pad, 0.0), kernel, None, [int(s) for s in strides], groups=int(groups)).numpy()


def _windows(x: Array, sizes: Array, strides: Array, pad: Array, fill: float) -> torch.Tensor:
    """[N, C, *out, elements of the window]"""
    windows = _padded(x, pad, fill)
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        windows = windows.unfold(2 + axis, int(size), int(stride))
    return windows.flatten(x.ndim)


def max_pool(
    *, x: Array, kernel_sizes: Array, strides: Array, pad_type: str, pad: Array, ceil_mode: Array
) -> Array:
    need(pad_type == "custom" and not ceil_mode, f"pooling padded {pad_type}, ceil mode {ceil_mode}")
    return _windows(x, kernel_sizes, strides, pad, -np.inf).amax(-1).numpy()


def avg_pool(
    *,
    x: Array,
    kernel_sizes: Array,
    strides: Array,
    pad_type: str,
    pad: Array,
    exclude_padding_from_average: Array,
    ceil_mode: Array,
) -> Array:
    need(pad_type == "custom" and not ceil_mode, f"pooling padded {pad_type}, ceil mode {ceil_mode}")
    total = _windows(x, kernel_sizes, strides, pad, 0.0).sum(-1)
    counted = np.ones_like(x)
    count = _windows(counted, kernel_sizes, strides, pad, 0.0 if exclude_padding_from_average else 1.0).sum(
        -1
    )
    return (total / count).numpy()


OPERATORS: dict[str, Callable[..., Array]] = {
    "add": _elementwise(np.add),
    "sub": _elementwise(np.subtract),
    "mul": _elementwise(np.multiply),
    "real_div": _elementwise(np.true_divide),
    "maximum": _elementwise(np.maximum),
    "minimum": _elementwise(np.minimum),
    "pow": _elementwise(np.power),
    "greater": _elementwise(np.greater),
    "greater_equal": _elementwise(np.greater_equal),
    "less": _elementwise(np.less),
    "less_equal": _elementwise(np.less_equal),
    "equal": _elementwise(np.equal),
    "not_equal": _elementwise(np.not_equal),
    "logical_and": _elementwise(np.logical_and, booleans=True),
    "logical_or": _elementwise(np.logical_or, booleans=True),
    "logical_not": logical_not,
    "sign": _unary(np.sign),
    "exp": _unary(np.exp),
    "sqrt": _unary(np.sqrt),
    "abs": _unary(np.abs),
    "tanh": _unary(np.tanh),
    "sin": _unary(np.sin),
    "cos": _unary(np.cos),
    "floor": _unary(np.floor),
    "ceil": _unary(np.ceil),
    "sigmoid": _by_torch(torch.sigmoid),
    "erf": _by_torch(torch.erf),
    "reduce_sum": _reduction(np.sum),
    "reduce_mean": _reduction(np.mean),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    **{
        function.__name__: function
        for function in (
            avg_pool, cast, concat, conv, gather, gelu, identity, log, matmul, max_pool, pad, relu, reshape,
            reverse, rsqrt, select, slice_by_index, softmax, tile, transpose,
        )
    },
}  # fmt: skip
