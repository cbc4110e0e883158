"""Runs one program K times by an engine of the Pi runtime: what count.py starts on the emulated processor.

    python run_steps.py MODULE:ENGINE FILE PORTS.json K

PORTS.json: {"name": PROGRAM, "inputs": {NAME: SHAPE}, "outputs": {NAME: SHAPE}}. Inputs are drawn from a
fixed seed; what a run returns as NAME_next is the next run's NAME, as a step's state is. Prints one line of
JSON when all runs are done: the mean absolute value of every output of the last run. Needs numpy, pi_runtime
and the engine's package.

Before the first run and after each a mark is set for counter.c: a system call that does nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np

from pi_runtime.bundle import Golden, Port, Program

NEXT = "_next"
MARK = 1928374655  # counter.c knows it; no process has this number


def program_of(ports: dict[str, object]) -> Program:
    """What an engine needs to know of a program: its name and ports."""
    inputs, outputs = (
        tuple(Port(name, "", tuple(shape), "") for name, shape in ports[kind].items())  # type: ignore[attr-defined]
        for kind in ("inputs", "outputs")
    )
    return Program(str(ports["name"]), 0, inputs, outputs, 0, 0, {}, Golden("", 0, {}, {}, {}))


def drawn(port: Port, rng: np.random.Generator) -> np.ndarray:
    """Values that keep a step finite: small weights, positive variances, a mask of zeros and ones."""
    value = rng.random(port.shape, dtype=np.float32)
    if port.name == "mask":
        value = np.round(value)
    elif port.name in ("params", "frozen"):
        value = (value - np.float32(0.5)) * np.float32(0.1)
    elif port.name == "buffers":
        value = value + np.float32(0.5)
    elif not port.shape:
        value = np.asarray(value * np.float32(1e-3))
    return np.require(value, np.float32, "C")


def mark() -> None:
    """Tell the plugin that a run begins or ends."""
    with contextlib.suppress(OSError):
        os.getpriority(os.PRIO_PROCESS, MARK)


def run(engine: str, file: Path, ports: dict[str, object], times: int) -> dict[str, float]:
    """Mean absolute value of each output after `times` runs on one thread."""
    module, _, name = engine.partition(":")
    program = program_of(ports)
    session = getattr(importlib.import_module(module), name)(threads=1).load(file, program)
    rng = np.random.default_rng(0)
    inputs = {port.name: drawn(port, rng) for port in program.inputs}
    outputs = {port.name: np.zeros(port.shape, np.float32) for port in program.outputs}
    gc.disable()  # a collection, a million instructions, would fall into one step or another
    mark()
    for _ in range(times):
        session.run(inputs, outputs)
        mark()
        for key in outputs:
            if key.endswith(NEXT) and (held := key.removesuffix(NEXT)) in inputs:
                inputs[held], outputs[key] = outputs[key], inputs[held]
    last = {key: inputs.get(key.removesuffix(NEXT), value) for key, value in outputs.items()}
    return {key: float(np.abs(value, dtype=np.float64).mean()) for key, value in last.items()}


if __name__ == "__main__":
    _, chosen, path, described, count = sys.argv
    print(json.dumps(run(chosen, Path(path), json.loads(Path(described).read_text()), int(count))))
