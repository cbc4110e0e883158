"""LiteRT on the CPU (ai-edge-litert): one file for all programs, a signature for each."""

from __future__ import annotations

import weakref
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pi_runtime.bundle import Program
from pi_runtime.engine import Arrays, check_arrays, check_ports, check_threads, replaced, usable_cpus
from pi_runtime.errors import ClueError


class LitertEngine:
    """`threads` is the number of threads inside an operator, all usable processors when None."""

    name = "litert"
    backend = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        check_threads(threads)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ClueError(
                "ai-edge-litert is not installed: pip install ai-edge-litert, or 'clue-mobile[litert]' on a "
                "computer"
            ) from error
        self._interpreter = Interpreter
        self.version: str = metadata.version("ai-edge-litert")
        self.threads = threads or usable_cpus()
        # Programs share a file: as long as one of its sessions lives, the others come from the same reading.
        self._opened: weakref.WeakValueDictionary[tuple[str, int, int], Any] = weakref.WeakValueDictionary()

    def load(self, path: Path, program: Program) -> LitertSession:
        """See `Engine.load`."""
        try:
            interpreter = self._open(path)
            signatures = interpreter.get_signature_list()
            if program.name not in signatures:
                raise ClueError(
                    f"{path} has no signature {program.name}, only "
                    f"{', '.join(sorted(signatures)) or 'none'}; export the bundle again"
                )
            runner = interpreter.get_signature_runner(program.name)
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        except (OSError, ValueError, RuntimeError) as error:
            raise ClueError(f"ai-edge-litert cannot load {path}: {_one_line(error)}") from error
        for kind, found, ports in (("input", inputs, program.inputs), ("output", outputs, program.outputs)):
            described = {
                name: (tuple(int(n) for n in tensor["shape"]), np.dtype(tensor["dtype"]).name)
                for name, tensor in found.items()
            }
            expected = {port.name: (port.shape, "float32") for port in ports}
            check_ports(path, kind, described, expected)
        return LitertSession(runner, program)

    def _open(self, path: Path) -> Any:
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        interpreter = self._opened.get(key)
        if interpreter is None:
            interpreter = self._interpreter(model_path=str(path), num_threads=self.threads)
            # Prepares the first signature, the file's smallest, and gives all of them to XNNPACK.
            interpreter.allocate_tensors()
            self._opened[key] = interpreter
        return interpreter


class LitertSession:
    """See `Session`. Inputs are copied into LiteRT's memory and results out of it, 2 ms for 8 MB."""

    def __init__(self, runner: Any, program: Program) -> None:
        self._runner, self._program = runner, program
        self.in_place = replaced(program)

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """See `Session.run`."""
        program = self._program
        check_arrays(program, program.inputs, inputs)
        check_arrays(program, program.outputs, outputs)
        try:
            results = self._runner(**{port.name: inputs[port.name] for port in program.inputs})
        except (ValueError, RuntimeError) as error:
            raise ClueError(f"program {program.name} failed in ai-edge-litert: {_one_line(error)}") from error
        for port in program.outputs:
            np.copyto(outputs[port.name], results[port.name])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
