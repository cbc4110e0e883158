"""The evaluator as an engine, so that golden checks and whole requests run through it."""

from __future__ import annotations

from pathlib import Path

from mil_evaluator import Package

from pi_runtime.bundle import Program
from pi_runtime.engine import Arrays, replaced


class MilEngine:
    """together: take each program's function from that package beside its own."""

    name, version, backend, threads = "coreml", "evaluator", "numpy", 1

    def __init__(self, together: str | None = None) -> None:
        self._together = together

    def load(self, path: Path, program: Program) -> MilSession:
        """See `Engine.load`."""
        if self._together is None:
            return MilSession(Package(path), "main", program)
        return MilSession(Package(path.parent / self._together), program.name, program)


class MilSession:
    """See `Session`. The ports must be those of the program, in its order; [] is [1] in the file."""

    def __init__(self, package: Package, function: str, program: Program) -> None:
        for found, ports in (
            (package.inputs(function), program.inputs),
            (package.outputs(function), program.outputs),
        ):
            assert list(found.items()) == [(port.name, port.shape or (1,)) for port in ports]
        self._package, self._function = package, function
        self.in_place = replaced(program)

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """See `Session.run`."""
        given = {name: array.reshape(array.shape or (1,)) for name, array in inputs.items()}
        for name, array in self._package.run(given, self._function).items():
            outputs[name][...] = array.reshape(outputs[name].shape)
