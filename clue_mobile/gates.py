"""ReLU's decisions as a runtime took them, imposed on eager PyTorch: what is left of a difference then is
rounding.

A gradient is not continuous in a ReLU's input: one activation out of millions that rounds to the other side
of zero moves a gradient by 1e-4 to 1e-2 of its scale. `gated` shows that nothing else does (docs/parity.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clue_mobile.errors import ClueError
from clue_mobile.parity import Replay, TensorError, compare, named
from clue_mobile.plan import Program
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Array
from pi_runtime.plan import Run

Gates = Sequence[np.ndarray[Any, np.dtype[np.bool_]]]

_RELU = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class GateReader:
    """A program's ONNX file with the outputs of its ReLUs as further outputs, in ONNX Runtime.

    Raises ClueError where the program has no ReLU or no ONNX file.
    """

    def __init__(self, bundle: Bundle, program: str, threads: int = 1) -> None:
        import onnx
        import onnxruntime

        entry = bundle.programs[program].files.get("onnx")
        if entry is None:
            raise ClueError(f"{bundle.name} has no ONNX file of {program}")
        model = onnx.load(str(bundle.file(entry.file)))
        relus = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
        if not relus:
            raise ClueError(f"program {program} of {bundle.name} has no ReLU")
        model.graph.output.extend([onnx.ValueInfoProto(name=name) for name in relus])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._outputs = [port.name for port in bundle.programs[program].outputs]
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], Gates]:
        """The program's outputs by port, and which elements each ReLU let through, in the file's order."""
        found = self._session.run(None, dict(inputs))
        count = len(self._outputs)
        return dict(zip(self._outputs, found, strict=False)), [output > 0 for output in found[count:]]


class _Watched(TorchFunctionMode):
    """Keeps each ReLU's decisions and compares them with the given ones; with `impose`, takes those."""

    def __init__(self, gates: Gates, impose: bool) -> None:
        super().__init__()
        self._gates: Iterator[Any] = iter(gates)
        self._impose = impose
        self.own: list[np.ndarray[Any, np.dtype[np.bool_]]] = []
        self.flipped = 0
        self.distance = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func not in _RELU:
            return func(*args, **(kwargs or {}))
        gate = next(self._gates, None)
        x = args[0]
        if gate is None or gate.shape != x.shape:
            raise ClueError("the ReLUs of the program are not those of the model, in its order")
        self._count(x.detach(), torch.from_numpy(gate))
        return x * torch.from_numpy(gate) if self._impose else torch.relu(x)

    def _count(self, x: Tensor, gate: Tensor) -> None:
        self.own.append((x > 0).numpy())
        differ = (x > 0) != gate
        self.flipped += int(differ.sum())
        if differ.any():
            size = x.abs()
            self.distance = max(self.distance, float(size[differ].max() / size.max()))


@dataclass(frozen=True)
class Gated:
    """One run of a program, held against eager PyTorch in float64 with the same decision of every ReLU.

    runtime, eager: the errors of the runtime and of eager in float32, of every state or carry that is
    written, by tensor. total: elements of all ReLUs. flipped: those that eager decides otherwise than the
    runtime. distance: the largest |input| of a flipped one, as a share of the largest of its layer.
    """

    runtime: list[TensorError]
    eager: list[TensorError]
    total: int
    flipped: int
    distance: float


def gated(replay: Replay, reader: GateReader, program: Program, operation: Run) -> Gated:
    """Carry out a run of `program`, as `programs.build` makes it of the bundle's model, by the runtime and by
    eager.

    Raises ClueError where reading the gates changes a bit of the result: they would not be the runtime's.
    """
    inputs = replay.inputs(operation)
    outputs, gates = reader(inputs)
    replay.carry_out(operation)
    binds = {p.name: str(p.binds) for p in program.outputs if p.role in ("state", "carry")}
    for port, value in binds.items():
        if not np.array_equal(outputs[port], replay.values.current(value)):
            raise ClueError(f"program {program.name} gives another {port} when its ReLUs are read")

    tensors = [torch.from_numpy(inputs[port.name]) for port in program.inputs]
    doubles = [tensor.double() for tensor in tensors]

    def run(arguments: Sequence[Tensor], gates: Gates, impose: bool) -> tuple[dict[str, Any], _Watched]:
        with _Watched(gates, impose) as watched:
            found = program.fn(*arguments)
        values = {
            binds[port.name]: tensor.detach().numpy()
            for port, tensor in zip(program.outputs, found, strict=True)
            if port.name in binds
        }
        return named(replay.table, values), watched

    eager, watched = run(tensors, gates, impose=False)
    runtime = named(replay.table, {value: outputs[port] for port, value in binds.items()})
    return Gated(
        compare(runtime, run(doubles, gates, impose=True)[0]),
        compare(eager, run(doubles, watched.own, impose=True)[0]),
        sum(gate.size for gate in gates),
        watched.flipped,
        watched.distance,
    )
