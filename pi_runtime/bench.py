"""How long one run of each program takes on this device, and how much energy where it is measured.

A run is what a request does in a step: the making of its inputs (pixels, crops, random numbers) and the
program. What a request takes in all is these times the runs that its plan has (docs/cost.md).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pi_runtime import device, weights
from pi_runtime import plan as plans
from pi_runtime.bundle import Bundle
from pi_runtime.cost import Meter
from pi_runtime.engine import Engine
from pi_runtime.errors import ClueError
from pi_runtime.power import Opened
from pi_runtime.power.sampler import Sampler
from pi_runtime.request import Job, Refused, Runner

WARM_UP = 2
FEWEST_RUNS = 5
BUSY = 0.1
PREDICT = "predict"


@dataclass(frozen=True)
class Timing:
    """One program: `p50_s` and `p95_s` over `runs` runs of `batch` samples; `joules` is the mean of a run.

    `cpu_p50_s` is the processor time of a run, all threads: with one thread it is what `p50_s` would be if
    nothing else ran. `busy` is the share of all processors that other programs used meanwhile (None where the
    kernel does not tell): above BUSY the times are longer than the device's own. `joules`,
    `energy_source` and `energy_kind` are None where no source measured it.
    """

    program: str
    batch: int
    runs: int
    p50_s: float
    p95_s: float
    cpu_p50_s: float
    busy: float | None
    joules: float | None
    energy_source: str | None
    energy_kind: str | None


def bench(
    bundle: Bundle,
    engine: Engine,
    *,
    seconds: float = 2.0,
    opened: Opened | None = None,
    tell: Callable[[str], None] = lambda program: None,
) -> list[Timing]:
    """Time every program that a request runs, each for `seconds` and at least FEWEST_RUNS times.

    The bundle's own weights and drawn pixels are used; nothing is stored. Raises ClueError for a time out of
    range or a program that fails.
    """
    if not 0 < seconds <= 600:
        raise ClueError(f"each program is timed for 0 to 600 s, not {seconds:g} s")
    served = weights.read(bundle.file(bundle.weights.file), bundle.weights.sha256, bundle)
    channels, height, width = bundle.input_shape
    n = max(2 * bundle.batch, 256)
    shape = (n, height, width, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = (np.arange(n) % len(bundle.classes)).astype(np.int64)
    job = Job(images, labels, 0, bundle.scalars)
    runner = Runner(bundle, engine, served, job, Meter(engine, bundle.batch))
    first: dict[str, plans.Run] = {}
    for operation in plans.operations(bundle.plan, n, bundle.scalars, 0):
        if isinstance(operation, plans.Run):
            for name in (operation.node.program, *(each.program for each in operation.node.instead)):
                node = plans.RunNode(name, operation.node.bind)
                first.setdefault(name, dataclasses.replace(operation, node=node))
    sampler = None
    if opened is not None and opened.source is not None:
        sampler = Sampler(opened.source, opened.choice.hz)
        sampler.start()
    timings = []
    try:
        for name in [*first, PREDICT]:
            tell(name)
            batch = bundle.programs[name].batch
            run = _runs(runner, first[name]) if name in first else _predicts(runner, batch)
            run()  # what the next program begins with: the mask of a first pass, the weights after one step
            timings.append(_time(name, batch, run, _restores(runner), seconds, sampler))
    except Refused as error:
        raise ClueError(f"{bundle.name} cannot be timed: {error}") from error
    finally:
        if sampler is not None:
            sampler.stop()
    return timings


def _runs(runner: Runner, operation: plans.Run) -> Callable[[], object]:
    return lambda: runner.run_once(operation)


def _restores(runner: Runner) -> Callable[[], None]:
    kept = {name: array.copy() for name, array in runner.values.all().items()}
    return lambda: runner.values.restore(kept)


def _predicts(runner: Runner, batch: int) -> Callable[[], object]:
    return lambda: runner.accuracy(PREDICT, batch)


def _time(
    name: str,
    batch: int,
    run: Callable[[], object],
    restore: Callable[[], object],
    seconds: float,
    sampler: Sampler | None,
) -> Timing:
    """Time `run`, each time with the same values: thousands of steps on drawn pixels end in infinities, whose
    arithmetic takes other times."""
    for _ in range(WARM_UP):
        run()
        restore()
    taken: list[float] = []
    cpu: list[float] = []
    ticks, own = device.processor_times(), time.process_time()
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds or len(taken) < FEWEST_RUNS:
        before, used = time.perf_counter(), time.process_time()
        run()
        taken.append(time.perf_counter() - before)
        cpu.append(time.process_time() - used)
        restore()
        if passed > 20 * seconds and len(taken) >= 1:
            break  # a program that is very slow here
    energy = None if sampler is None else sampler.energy(start, time.monotonic())
    busy = device.busy(ticks, device.processor_times(), time.process_time() - own)
    p50, p95 = np.percentile(taken, (50, 95))
    known = sampler is not None and energy is not None and energy > 0
    return Timing(
        name,
        batch,
        len(taken),
        float(p50),
        float(p95),
        float(np.median(cpu)),
        None if busy is None else round(busy, 3),
        energy / len(taken) if known and energy is not None else None,
        sampler.source.name if known and sampler is not None else None,
        sampler.source.kind if known and sampler is not None else None,
    )
