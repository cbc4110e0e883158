"""Runs a saved .mlpackage without Core ML: reads its protocol buffers and walks the operators of a function.

Independent of the exporter: what it knows of the format is what Apple's MIL.proto and the layout of
weight.bin say. Every value must have the type and shape that the program declares for it, every name one
meaning, and inputs and outputs must be those that the model's description promises.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mil_operators import OPERATORS, Array, RefusedError, need

from exporters.coreml_load import coremltools

coremltools()
from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2  # noqa: E402

MOST_AXES = 5
_TYPES = {
    MIL_pb2.FLOAT16: np.dtype(np.float16),
    MIL_pb2.FLOAT32: np.dtype(np.float32),
    MIL_pb2.INT32: np.dtype(np.int32),
    MIL_pb2.BOOL: np.dtype(np.bool_),
}
_BLOB_TYPES = {1: np.dtype(np.float16), 2: np.dtype(np.float32)}
_SENTINEL = 0xDEADBEEF
_FLOAT32 = FeatureTypes_pb2.ArrayFeatureType.FLOAT32


class Package:
    """A saved model. Raises RefusedError where its files are not as Apple's tools lay them out."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "Manifest.json").read_text(encoding="utf-8"))
        need(manifest["fileFormatVersion"] == "1.0.0", f"format {manifest['fileFormatVersion']}")
        items = {key: folder / "Data" / item["path"] for key, item in manifest["itemInfoEntries"].items()}
        need(all(path.exists() for path in items.values()), f"items {items}")
        listed = {path for item in items.values() for path in ([item] if item.is_file() else item.iterdir())}
        need(listed == {path for path in (folder / "Data").rglob("*") if path.is_file()}, "files not listed")
        root = items[manifest["rootModelIdentifier"]]
        self._folder = root.parent
        self.spec = Model_pb2.Model()
        self.spec.ParseFromString(root.read_bytes())
        self.mil = self.spec.mlProgram
        need(self.mil.version == 1, f"MIL of version {self.mil.version}")
        described = self.spec.description
        if described.functions:
            self.functions = {function.name: function for function in described.functions}
            need(described.defaultFunctionName in self.functions, "the default function")
        else:
            self.functions = {"main": described}
        need(self.functions.keys() == self.mil.functions.keys(), "the functions described and stored differ")

    def operations(self, function: str = "main") -> list[Any]:
        """The operators of a function, in order."""
        return list(self._block(function).operations)

    def _block(self, function: str) -> Any:
        stored = self.mil.functions[function]
        return stored.block_specializations[stored.opset]

    def inputs(self, function: str = "main") -> dict[str, tuple[int, ...]]:
        """Names and shapes, as described; all are float32."""
        return _described(self.functions[function].input)

    def outputs(self, function: str = "main") -> dict[str, tuple[int, ...]]:
        """Names and shapes, as described; all are float32."""
        return _described(self.functions[function].output)

    def run(self, inputs: Mapping[str, Array], function: str = "main") -> dict[str, Array]:
        """The outputs by name. Raises RefusedError for what is unknown here or against the documentation."""
        stored, block = self.mil.functions[function], self._block(function)
        described = self.inputs(function)
        declared = {value.name: _declared(value.type) for value in stored.inputs}
        need(
            declared == {name: (np.dtype(np.float32), shape) for name, shape in described.items()},
            f"inputs {declared}, described as {described}",
        )
        need(inputs.keys() == described.keys(), f"inputs {sorted(inputs)}, the model has {sorted(described)}")
        values: dict[str, Any] = {}
        for name, array in inputs.items():
            need(array.dtype == np.float32 and array.shape == described[name], f"{name}: {array.shape}")
            values[name] = array
        names = set()
        for operation in block.operations:
            title = operation.attributes["name"].immediateValue.tensor.strings.values[0]
            need(title not in names and not operation.blocks, f"operator {title}")
            names.add(title)
            need(len(operation.outputs) == 1, f"{operation.type} with {len(operation.outputs)} results")
            (output,) = operation.outputs
            need(output.name not in values, f"two values called {output.name}")
            try:
                values[output.name] = self._result(operation, output, values)
            except (RefusedError, TypeError) as error:
                raise RefusedError(f"{operation.type} {title}: {error}") from error
        need(list(block.outputs) == list(self.outputs(function)), f"outputs {list(block.outputs)}")
        made = {name: values[name] for name in block.outputs}
        for name, shape in self.outputs(function).items():
            need(made[name].shape == shape and made[name].dtype == np.float32, f"output {name}")
        return made

    def _result(self, operation: Any, output: Any, values: Mapping[str, Any]) -> Any:
        if operation.type == "const":
            need(set(operation.attributes) == {"name", "val"} and not operation.inputs, "a constant's fields")
            stored = operation.attributes["val"]
            need(stored.type == output.type, "a constant's type")
            return self._constant(stored)
        need(operation.type in OPERATORS, "an unknown operator")
        need(set(operation.attributes) == {"name"}, f"attributes {sorted(operation.attributes)}")
        given = {key: self._argument(key, value, values) for key, value in operation.inputs.items()}
        dtype, shape = _declared(output.type)
        with np.errstate(all="ignore"):
            result = OPERATORS[operation.type](**{key: _wide(value) for key, value in given.items()})
        halves = any(getattr(v, "dtype", None) == np.float16 for v in given.values())
        if dtype == np.float16 and (halves or operation.type == "cast"):
            result = result.astype(np.float16)
        need(len(shape) <= MOST_AXES, f"{len(shape)} axes")
        need(result.shape == shape, f"{result.shape} computed, {shape} declared")
        need(result.dtype == dtype, f"{result.dtype} computed, {dtype} declared")
        return result

    def _argument(self, key: str, argument: Any, values: Mapping[str, Any]) -> Any:
        found = [
            values[each.name] if each.WhichOneof("binding") == "name" else self._constant(each.value)
            for each in argument.arguments
        ]
        return found if key == "values" else found[0]

    def _constant(self, value: Any) -> Any:
        if value.WhichOneof("value") == "blobFileValue":
            dtype, shape = _declared(value.type)
            return self._blob(value.blobFileValue, dtype).reshape(shape)
        tensor = value.immediateValue.tensor
        field = tensor.WhichOneof("value")
        need(field in ("floats", "ints", "bools", "strings", "bytes"), f"a constant of {field}")
        if field == "strings":
            return tensor.strings.values[0]
        dtype, shape = _declared(value.type)
        stored = getattr(tensor, field).values
        flat = np.frombuffer(stored, dtype) if field == "bytes" else np.asarray(stored, dtype)
        return flat.reshape(shape)

    def _blob(self, value: Any, dtype: np.dtype[Any]) -> Array:
        need(value.fileName.startswith("@model_path/"), f"a blob in {value.fileName}")
        data = (self._folder / value.fileName.removeprefix("@model_path/")).read_bytes()
        sentinel, kind, size, offset = struct.unpack_from("<IIQQ", data, value.offset)
        need(sentinel == _SENTINEL and _BLOB_TYPES.get(kind) == dtype, f"a blob of kind {kind} for {dtype}")
        return np.frombuffer(data, dtype, size // dtype.itemsize, offset)


def _wide(value: Any) -> Any:
    if isinstance(value, list):
        return [_wide(each) for each in value]
    return value.astype(np.float32) if getattr(value, "dtype", None) == np.float16 else value


def _declared(kind: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    tensor = kind.tensorType
    need(kind.WhichOneof("type") == "tensorType" and tensor.dataType in _TYPES, "a value that is no tensor")
    need(tensor.rank == len(tensor.dimensions), "a rank")
    need(all(size.WhichOneof("dimension") == "constant" for size in tensor.dimensions), "an open size")
    return _TYPES[tensor.dataType], tuple(size.constant.size for size in tensor.dimensions)


def _described(features: Any) -> dict[str, tuple[int, ...]]:
    found = {}
    for feature in features:
        need(feature.type.WhichOneof("Type") == "multiArrayType", f"{feature.name} is no array")
        need(feature.type.multiArrayType.dataType == _FLOAT32, f"{feature.name} is not float32")
        need(feature.name not in found, f"two called {feature.name}")
        found[feature.name] = tuple(feature.type.multiArrayType.shape)
    return found
