"""Constants in a file beside the model: one message of protocol buffers ends at 2 GiB."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

# Protocol buffers end at 2 GiB; what is no constant takes a few MiB at most.
LIMIT = 2**31 - 2**26
_SMALLEST = 1024  # bytes; what shape inference reads is below that
_ALIGNMENT = 4096  # so that a runtime can map the file into memory


def split(model: onnx.ModelProto, location: str) -> bytes | None:
    """Move the constants of a model above LIMIT, in place, into the content of the file `location`.

    None where the model fits in one message.
    """
    sizes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if sizes <= LIMIT:
        return None
    data = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _SMALLEST:
            continue
        data += bytes(-len(data) % _ALIGNMENT)
        length = len(tensor.raw_data)
        set_external_data(tensor, location, len(data), length)
        data += tensor.raw_data
        tensor.ClearField("raw_data")
    return bytes(data)


def check(model: onnx.ModelProto, location: str, data: bytes) -> None:
    """`onnx.checker.check_model` on the two files; raises its ValidationError."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / location).write_bytes(data)
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(path), full_check=True)
