"""Building a Core ML ML program (MIL): operators, constants, and one ATen call as its translation sees it.

Core ML's inputs and outputs have at least one axis, so a value of shape [] is one of shape [1] throughout;
its tensors have at most five axes, so a value with more is kept as a tensor of fewer with the same elements
in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from exporters import coreml_load
from exporters.aten_call import AtenCall

coremltools = coreml_load.coremltools()

Var = Any  # a value of coremltools' builder
MOST_AXES = 5

_KINDS = {torch.float32: "fp32", torch.int64: "int32", torch.int32: "int32", torch.bool: "bool"}
_NUMPY = {"fp32": np.float32, "fp16": np.float16, "int32": np.int32, "bool": np.bool_}


class UnsupportedError(Exception):
    """An operator, or a use of it, that `coreml_ops.TABLE` lacks."""


def kind_of(dtype: torch.dtype) -> str:
    """MIL's name of a type. Raises UnsupportedError where a program has no such values."""
    if dtype not in _KINDS:
        raise UnsupportedError(f"values of type {dtype}")
    return _KINDS[dtype]


def size_of(shape: Sequence[int]) -> list[int]:
    """The shape that a value of `shape` has in the file: [1] for []."""
    return list(shape) or [1]


class Builder:
    """Adds operators to the current function of coremltools' builder `mb`; equal constants are stored once.

    prefix: what all names of inner values begin with.
    """

    def __init__(self, mb: Any, prefix: str) -> None:
        self._mb, self._prefix, self._count = mb, prefix, 0
        self._constants: dict[Any, Var] = {}
        self._casts: dict[Any, Var] = {}

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"

    def add(self, op: str, **arguments: Any) -> Var:
        """The result of an operator; arguments that are no values become constants."""
        given = {key: self._value(value) for key, value in arguments.items() if value is not None}
        return getattr(self._mb, op)(**given, name=self._name())

    def _value(self, value: Any) -> Any:
        if isinstance(value, (str, bool, int, float, np.ndarray, np.generic)):
            return self.constant(value)
        if isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value):
            return self.constant(np.asarray(value, np.int32))
        return value

    def constant(self, value: Any) -> Var:
        """A constant: text, a number, or an array of float32, float16, int32 or bool."""
        if isinstance(value, (str, bool)):  # numpy's own booleans trip coremltools' folding of reductions
            key: Any = (type(value), value)
        else:
            value = np.asarray(value, np.int32 if type(value) is int else None)
            if value.dtype == np.float64:
                value = value.astype(np.float32)
            key = (value.dtype.str, value.shape, value.tobytes())
            value = value if value.ndim else value[()]
        if key not in self._constants:
            self._constants[key] = self._mb.const(val=value, name=self._name())
        return self._constants[key]

    def number(self, value: float, kind: str) -> Var:
        """A constant without axes."""
        return self.constant(_NUMPY[kind](value))

    def filled(self, value: float, shape: Sequence[int], kind: str) -> Var:
        """A tensor of one value, stored as a single one."""
        size = size_of(shape)
        one = self.constant(np.full([1] * len(size), value, _NUMPY[kind]))
        return self.add("tile", x=one, reps=size) if math.prod(size) > 1 else one

    def cast(self, value: Var, kind: str) -> Var:
        """The value as one of another type; made once."""
        if kind_of_var(value) == kind:
            return value
        if (value, kind) not in self._casts:
            self._casts[value, kind] = self.add("cast", x=value, dtype=kind)
        return self._casts[value, kind]

    def reshape(self, value: Var, shape: Sequence[int]) -> Var:
        """The elements as a tensor of `shape`; of unknown shape where that has too many axes."""
        size = size_of(shape)
        if list(value.shape) == size or len(size) > MOST_AXES:
            return value
        return self.add("reshape", x=value, shape=size)

    def transpose(self, value: Var, shape: Sequence[int], order: Sequence[int]) -> Var:
        """The axes of a value of `shape` in another order; neighbours that stay together move as one."""
        runs: list[list[int]] = []
        for axis in order:
            if runs and runs[-1][-1] + 1 == axis:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        if len(shape) > MOST_AXES:
            first = sorted(run[0] for run in runs)
            by_first = {run[0]: math.prod(shape[axis] for axis in run) for run in runs}
            shape, order = [by_first[axis] for axis in first], [first.index(run[0]) for run in runs]
        if len(shape) > MOST_AXES:
            return self._one_after_another(value, shape, order)
        return self.add("transpose", x=self.reshape(value, shape), perm=list(order))

    def _one_after_another(self, value: Var, shape: Sequence[int], order: Sequence[int]) -> Var:
        """Brings one axis after the other to its place, which takes four axes however many there are."""
        axes = list(range(len(shape)))
        for place, axis in enumerate(order):
            at = axes.index(axis)
            parts = [axes[:place], axes[place:at], axes[at : at + 1], axes[at + 1 :]]
            if at != place:
                value = self.reshape(value, [math.prod(shape[a] for a in part) for part in parts])
                value = self.add("transpose", x=value, perm=[0, 2, 1, 3])
                axes = [*parts[0], axis, *parts[1], *parts[3]]
        return value


def kind_of_var(value: Var) -> str:
    """MIL's name of the type of a value of the builder."""
    return str(coremltools.converters.mil.mil.types.builtin_to_string(value.dtype))


class Call(AtenCall):
    """One ATen node while it is translated. half: whether its floating-point result is float16."""

    def __init__(self, builder: Builder, node: Node, values: dict[Node, Any], half: bool) -> None:
        super().__init__(node, values)
        self.b, self._half = builder, half

    def __getitem__(self, index: int) -> Any:
        """An argument that is no tensor; of a list of tensors the nodes (`of` gives their values)."""
        value = self._args[index]
        return list(value) if isinstance(value, (list, tuple)) else value

    @property
    def out(self) -> Any:
        """The (fake) result, the first where there are several."""
        value = self.node.meta["val"]
        return value[0] if isinstance(value, (tuple, list)) else value

    @property
    def kind(self) -> str:
        """The type of the result."""
        return self.kind_as(self.out.dtype)

    def kind_as(self, dtype: torch.dtype) -> str:
        """The type that stands for `dtype` here."""
        kind = kind_of(dtype)
        return "fp16" if kind == "fp32" and self._half else kind

    def compared(self) -> str:
        """The type in which an operator of two arguments computes: MIL wants both of one."""
        return self.kind_as(self.promoted())

    def var(self, index: int, kind: str | None = None) -> Var:
        """The tensor argument `index`, or a number as a constant, as a value of `kind` (the result's)."""
        return self._var(self._args[index], kind or self.kind)

    def vars(self, index: int) -> list[Var]:
        """The tensors of a list, as values of the result's type."""
        return [self._var(value, self.kind) for value in self._args[index]]

    def _var(self, value: Any, kind: str) -> Var:
        if isinstance(value, Node):
            return self.b.cast(self._values[value], kind)
        return self.b.number(value, kind)

    def of(self, node: Node, kind: str | None = None) -> Var:
        """The value of another node as one of `kind` (the result's)."""
        return self._var(node, kind or self.kind)

    def same(self, index: int) -> Var:
        """The tensor argument `index` in its own type."""
        return self._values[self._args[index]]

    def few_axes(self, *indices: int) -> None:
        """Raises UnsupportedError where the result or one of these arguments has more axes than Core ML."""
        most = max([len(self.out.shape), *(len(self.shape(i)) for i in indices)])
        if most > MOST_AXES:
            raise UnsupportedError(f"{self.node.target} of {most} axes")
