"""Building a .tflite file: subgraphs of builtin operators, shared constants, one signature a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    torch.float32: schema.TensorType.FLOAT32,
    torch.int32: schema.TensorType.INT32,
    # indices and counts: LiteRT's kernels know 32 bits better, and none here comes near 2^31
    torch.int64: schema.TensorType.INT32,
    torch.bool: schema.TensorType.BOOL,
}
_NUMPY = {np.dtype(np.int64): np.int32}
_FILE_VERSION = 3
_IDENTIFIER = b"TFL3"
# the first version of an operator that runtimes still know, where it is not 1
_VERSIONS = {"BROADCAST_TO": 2}
_NUMBERS = {name: code for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


class UnsupportedError(Exception):
    """An operator, or a use of it, that has no LiteRT form here."""


def tensor_type(dtype: torch.dtype) -> int:
    """LiteRT's number for a type. Raises UnsupportedError where a program has no such values."""
    if dtype not in _TYPES:
        raise UnsupportedError(f"values of type {dtype}")
    return int(_TYPES[dtype])


def activation_number(name: str) -> int:
    """LiteRT's number for an activation that an operator applies to its result."""
    return int(getattr(schema.ActivationFunctionType, name))


class Model:
    """The file: constants and operator codes are shared by its programs."""

    def __init__(self) -> None:
        self._buffers: list[Any] = [schema.BufferT()]  # number 0 means: no content
        self._contents: dict[bytes, int] = {}
        self._codes: dict[tuple[int, int], int] = {}
        self._subgraphs: list[Any] = []
        self._signatures: list[Any] = []

    def buffer(self, data: bytes) -> int:
        """The number of a buffer with this content; equal ones are stored once."""
        if data not in self._contents:
            self._contents[data] = len(self._buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            self._buffers.append(buffer)
        return self._contents[data]

    def code(self, name: str, version: int) -> int:
        """The number of an operator."""
        return self._codes.setdefault((int(_NUMBERS[name]), version), len(self._codes))

    def add(self, name: str, graph: Graph, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Put a finished graph into the file with a signature; the names are those of the graph's tensors."""
        subgraph = schema.SubGraphT()
        subgraph.name = name.encode()
        subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
        subgraph.inputs, subgraph.outputs = list(inputs), list(outputs)
        signature = schema.SignatureDefT()
        signature.signatureKey = name.encode()
        signature.subgraphIndex = len(self._subgraphs)
        signature.inputs = [_mapping(graph, index) for index in inputs]
        signature.outputs = [_mapping(graph, index) for index in outputs]
        self._subgraphs.append(subgraph)
        self._signatures.append(signature)

    def to_bytes(self) -> bytes:
        """The file's content."""
        model = schema.ModelT()
        model.version = _FILE_VERSION
        model.description = b"clue-mobile"
        model.operatorCodes = []
        for number, version in self._codes:
            code = schema.OperatorCodeT()
            # readers from before 2020 know the first field only, which ends at 127
            code.deprecatedBuiltinCode = min(number, 127)
            code.builtinCode, code.version = number, version
            model.operatorCodes.append(code)
        model.subgraphs, model.signatureDefs = self._subgraphs, self._signatures
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())


def _mapping(graph: Graph, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


class Graph:
    """One program: tensors by their numbers, and the operators in the order in which they run."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self._constants: dict[Any, int] = {}

    def tensor(self, shape: Sequence[int], dtype: torch.dtype, name: str = "", buffer: int = 0) -> int:
        """A new tensor's number."""
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), tensor_type(dtype), buffer
        tensor.hasRank = True
        tensor.name = (name or f"_{len(self.tensors)}").encode()
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def shape(self, tensor: int) -> list[int]:
        """The stored shape of a tensor."""
        return list(self.tensors[tensor].shape)

    def constant(self, array: np.ndarray[Any, Any]) -> int:
        """A tensor with this content; equal ones are one."""
        array = np.ascontiguousarray(array, _NUMPY.get(array.dtype, array.dtype)).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
            self._constants[key] = self.tensor(array.shape, dtype, buffer=self.model.buffer(array.tobytes()))
        return self._constants[key]

    def ints(self, values: Sequence[int]) -> int:
        """A constant int32 vector."""
        return self.constant(np.asarray(values, np.int32).reshape(-1))

    def is_constant(self, tensor: int) -> bool:
        """Whether the tensor's content stands in the file."""
        return bool(self.tensors[tensor].buffer)

    def add(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype,
        *,
        options: str | None = None,
        **fields: Any,
    ) -> int:
        """Append an operator with one result; returns its tensor. `options` names its table in the schema
        (default: the operator has none), `fields` are that table's."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.model.code(name, _VERSIONS.get(name, 1))
        operator.inputs = list(inputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in fields.items():
                if not hasattr(operator.builtinOptions, field):
                    raise AttributeError(f"{options} has no {field}")
                setattr(operator.builtinOptions, field, value)
        output = self.tensor(shape, dtype)
        operator.outputs = [output]
        self.operators.append(operator)
        return output
