"""What the runtime asks of an engine that executes programs; engines.py lists those there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Program

Array = NDArray[np.float32]
Arrays = Mapping[str, Array]


class Session(Protocol):
    """A loaded program."""

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """Compute the outputs INTO the given arrays.

        Every port of the program by its name; C-contiguous float32 of the port's shape, no output overlapping
        another array. The arrays may be kept referenced for the session's life. Raises ClueError when the
        program fails.
        """


class Engine(Protocol):
    """`name` is the key of the program files in the manifest; the other three go into cost records."""

    name: str
    version: str
    backend: str
    threads: int

    def load(self, path: Path, program: Program) -> Session:
        """Load a program file. Raises ClueError when it cannot be read or its ports are not the program's."""
