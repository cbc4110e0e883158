"""The memory that a program takes to run, measured beside the planned peak: each in a process of its own,
since what one run has freed hides what the next one takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pi_runtime import device, engines, golden
from pi_runtime.bundle import Bundle
from pi_runtime.engine import usable_cpus
from pi_runtime.errors import ClueError
from pi_runtime.request import load
from pi_runtime.weights import WeightsFile

RUNS = 2  # the second finds what the first has left behind


@dataclass(frozen=True)
class Footprint:
    """Bytes: `planned` by the bundle; `measured` of inputs, outputs and what a run takes besides (None where
    the system does not tell, `reason` says why)."""

    program: str
    planned: int
    measured: int | None
    reason: str | None = None


def measure(
    bundle: Bundle,
    engine: str,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda program: None,
) -> list[Footprint]:
    """One for each program that the engine of this name has a file for; threads: all processors when None.

    Raises ClueError where a program cannot run.
    """
    found = []
    for program in bundle.programs.values():
        if engine not in program.files:
            continue
        progress(program.name)
        given = [str(bundle.root), engine, program.name, str(threads or usable_cpus())]
        run = subprocess.run(
            [sys.executable, "-m", "pi_runtime.footprint", *given],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            said = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
            raise ClueError(f"the memory of program {program.name} could not be measured: {said[-1]}")
        answer = json.loads(run.stdout)
        found.append(Footprint(program.name, program.peak_bytes, answer["measured"], answer["reason"]))
    return found


def _one(folder: str, engine: str, name: str, threads: str) -> dict[str, int | str | None]:
    """Run the program in this process; see `Footprint`."""
    bundle = Bundle.open(Path(folder))
    program = bundle.programs[name]
    chosen = engines.choose(bundle, engine, int(threads))
    inputs = golden.golden_inputs(bundle, program, WeightsFile(bundle.file(program.golden.file)))
    outputs = {port.name: np.zeros(port.shape, np.float32) for port in program.outputs}
    for array in outputs.values():
        array.fill(1.0)  # memory is given when it is first written
    session = load(bundle, chosen, name)
    before, peak = device.resident_memory(), device.PeakMemory()
    for _ in range(RUNS):
        session.run(inputs, outputs)
    if before is None or peak.source != "VmHWM":
        return {"measured": None, "reason": "this system does not tell the peak of a stretch of time"}
    ports = sum(array.nbytes for array in (*inputs.values(), *outputs.values()))
    return {"measured": ports + max(peak.read() - before, 0), "reason": None}


if __name__ == "__main__":
    print(json.dumps(_one(*sys.argv[1:])))
