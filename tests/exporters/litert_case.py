"""What the tests of the LiteRT exporter share: programs of tiny functions, run by ai-edge-litert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor

from clue_mobile.plan import Port, Program
from clue_mobile.programs import Traced, trace
from exporters import litert

OPERATORS = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
TENSOR_TYPES = {number: name for name, number in vars(schema.TensorType).items() if name[0] != "_"}


def program(fn: Callable[..., tuple[Tensor, ...]], *shapes: Sequence[int], name: str = "p") -> Program:
    """`fn` as a program of carries in0, in1, ... and out0, out1, ..."""
    examples = [torch.full(tuple(shape), 0.5) for shape in shapes]
    inputs = tuple(Port(f"in{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(examples))
    outputs = tuple(Port(f"out{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(fn(*examples)))
    return Program(name, 1, inputs, outputs, fn)


def traced(fn: Callable[..., tuple[Tensor, ...]], *shapes: Sequence[int], name: str = "p") -> Traced:
    """The same with LiteRT's own lowerings."""
    return trace(program(fn, *shapes, name=name), overrides=litert.OVERRIDES)


def convert(*programs: Traced) -> bytes:
    """The file's content."""
    converted = litert.convert(programs, None, lambda name: None)  # type: ignore[arg-type]
    assert set(converted.programs.values()) == {"programs.tflite"}
    return dict(converted.files)["programs.tflite"]


def run(data: bytes, *inputs: Tensor, name: str = "p") -> list[np.ndarray[Any, Any]]:
    """The outputs of a signature in the order of their names."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    made = interpreter.get_signature_runner(name)(**{f"in{i}": t.numpy() for i, t in enumerate(inputs)})
    return [made[key] for key in sorted(made, key=lambda key: int(key.removeprefix("out")))]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(fn: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, tolerance: float = 5e-6) -> bytes:
    """LiteRT's results are eager PyTorch's, relative to each output's scale; returns the file."""
    data = convert(traced(fn, *(t.shape for t in inputs)))
    expected = fn(*inputs)
    found = run(data, *inputs)
    assert len(found) == len(expected)
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == tuple(b.shape), number
        scale = float(b.abs().max()) or 1.0
        error = float(np.abs(a - b.numpy()).max(initial=0)) / scale
        assert error <= tolerance, (number, error)
    return data


def read(data: bytes) -> Any:
    """The file as objects of the schema."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))


def operators(data: bytes) -> list[str]:
    """The names of all operators, graph by graph in their order."""
    model = read(data)
    codes = [OPERATORS[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators]
