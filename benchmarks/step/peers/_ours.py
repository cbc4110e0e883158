"""clue-mobile's exported step on one of its runtimes: traced and exported beforehand, run by an engine.

The process that runs it imports what a device has: pi_runtime, numpy and the engine. Another engine of ours,
such as one with kernels of its own, is a file like ours_onnx.py.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from work import ROOT, UnavailableError, Work

LOSSES = ("cross-entropy", "clue")
FOLDERS = ("pi_runtime", "contract")

# The step of each loss: the method that has it as its program, and the names of its targets and its loss.
# RL's step is SGD on the cross-entropy with one-hot labels; its plan draws them, here: the batch's own.
METHODS = {"cross-entropy": ("rl", {"drawn": "onehot"}), "clue": ("clue", {"teacher": "teacher"})}


def export(work: Work, runtime: str, place: Path) -> None:
    """Write the runtime's file of the program `step`, state.npz (the flat state), facts.json (the ports)."""
    from prepare import module_of, spec_of

    import exporters
    from clue_mobile import methods, programs
    from clue_mobile.errors import ClueError
    from clue_mobile.flat import FlatModel
    from clue_mobile.kernel_costs import table
    from exporters.base import Source

    method, _ = METHODS[work.loss]
    model = FlatModel(module_of(work.model), spec_of(work.model))
    settings = {"batch_norm": "batch", **({"saliency_batch": 8 * work.batch} if method == "clue" else {})}
    recipe = methods.build(method, model, methods.configure(method, settings), work.batch)
    program = next(p for p in recipe.programs if p.name == "step")
    try:
        exporter = exporters.get(runtime)
        overrides = table.shipped_overrides(runtime, "host", exporter.OVERRIDES)
        traced = programs.trace(program, overrides=overrides, passes=exporter.PASSES)
        converted = exporter.convert([traced], Source(model, recipe), lambda name: None)
    except ClueError as error:
        raise UnavailableError(str(error)) from error
    for path, content in converted.files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    ports = {
        side: [[p.name, p.role, list(p.shape)] for p in getattr(program, side)]
        for side in ("inputs", "outputs")
    }
    facts: dict[str, Any] = {"file": converted.programs["step"], "ports": ports, "flops": traced.flops}
    facts |= {"peak_bytes": traced.peak_bytes, "bytes": sum(map(len, converted.files.values()))}
    np.savez(place / "state.npz", **{name: t.numpy() for name, t in model.pack().items()})
    (place / "facts.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def setup(work: Work, engine: Callable[[int], Any], place: Path) -> Callable[[], float]:
    """The step as a request runs it: every value that it reads and writes has two arrays, which swap, or one
    where the program may write over what it reads."""
    sys.path.insert(0, str(ROOT))
    from pi_runtime.bundle import Golden, Port, Program

    facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
    sides = [
        tuple(Port(name, role, tuple(shape), name) for name, role, shape in facts["ports"][side])
        for side in ("inputs", "outputs")
    ]
    program = Program("step", work.batch, *sides, 0, 0, {}, Golden("", 0, 1.0, {}, {}))  # type: ignore[arg-type]
    session = engine(work.threads).load(place / facts["file"], program)
    with np.load(place / "state.npz") as file:
        state = {name: file[name] for name in file.files}
    _, targets = METHODS[work.loss]
    given = {"x": work.array("x"), **{port: work.array(name) for port, name in targets.items()}}
    # the method's own names come first: a port that a device fills (lr, mask) is filled here in the same way
    first = {"lr": np.array(work.lr, np.float32), **given, **state}
    current = {}
    for port in program.inputs:
        fill = 1 if port.name == "mask" else 0
        content = first.get(port.name, np.full(port.shape, fill, np.float32))
        current[port.name] = np.array(content, np.float32, order="C")
    over = session.in_place
    target = {
        port.name: current[over[port.name]] if port.name in over else np.zeros(port.shape, np.float32)
        for port in program.outputs
    }
    metrics = [port.name for port in program.outputs if port.role == "metric"]
    moved = [
        (p.name, p.name.removesuffix("_next"))
        for p in program.outputs
        if p.name not in metrics and p.name not in over
    ]
    missing = [name for _, name in moved if name not in current]
    if missing:
        raise RuntimeError(f"the step writes {missing}, which it does not read")

    def step() -> float:
        session.run(current, target)
        for written, read in moved:
            current[read], target[written] = target[written], current[read]
        return float(sum(target[name] for name in metrics))

    return step


def row(
    name: str, runtime: str, engine: Callable[[int], Any]
) -> tuple[Callable[[Work], None], Callable[[Work], Callable[[], float]]]:
    """`export` and `setup` of the row in NAME.py."""
    return (
        lambda work: export(work, runtime, work.place(name)),
        lambda work: setup(work, engine, work.place(name)),
    )


def engine_of(module: str, name: str) -> Callable[[int], Any]:
    """The engine's class, imported when it is needed."""

    def make(threads: int) -> Any:
        sys.path.insert(0, str(ROOT))
        return getattr(importlib.import_module(module), name)(threads)

    return make
