"""An XNNPACK graph under construction: values, nodes and constants, as ExecuTorch's delegate reads them.

Written directly from the traced graph. PyTorch's way there re-traces every piece a dozen times, which is
minutes on a training step; and its table refuses what the delegate runs well: products with a transposed or
broadcast operand, reductions over any neighbouring axes, clamps fused into products.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import serialize_xnnpack_binary
from executorch.backends.xnnpack.utils.xnnpack_constants import (
    UINT64_MAX,
    XNN_FLAG_KEEP_DIMS,
    XNN_FLAG_TRANSPOSE_B,
    XNN_INVALID_VALUE_ID,
    XNN_MAX_TENSOR_DIMS,
    XNN_VALUE_FLAG_EXTERNAL_INPUT,
    XNN_VALUE_FLAG_EXTERNAL_OUTPUT,
)
from executorch.exir._serialize import _dataclass
from executorch.exir._serialize._named_data_store import NamedDataStore, NamedDataStoreOutput

Shape = Sequence[int]
_ALIGNMENT = 16
_MOST_CONCATENATED = 5
_LANES = 32
_MOST_AT_ONCE = 512  # terms of a sum that a product adds up one after the other
_CONCATENATE: dict[int, type] = {
    2: schema.XNNConcatenate2,
    3: schema.XNNConcatenate3,
    4: schema.XNNConcatenate4,
    5: schema.XNNConcatenate5,
}


class UnsupportedError(Exception):
    """An operator, or a use of it, that the delegate lacks."""


@contextlib.contextmanager
def _type_hints_worked_out_once() -> Iterator[None]:
    """ExecuTorch's encoder looks up the types of the fields for each object: half of an export's time."""
    original = _dataclass.get_type_hints
    _dataclass.get_type_hints = functools.cache(original)
    try:
        yield
    finally:
        _dataclass.get_type_hints = original


class Builder:
    """Collects values and nodes; each method appends one node, or a few, and returns the result's id."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._values: list[schema.XNNTensorValue] = []
        self._nodes: list[schema.XNode] = []
        self._inputs: list[int] = []
        self._data = NamedDataStore()
        self._constants = [schema.ConstantDataOffset(0, 0, "")]
        self._known: dict[Any, int] = {}

    # values

    def _value(self, shape: Shape, **more: Any) -> int:
        if len(shape) > XNN_MAX_TENSOR_DIMS:
            raise UnsupportedError(f"a tensor of {len(shape)} axes")
        if 0 in shape:
            raise UnsupportedError("an empty tensor")
        fields = {"external_id": XNN_INVALID_VALUE_ID, "constant_buffer_idx": 0, "flags": 0, **more}
        self._values.append(
            schema.XNNTensorValue(
                datatype=schema.XNNDatatype.xnn_datatype_fp32,
                num_dims=len(shape),
                dims=list(shape),
                id_out=len(self._values),
                **fields,
            )
        )
        self.shapes.append(tuple(shape))
        return len(self._values) - 1

    def input(self, shape: Shape) -> int:
        """The next argument of the delegate."""
        value = self._value(shape, external_id=len(self._inputs), flags=XNN_VALUE_FLAG_EXTERNAL_INPUT)
        self._inputs.append(value)
        return value

    def constant(self, array: np.ndarray[Any, Any]) -> int:
        """A value stored in the file; equal ones are stored once."""
        data = np.ascontiguousarray(array, np.float32).tobytes()
        key = (np.shape(array), data)
        if key not in self._known:
            name = hashlib.sha256(data).hexdigest()
            self._data.add_named_data(name, data, _ALIGNMENT, None)
            self._constants.append(schema.ConstantDataOffset(UINT64_MAX, len(data), name))
            self._known[key] = self._value(array.shape, constant_buffer_idx=len(self._constants) - 1)
        return self._known[key]

    def number(self, value: float) -> int:
        """A constant of one element, which broadcasts."""
        return self.constant(np.asarray(value, np.float32))

    def data(self) -> NamedDataStoreOutput:
        """The constants, as the program's file takes them."""
        return self._data.get_named_data_store_output()

    def serialise(self, outputs: Sequence[int]) -> bytes:
        """What the delegate reads; `outputs` are its results in this order, no two the same."""
        for number, value in enumerate(outputs):
            self._values[value].external_id = len(self._inputs) + number
            self._values[value].flags = XNN_VALUE_FLAG_EXTERNAL_OUTPUT
        graph = schema.XNNGraph(
            version="0",
            xnodes=self._nodes,
            xvalues=[schema.XValue(value) for value in self._values],
            num_externs=len(self._inputs) + len(outputs),
            input_ids=list(self._inputs),
            output_ids=list(outputs),
            constant_data=self._constants,
        )
        with _type_hints_worked_out_once():
            return serialize_xnnpack_binary(graph, bytearray())

    # nodes

    def _node(self, node: Any, limits: tuple[float, float] | None = None) -> None:
        bounds = None
        if limits is not None:
            low, high = (v if math.isfinite(v) else str(v) for v in limits)
            bounds = schema.OutputMinMax(low, high)
        self._nodes.append(schema.XNode(node, 0, bounds))

    def unary(self, kind: type, x: int, limits: tuple[float, float] | None = None, **more: Any) -> int:
        """An element-wise node of one argument."""
        out = self._value(self.shapes[x])
        self._node(kind(input_id=x, output_id=out, flags=0, **more), limits)
        return out

    def binary(self, kind: type, x: int, y: int, limits: tuple[float, float] | None = None) -> int:
        """An element-wise node of two arguments that broadcast."""
        out = self._value(np.broadcast_shapes(self.shapes[x], self.shapes[y]))
        self._node(kind(input1_id=x, input2_id=y, output_id=out, flags=0), limits)
        return out

    def add(self, x: int, y: int) -> int:
        """x + y."""
        return self.binary(schema.XNNAdd, x, y)

    def subtract(self, x: int, y: int) -> int:
        """x - y."""
        return self.binary(schema.XNNSubtract, x, y)

    def multiply(self, x: int, y: int, limits: tuple[float, float] | None = None) -> int:
        """x * y, clamped to the limits if any."""
        return self.binary(schema.XNNMultiply, x, y, limits)

    def clamp(self, x: int, low: float, high: float) -> int:
        """min(max(x, low), high)."""
        return self.unary(schema.XNNClamp, x, (low, high))

    def reshape(self, x: int, shape: Shape) -> int:
        """The same elements in another shape."""
        if self.shapes[x] == tuple(shape):
            return x
        out = self._value(shape)
        self._node(
            schema.XNNStaticReshape(
                num_dims=len(shape), new_shape=list(shape), input_id=x, output_id=out, flags=0
            )
        )
        return out

    def permute(self, x: int, order: Sequence[int]) -> int:
        """Axes in another order."""
        if list(order) == list(range(len(order))):
            return x
        out = self._value([self.shapes[x][axis] for axis in order])
        self._node(
            schema.XNNStaticTranspose(
                num_dims=len(order), perm=list(order), input_id=x, output_id=out, flags=0
            )
        )
        return out

    def slice(self, x: int, starts: Sequence[int], sizes: Shape) -> int:
        """A box cut out of x."""
        if tuple(sizes) == self.shapes[x]:
            return x
        out = self._value(sizes)
        self._node(
            schema.XNNStaticSlice(
                num_dims=len(sizes),
                offsets=list(starts),
                sizes=list(sizes),
                input_id=x,
                output_id=out,
                flags=0,
            )
        )
        return out

    def pad(self, x: int, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> int:
        """x with `value` around it."""
        if not any((*before, *after)):
            return x
        out = self._value([b + n + a for b, n, a in zip(before, self.shapes[x], after, strict=True)])
        self._node(
            schema.XNNStaticConstantPad(
                pre_paddings=list(before),
                post_paddings=list(after),
                padding_value=value,
                input_id=x,
                output_id=out,
                flags=0,
            )
        )
        return out

    def concatenate(self, parts: Sequence[int], axis: int) -> int:
        """Parts joined along an axis; a node takes five, so that many make a tree."""
        parts = list(parts)
        while len(parts) > 1:
            parts = [
                self._concatenate(parts[i : i + _MOST_CONCATENATED], axis)
                for i in range(0, len(parts), _MOST_CONCATENATED)
            ]
        return parts[0]

    def _concatenate(self, parts: list[int], axis: int) -> int:
        if len(parts) == 1:
            return parts[0]
        shape = list(self.shapes[parts[0]])
        shape[axis] = sum(self.shapes[part][axis] for part in parts)
        out = self._value(shape)
        padded = [*parts, *[XNN_INVALID_VALUE_ID] * (_MOST_CONCATENATED - len(parts))]
        ids = {f"input{i + 1}_id": part for i, part in enumerate(padded)}
        self._node(_CONCATENATE[len(parts)](axis=axis, output_id=out, flags=0, **ids))
        return out

    def product(self, x: int, y: int, transposed: bool = False) -> int:
        """Matrix products [..., M, K] [..., K, N], or [..., N, K] if `transposed`; a batch axis of 1
        broadcasts."""
        *batch_x, rows, _ = self.shapes[x]
        *batch_y, a, b = self.shapes[y]
        out = self._value(
            [*np.broadcast_shapes(tuple(batch_x), tuple(batch_y)), rows, a if transposed else b]
        )
        flags = XNN_FLAG_TRANSPOSE_B if transposed else 0
        self._node(schema.XNNBatchMatrixMultiply(input1_id=x, input2_id=y, output_id=out, flags=flags))
        return out

    def mean(self, x: int, first: int, last: int) -> int:
        """The mean over the axes first ... last, which become one axis of size 1."""
        shape = self.shapes[x]
        before, count = math.prod(shape[:first]), math.prod(shape[first : last + 1])
        after = math.prod(shape[last + 1 :])
        kept = (*shape[:first], 1, *shape[last + 1 :])
        if after > 1 or count == 1:
            return self.reshape(self._mean(x, before, count, after), kept)
        # Element by element along memory the pooling is slow. Lanes side by side are not, and adding up in
        # two stages keeps rounding small; a product with a column does the rest.
        x, rows = self.reshape(x, (before, count)), count
        if count > _LANES and (count % _LANES == 0 or count > _MOST_AT_ONCE):
            lines = -(-count // _LANES)
            x = self.pad(x, (0, 0), (0, lines * _LANES - count))
            x, rows = self.reshape(self._mean(x, before, lines, _LANES), (before, _LANES)), _LANES
            weight = lines / count
        else:
            weight = 1 / count
        column = self.constant(np.full((rows, 1), weight, np.float32))
        return self.reshape(self.product(x, column), kept)

    def _mean(self, x: int, before: int, count: int, after: int) -> int:
        flat = self.reshape(x, (before, count, 1, after))  # to the delegate: N, H, W, C
        out = self._value((before, 1, 1, after))
        self._node(schema.XNNGlobalAvgPooling2d(input_id=flat, output_id=out, flags=XNN_FLAG_KEEP_DIMS))
        return out

    def pool(
        self, kind: type, x: int, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, out: Shape
    ) -> int:
        """Pooling of N, H, W, C to the size `out`; padding counts from top and left, the rest follows."""
        after = [
            max((o - 1) * s + d * (k - 1) + 1 - n - p, 0)
            for o, s, d, k, n, p in zip(
                out, stride, dilation, kernel, self.shapes[x][1:3], padding, strict=True
            )
        ]
        batch, _, _, channels = self.shapes[x]
        value = self._value((batch, *out, channels))
        self._node(
            kind(
                padding_top=padding[0],
                padding_right=after[1],
                padding_bottom=after[0],
                padding_left=padding[1],
                pooling_height=kernel[0],
                pooling_width=kernel[1],
                stride_height=stride[0],
                stride_width=stride[1],
                dilation_height=dilation[0],
                dilation_width=dilation[1],
                input_id=x,
                output_id=value,
                flags=0,
            )
        )
        return value

    def largest(self, x: int, axis: int) -> int:
        """The maximum over one axis, kept with size 1: a max pooling whose window is the axis."""
        shape = self.shapes[x]
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        flat = self.reshape(x, (before, shape[axis], 1, after))
        if shape[axis] > 1:  # a window of one element is refused
            flat = self.pool(schema.XNNMaxPooling2d, flat, (shape[axis], 1), (1, 1), (0, 0), (1, 1), (1, 1))
        return self.reshape(flat, (*shape[:axis], 1, *shape[axis + 1 :]))

    def repeat(self, x: int, axis: int, count: int) -> int:
        """An axis of size 1 repeated: a product with a vector of ones."""
        shape = self.shapes[x]
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        if after == 1:
            row = self.constant(np.ones((1, count), np.float32))
            made = self.product(self.reshape(x, (before, 1)), row)
        else:
            column = self.constant(np.ones((1, count, 1), np.float32))
            made = self.product(column, self.reshape(x, (before, 1, after)))
        return self.reshape(made, (*shape[:axis], count, *shape[axis + 1 :]))
