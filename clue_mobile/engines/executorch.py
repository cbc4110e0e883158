"""ExecuTorch through its Python binding: a bundle's methods as a phone would run them."""

from __future__ import annotations

import gc
import logging
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clue_mobile.errors import ClueError
from pi_runtime.bundle import Port, Program
from pi_runtime.engine import Arrays, check_arrays, check_threads, first_line, replaced, usable_cpus

_FLOAT32 = 6  # ExecuTorch's number for the type
_live: weakref.WeakSet[Any] = weakref.WeakSet()  # sessions, whichever engine made them


class ExecutorchEngine:
    """`threads` is the number of threads inside an operator, all usable processors when None.

    Raises ClueError where executorch is missing, or where programs loaded earlier use another number: all
    programs of a process share one pool of threads.
    """

    name = "executorch"
    backend = "xnnpack"

    def __init__(self, threads: int | None = None) -> None:
        check_threads(threads)
        # a registration of a package that executorch imports is deprecated: nothing that a user could change
        logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
        try:
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
        except ImportError as error:
            raise ClueError("executorch is not installed: pip install 'clue-mobile[executorch]'") from error
        self.version: str = version("executorch")
        self.threads = threads or usable_cpus()
        self._runtime = Runtime.get()
        self._files: dict[Path, tuple[tuple[int, int], Any]] = {}
        if portable_lib._threadpool_get_thread_count() != self.threads:
            gc.collect()
            if len(_live):  # they hold on to the pool, which is replaced
                raise ClueError(
                    f"ExecuTorch has programs loaded that use {portable_lib._threadpool_get_thread_count()} "
                    f"threads: another number, {self.threads}, needs another process"
                )
            portable_lib._unsafe_reset_threadpool(self.threads)

    def load(self, path: Path, program: Program) -> ExecutorchSession:
        """See `Engine.load`. Programs of one file share it, and its working memory."""
        try:
            file = self._file(path)
            if program.name not in file.method_names:
                raise ClueError(
                    f"{path} has no method {program.name} (it has {', '.join(sorted(file.method_names))}); "
                    "export the bundle again"
                )
            method = file.load_method(program.name)
        except (OSError, RuntimeError) as error:
            raise ClueError(f"executorch cannot load {path}: {first_line(error)}") from error
        facts = method.metadata
        for kind, count, fact, ports in (
            ("input", facts.num_inputs(), facts.input_tensor_meta, program.inputs),
            ("output", facts.num_outputs(), facts.output_tensor_meta, program.outputs),
        ):
            _check_ports(path, program.name, kind, [fact(i) for i in range(count)], ports)
        return ExecutorchSession(file, method, program)

    def _file(self, path: Path) -> Any:
        """The file, read once for all its methods; anew where it has changed."""
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if path not in self._files or self._files[path][0] != stamp:
            self._files[path] = (stamp, self._runtime.load_program(path.read_bytes()))
        return self._files[path][1]


class ExecutorchSession:
    """See `Session`."""

    def __init__(self, file: Any, method: Any, program: Program) -> None:
        import torch

        self._file, self._method, self._program = file, method, program  # a method does not keep its file
        self.in_place = replaced(program)
        self._tensor = torch.from_numpy
        _live.add(self)

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """See `Session.run`. The results are copied into the arrays given."""
        check_arrays(self._program, self._program.inputs, inputs)
        check_arrays(self._program, self._program.outputs, outputs)
        try:
            results = self._method.execute([self._tensor(inputs[port.name]) for port in self._program.inputs])
        except RuntimeError as error:
            raise ClueError(
                f"program {self._program.name} failed in executorch: {first_line(error)}"
            ) from error
        for port, result in zip(self._program.outputs, results, strict=True):
            np.copyto(outputs[port.name], result.numpy())


def _check_ports(path: Path, program: str, kind: str, found: list[Any], ports: tuple[Port, ...]) -> None:
    """A .pte has no names: number, order, shapes and types must agree."""
    described = [(tuple(fact.sizes()), fact.dtype()) for fact in found]
    expected = [(port.shape, _FLOAT32) for port in ports]
    if described != expected:
        raise ClueError(
            f"{path}, method {program}: the {kind}s are {_shapes(described)} in the file and "
            f"{_shapes(expected)} in the manifest; export the bundle again"
        )


def _shapes(described: list[tuple[tuple[int, ...], int]]) -> str:
    return ", ".join(
        f"{list(shape)}" + ("" if dtype == _FLOAT32 else f" of type {dtype}") for shape, dtype in described
    )
