"""What the runtime asks of an engine that executes programs; engines.py lists those there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Port, Program
from pi_runtime.errors import ClueError

Array = NDArray[np.float32]
Arrays = Mapping[str, Array]
# More than any board has; a mistyped number would otherwise start that many before it is noticed.
_MOST_THREADS = 256


class Session(Protocol):
    """A loaded program. in_place: output: input, of the pairs that may be given one and the same array."""

    @property
    def in_place(self) -> Mapping[str, str]: ...

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """Compute the outputs INTO the given arrays.

        Every port of the program by its name; C-contiguous float32 of the port's shape, no output overlapping
        another array, but for those of `in_place`, which a run that fails may leave half written. The arrays
        may be kept referenced for the session's life. Raises ClueError when the program fails.
        """


class Engine(Protocol):
    """`name` is the key of the program files in the manifest; the other three go into cost records."""

    name: str
    version: str
    backend: str
    threads: int

    def load(self, path: Path, program: Program) -> Session:
        """Load a program file. Raises ClueError when it cannot be read or its ports are not the program's."""


# what the engines have in common


def replaced(program: Program) -> dict[str, str]:
    """Output: the input that it is the new content of. All are `in_place` where results are copied out of an
    engine's own memory when the program is done."""
    read = {port.binds: port.name for port in program.inputs if port.role in ("state", "carry")}
    return {
        p.name: read[p.binds] for p in program.outputs if p.role in ("state", "carry") and p.binds in read
    }


def usable_cpus() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int | None) -> None:
    """Raise ClueError for a number of threads that no device has; None stands for all of its processors."""
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise ClueError(f"threads is {threads}: it must be from 1 to {_MOST_THREADS}")


def check_arrays(program: Program, ports: Iterable[Port], arrays: Arrays) -> None:
    """Raise ClueError for an array that is not what its port says.

    An engine may read or write a wrong one beyond its end: nothing behind this point checks.
    """
    for port in ports:
        array = arrays[port.name]
        if array.shape != port.shape or array.dtype != np.float32 or not array.flags.c_contiguous:
            raise ClueError(
                f"program {program.name}, port {port.name}: expected a contiguous float32 "
                f"array {list(port.shape)}, got {array.dtype} {list(array.shape)}"
            )


def check_ports(path: Path, kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ClueError where a file's inputs or outputs (`kind`), by name, are not those of the manifest."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ClueError(
                f"{path}: {kind} {name} is {found.get(name, 'missing')} in the file and "
                f"{expected.get(name, 'missing')} in the manifest; export the bundle again"
            )


def first_line(error: Exception) -> str:
    """The first line of an engine's own message."""
    return str(error).strip().partition("\n")[0]
