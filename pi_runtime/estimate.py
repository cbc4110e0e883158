"""What a request would take, told before it runs: counts, memory, storage; time and energy where known."""

from __future__ import annotations

import collections
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pi_runtime import plan as plans
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Engine
from pi_runtime.golden import golden_inputs
from pi_runtime.request import load, programs
from pi_runtime.values import swapped_values
from pi_runtime.weights import WeightsFile

_PROBE_RUNS = 3
_PROBE_S = 2.0  # a program slower than this is run once only


@dataclass(frozen=True)
class Counts:
    """At most so many runs of each program, and steps (runs by the plan alone) of each phase."""

    runs: Mapping[str, int]
    steps: Mapping[str, int]


def counts(bundle: Bundle, n: int, scalars: Mapping[str, float]) -> Counts:
    """Count by walking the plan as it would be walked for `n` samples when no stop is taken."""
    runs: collections.Counter[str] = collections.Counter()
    steps: collections.Counter[str] = collections.Counter()
    for operation in plans.operations(bundle.plan, n, scalars, 0) if n else ():
        if isinstance(operation, plans.Run):
            runs[operation.node.program] += 1
            steps[operation.place.phase] += 1
        elif isinstance(operation, plans.Stop) and operation.due:
            program = operation.node.program
            runs[program] += _batches(bundle, program, min(operation.node.samples, n))
    if n:
        runs["predict"] += 2 * _batches(bundle, "predict", n)
    return Counts(dict(runs), dict(steps))


def _batches(bundle: Bundle, program: str, n: int) -> int:
    return -(-n // bundle.programs[program].batch)


def values_bytes(bundle: Bundle, n: int) -> int:
    """The arrays that a request of `n` samples holds."""
    swapped = swapped_values(bundle)
    return sum(
        4 * math.prod(value.shape) * (n if value.role == "cache" else 1 + (name in swapped))
        for name, value in bundle.values.items()
    )


def planned_peak(bundle: Bundle, n: int) -> int:
    """The bytes of the values and of the largest program; the engine's own code is not in it."""
    used = {name for _, name in programs(bundle.plan)}
    return values_bytes(bundle, n) + max(bundle.programs[name].peak_bytes for name in used)


def checkpoint_bytes(bundle: Bundle, n: int) -> int:
    """The arrays of a checkpoint; its texts are small."""
    return sum(
        -(-math.prod(value.shape) // 8)
        if value.storage == "bits"
        else 4 * math.prod(value.shape) * (n if value.role == "cache" else 1)
        for value in bundle.values.values()
    )


def estimate(
    bundle: Bundle,
    engine: Engine,
    n: int,
    scalars: Mapping[str, float],
    records: Sequence[Mapping[str, Any]],
    sizes: Mapping[int, int],
    probe: bool = True,
) -> dict[str, Any]:
    """What `Runtime.dry_run` tells; `records` are the cost records of requests of this bundle, `sizes` how
    many samples each of these requests had.

    Time and energy are those of the latest done request of the same engine, version and threads, scaled by
    the steps of each phase; else the time is that of a short `probe` of the programs, and the energy null.
    """
    counted = counts(bundle, n, scalars)
    weights, checkpoint = bundle.weights.bytes, checkpoint_bytes(bundle, n) if n else 0
    told: dict[str, Any] = {
        "samples": n,
        "operations": plans.total(bundle.plan, n, scalars) if n else 0,
        "runs": dict(counted.runs),
        "flops": sum(bundle.programs[name].flops * count for name, count in counted.runs.items()),
        "values_bytes": values_bytes(bundle, n),
        "planned_peak_bytes": planned_peak(bundle, n) if n else 0,
        "storage_bytes": weights,
        "checkpoint_bytes": checkpoint,
        # While a checkpoint replaces another, or the new weights are written, both are on the disk.
        "storage_peak_bytes": max(2 * checkpoint, weights + checkpoint),
        "time_s": None,
        "time_source": "no samples",
        "energy_j": None,
        "energy_source": "no samples",
    }
    if n:
        known = _from_records(bundle, engine, n, counted, records, sizes)
        told |= known or {
            "energy_source": "not known: no request of this engine and thread count has run here",
            "time_source": "not known",
        }
        if known is None and probe:
            told |= _probed(bundle, engine, counted)
    return told


def _from_records(
    bundle: Bundle,
    engine: Engine,
    n: int,
    counted: Counts,
    records: Iterable[Mapping[str, Any]],
    sizes: Mapping[int, int],
) -> dict[str, Any] | None:
    """Time and energy by the latest request that tells them for every phase that has steps."""
    requests: dict[int, dict[str, Mapping[str, Any]]] = {}
    here = (engine.name, engine.version, engine.threads)
    for record in records:
        made = record["runtime"]
        mine = (made["name"], made["version"], made["threads"]) == here
        if mine and record["status"] == "done" and record["request_id"] in sizes:
            requests.setdefault(record["request_id"], {})[record["phase"]] = record
    for request_id, phases in sorted(requests.items(), reverse=True):
        if "request" not in phases or not counted.steps.keys() <= phases.keys():
            continue
        verified = _batches(bundle, "predict", n) / _batches(bundle, "predict", sizes[request_id])
        time_s, energy = _scaled(phases, counted, verified)
        source = phases["request"]["energy_source"]
        measured = energy is not None and source is not None
        return {
            "time_s": round(time_s, 3),
            "time_source": f"records of request {request_id} on this device",
            "energy_j": None if energy is None else round(energy, 3),
            "energy_source": f"records of request {request_id}: {source}"
            if measured
            else f"not known: request {request_id} has no energy on record",
        }
    return None


def _scaled(
    phases: Mapping[str, Mapping[str, Any]], counted: Counts, verified: float
) -> tuple[float, float | None]:
    whole = phases["request"]
    seconds, energy = whole["load_s"] + whole["save_s"], 0.0
    known = True
    for phase, record in phases.items():
        if phase == "request" or (phase not in counted.steps and phase != "verify"):
            continue
        ratio = verified if phase == "verify" else counted.steps[phase] / record["steps"]
        seconds += ratio * record["wall_s"]
        known = known and record["energy_j"] is not None
        energy += ratio * (record["energy_j"] or 0.0)
    return seconds, energy if known and energy else None


def _probed(bundle: Bundle, engine: Engine, counted: Counts) -> dict[str, Any]:
    """Load each program, run it on its golden inputs, and add up."""
    total = 0.0
    for name, count in counted.runs.items():
        program = bundle.programs[name]
        start = time.perf_counter()
        session = load(bundle, engine, name)
        total += time.perf_counter() - start
        inputs = golden_inputs(bundle, program, WeightsFile(bundle.file(program.golden.file)))
        inputs = {port: np.array(array, np.float32, order="C") for port, array in inputs.items()}
        outputs = {port.name: np.zeros(port.shape, np.float32) for port in program.outputs}
        seconds: list[float] = []
        # The first run also prepares the engine's memory.
        while len(seconds) <= _PROBE_RUNS and sum(seconds) < _PROBE_S:
            start = time.perf_counter()
            session.run(inputs, outputs)
            seconds.append(time.perf_counter() - start)
        total += count * statistics.median(seconds[1:] or seconds)
    return {
        "time_s": round(total, 3),
        "time_source": f"a probe: each program timed on this device, {_PROBE_RUNS} runs at most",
    }
