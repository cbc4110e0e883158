"""ONNX Runtime on the CPU: programs read and write the runtime's own arrays, nothing is copied each step."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from pi_runtime.bundle import Program
from pi_runtime.engine import Arrays, check_arrays, check_ports, check_threads, first_line, usable_cpus
from pi_runtime.errors import ClueError, MissingLibraryError

# Values that are swapped have two arrays each, so a plan comes back to few combinations; the limit only keeps
# a session that is given new arrays each time from holding on to all of them.
_MOST_BINDINGS = 64
_ARENA = {
    "arena_extend_strategy": 0,
    "max_dead_bytes_per_chunk": 1 << 16,
    "initial_chunk_size_bytes": 4 << 20,
}
_LIBRARY = "libclue_kernels.so"
_IN_PLACE = (
    "clue.in_place"  # of a file's metadata: the outputs that it may write over inputs, "OUT=IN OUT=IN"
)


@functools.cache
def _share_arena() -> None:
    """Register one arena of working memory for all sessions of this process that ask for it.

    Programs never run at the same time. With an arena each, all kept what they had needed (slices of the
    weights at least), and a request's peak was the sum: 428 MiB where this took 191 (ResNet-20, batch 32,
    x86-64). Strategy 0 grows it by the next power of two: few large regions, in which what is given back
    joins up again. Regions as large as what was asked for (strategy 1) stay apart, and a step of ResNet-20
    then takes 82 MiB where 55 are alive, against 57 this way (benchmarks/memory). A block that is given
    back is cut for the next that is smaller; by default one of up to twice the size is taken whole, and the
    rest is lost. With a first region of 4 MiB instead of 1 there are fewer ends of regions that fit nothing.
    """
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # An error means that the program around us has registered one: then that is shared.
    with contextlib.suppress(Exception):
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(_ARENA))


class OnnxEngine:
    """`threads` is the number of threads inside an operator, all usable processors when None."""

    name = "onnx"
    backend = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        check_threads(threads)
        try:
            import onnxruntime
        except ImportError as error:
            raise ClueError(
                "onnxruntime is not installed: pip install onnxruntime, or 'clue-mobile[pi]' on a computer"
            ) from error
        _share_arena()
        self._onnxruntime = onnxruntime
        self.version: str = onnxruntime.__version__
        self.threads = threads or usable_cpus()

    def load(self, path: Path, program: Program) -> OnnxSession:
        """See `Engine.load`."""
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only: they also arrive as exceptions
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Planned patterns hold one block of the size of all intermediates: no faster here, and larger.
        options.enable_mem_pattern = False
        # Nor does a dead value's memory wait for the next of its size: it goes back to the arena. Held for
        # each other, they make up 11 MiB of a ResNet-20 step's 69; no slower here.
        options.enable_mem_reuse = False
        self._extend(options)
        try:
            session = self._onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise ClueError(f"onnxruntime cannot load {path}: {first_line(error)}") from error
        for kind, found, ports in (
            ("input", session.get_inputs(), program.inputs),
            ("output", session.get_outputs(), program.outputs),
        ):
            described = {port.name: (tuple(port.shape), port.type) for port in found}
            expected = {port.name: (port.shape, "tensor(float)") for port in ports}
            check_ports(path, kind, described, expected)
        return OnnxSession(session, program)

    def _extend(self, options: Any) -> None:
        """Add to a session's options what the programs of this engine need besides stock operators."""


class OnnxClueEngine(OnnxEngine):
    """`OnnxEngine` for programs that call the operators of the library that `kernels` finds."""

    name = "onnx-clue"

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)
        self._library = kernels()

    def _extend(self, options: Any) -> None:
        try:
            options.register_custom_ops_library(str(self._library))
        except Exception as error:  # see OnnxEngine.load
            raise ClueError(f"onnxruntime cannot use {self._library}: {first_line(error)}") from error


def kernels() -> Path:
    """The kernel library: what CLUE_KERNELS names, else the file beside this one.

    Raises MissingLibraryError where it is not there.
    """
    named = os.environ.get("CLUE_KERNELS")
    path = Path(named) if named else Path(__file__).with_name(_LIBRARY)
    if not path.is_file():
        raise MissingLibraryError(
            f"onnx-clue programs need the kernel library, and {path} is no file: build it as "
            "kernels/README.md says and set CLUE_KERNELS to its path, or export with --runtime onnx"
        )
    return path


class OnnxSession:
    """See `Session`. One set of bindings is kept for each combination of arrays that was seen."""

    def __init__(self, session: Any, program: Program) -> None:
        self._session, self._program = session, program
        said = session.get_modelmeta().custom_metadata_map.get(_IN_PLACE, "")
        self.in_place = {out: given for out, _, given in (pair.partition("=") for pair in said.split())}
        self._bindings: dict[tuple[int, ...], tuple[Any, list[Any]]] = {}

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """See `Session.run`."""
        program = self._program
        arrays = [inputs[port.name] for port in program.inputs]
        arrays += [outputs[port.name] for port in program.outputs]
        key = tuple([id(array) for array in arrays])
        if key not in self._bindings:
            if len(self._bindings) == _MOST_BINDINGS:
                self._bindings.clear()
            # The arrays are kept too, so that neither their memory nor their identity passes to others.
            self._bindings[key] = (self._bind(inputs, outputs), arrays)
        try:
            self._session.run_with_iobinding(self._bindings[key][0])
        except Exception as error:  # see OnnxEngine.load
            raise ClueError(f"program {program.name} failed in onnxruntime: {first_line(error)}") from error

    def _bind(self, inputs: Arrays, outputs: Arrays) -> Any:
        binding = self._session.io_binding()
        for ports, arrays, bind in (
            (self._program.inputs, inputs, binding.bind_input),
            (self._program.outputs, outputs, binding.bind_output),
        ):
            check_arrays(self._program, ports, arrays)
            for port in ports:
                bind(port.name, "cpu", 0, np.float32, list(port.shape), arrays[port.name].ctypes.data)
        return binding
