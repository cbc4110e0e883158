"""Carries out the plan of one request in memory: programs, values, batches, random numbers; no store."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import augment, draw, rng
from pi_runtime import plan as plans
from pi_runtime.bundle import Bundle, Port
from pi_runtime.classify import Classifier, pixels
from pi_runtime.cost import Meter
from pi_runtime.engine import Array, Arrays, Engine, Session
from pi_runtime.errors import ClueError
from pi_runtime.values import Values


class Cancelled(Exception):  # noqa: N818  not an error: the user asked for it
    """The request was cancelled between two operations."""


class Paused(Exception):  # noqa: N818  not an error: it goes on later
    """The request stops here for now; the message is the reason."""


class Refused(Exception):  # noqa: N818  not an error: a check of the outcome said no
    """The outcome must not be served; the message says why."""


@dataclass(frozen=True)
class Progress:
    """Told after each operation: `done` of `total` operations, the metrics of the latest program."""

    phase: str
    epoch: int
    done: int
    total: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Job:
    """What a request works on; `images` are its frozen samples, uint8 [N, H, W, C], `labels` int64 [N].

    `check` is called between operations and may raise Cancelled or Paused. `enough` is asked after each epoch
    of the outermost epochs loop and ends that loop with True. `save` is called after each such epoch, and
    each `save_every` runs of programs unless that is 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seed: int
    scalars: Mapping[str, float]
    progress: Callable[[Progress], None] | None = None
    check: Callable[[], None] = lambda: None
    enough: Callable[[], bool] | None = None
    save: Callable[[], None] | None = None
    save_every: int = 0


@dataclass
class Evidence:
    """What happened: the mean of each metric by phase and epoch, the percent that stops measured."""

    epochs_run: int = 0
    stopped_early: bool = False
    metrics: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    stops: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Begun:
    """How far an earlier part of the request came; `evidence` is what `Runner.so_far` gave."""

    cursor: int
    values: Mapping[str, Array]
    evidence: Mapping[str, Any]


class Runner:
    """Holds the sessions, values and buffers of one request; `cursor` is the number of the next operation.

    With `begun` it goes on where that ended. Raises ClueError when a program cannot be loaded or fails.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        served: Mapping[str, Array],
        job: Job,
        meter: Meter,
        begun: Begun | None = None,
    ) -> None:
        self.bundle, self.engine, self.job, self.meter = bundle, engine, job, meter
        self.cursor = 0
        self.evidence = Evidence()
        # The running mean of each metric: (epoch, sum, count).
        self._sums: dict[tuple[str, str], tuple[int, float, int]] = {}
        self._sessions: dict[str, Session] = {}
        self._classifiers: dict[str, Classifier] = {}
        self._buffers: dict[tuple[str, ...], Array] = {}
        start = time.perf_counter()
        self.values = Values(bundle, served, len(job.images), job.seed)
        if begun is not None:
            self._go_on(begun)
        meter.loaded(time.perf_counter() - start)
        for phase, name in programs(bundle.plan):
            if name not in self._sessions:
                start = time.perf_counter()
                self._session(name)
                meter.loaded(time.perf_counter() - start, phase)

    def _session(self, name: str) -> Session:
        """The program's session, loaded when it is first asked for: of the variants of a step most never
        are."""
        if name not in self._sessions:
            self._sessions[name] = load(self.bundle, self.engine, name)
        return self._sessions[name]

    def chosen(self, node: plans.RunNode) -> str:
        """The program that a run node stands for now: the first variant that the values allow, else its
        own."""
        for variant in node.instead:
            if all(self.values.begins_with_zeros(*asked) for asked in variant.zeros.items()):
                return variant.program
        return node.program

    def _go_on(self, begun: Begun) -> None:
        """Take over what an earlier part left. Raises KeyError, TypeError or ValueError if it is not that."""
        self.cursor = begun.cursor
        evidence = dict(begun.evidence)
        self._sums = {
            (phase, name): (epoch, total, count) for phase, name, epoch, total, count in evidence.pop("sums")
        }
        self.evidence = Evidence(**evidence)
        self.values.restore(begun.values)

    def so_far(self) -> dict[str, Any]:
        """The evidence so far, with the sums that its unfinished means are made of; JSON."""
        sums = [[*key, *sums] for key, sums in self._sums.items()]
        return {**dataclasses.asdict(self.evidence), "sums": sums}

    def run(self) -> None:
        """Carry out the plan from the cursor on.

        Raises Cancelled, Paused (the cursor says where to go on), Refused (a metric is not finite) or
        ClueError.
        """
        job, plan = self.job, self.bundle.plan
        n = len(job.images)
        total = plans.total(plan, n, job.scalars)
        while self.cursor < total:
            self._until_jump(plans.operations(plan, n, job.scalars, job.seed, self.cursor), total)

    def _until_jump(self, operations: Iterable[plans.Operation], total: int) -> None:
        """Carry out operations until one leads elsewhere than to the next."""
        job = self.job
        for operation in operations:
            job.check()
            self.cursor = self._carry_out(operation, total)
            leave_to = plans.epoch_end(self.bundle.plan, len(job.images), job.scalars, self.cursor)
            if leave_to is not None and job.enough is not None and job.enough():
                self.evidence.stopped_early = self.evidence.stopped_early or self.cursor < leave_to
                self.cursor = leave_to
            if job.save is not None and (leave_to is not None or self._saves_after(operation)):
                job.save()
            if self.cursor != operation.number + 1:
                return

    def _saves_after(self, operation: plans.Operation) -> bool:
        every = self.job.save_every
        return every > 0 and isinstance(operation, plans.Run) and self.meter.steps % every == 0

    def _carry_out(self, operation: plans.Operation, total: int) -> int:
        """Carry out one operation; returns the number of the next."""
        place, metrics = operation.place, {}
        self.evidence.epochs_run = max(self.evidence.epochs_run, place.epoch + 1)
        batch = None if place.positions is None else len(place.positions)
        with self.meter.measure(place.phase, batch, step=isinstance(operation, plans.Run)):
            match operation:
                case plans.Run():
                    metrics = self.run_once(operation)
                case plans.Reset():
                    for name in operation.node.values:
                        self.values.reset(name, place.epoch, place.repeat)
                case plans.Stop() if operation.due and self._low_enough(operation):
                    self.evidence.stopped_early = True
                    return operation.leave_to
        self._log(operation, metrics)
        if self.job.progress is not None:
            done = operation.number + 1
            self.job.progress(Progress(place.phase, place.epoch, done, total, metrics))
        return operation.number + 1

    def accuracy(self, program: str, most: int | None = None) -> float:
        """Percent of the request's samples that `program` gives their label, over at most `most` of them."""
        n = len(self.job.images)
        count = n if most is None else min(most, n)
        positions = np.arange(count) * n // count
        logits = self.logits(self.job.images, positions, program=program)
        correct = np.argmax(logits, axis=1) == self.job.labels[positions]
        return 100.0 * int(np.count_nonzero(correct)) / count

    def logits(
        self,
        images: NDArray[np.uint8],
        positions: NDArray[np.int64],
        state: Mapping[str, Array] | None = None,
        program: str = "predict",
    ) -> Array:
        """Logits [M, K] of images (uint8 [N, H, W, C]) at M positions, by the current weights or by a state.

        Raises Refused when they are not finite.
        """
        if program not in self._classifiers:
            classifier = Classifier(self.bundle.programs[program], self._sessions[program])
            self._classifiers[program] = classifier
        values = self.values.current if state is None else state.__getitem__
        logits = self._classifiers[program].logits(values, images, positions, self.job.check)
        ran = self.bundle.programs[program]
        self.meter.worked(ran, -(-len(positions) // ran.batch))
        if not np.isfinite(logits).all():
            raise Refused(f"the logits of {program} are not finite")
        return logits

    def _low_enough(self, stop: plans.Stop) -> bool:
        accuracy = self.accuracy(stop.node.program, stop.node.samples)
        self.evidence.stops.append(
            {"operation": stop.number, "epoch": stop.place.epoch, "accuracy": accuracy}
        )
        return accuracy <= plans.resolve(stop.node.accuracy_at_most, self.job.scalars)

    def run_once(self, operation: plans.Run) -> dict[str, float]:
        """Make the inputs of one run, run it, take over its outputs; returns the metrics."""
        node, place = operation.node, operation.place
        program = self.bundle.programs[self.chosen(node)]
        inputs = {port.name: self._input(port, node, place) for port in program.inputs}
        session = self._session(program.name)
        outputs = {port.name: self._output(port, node, inputs, session) for port in program.outputs}
        session.run(inputs, outputs)
        self.meter.worked(program)
        metrics = {}
        for port in program.outputs:
            name = node.bind.get(port.name, port.binds)
            match port.role:
                case "state" | "carry":
                    if outputs[port.name] is not self.values.current(name):
                        self.values.written(name)
                case "cache":
                    # A sample that stands twice in a filled batch has the same row twice.
                    self.values.current(name)[place.positions] = outputs[port.name]
                case "metric":
                    metrics[port.name] = float(outputs[port.name])
        return metrics

    def _buffer(self, port: Port, *key: str) -> Array:
        """One array for all ports of a kind: programs do not run at the same time."""
        full = (*key, str(port.shape))
        if full not in self._buffers:
            self._buffers[full] = np.zeros(port.shape, np.float32)
        return self._buffers[full]

    def _input(self, port: Port, node: plans.RunNode, place: plans.Place) -> Array:
        name = node.bind.get(port.name, port.binds)
        if port.role in ("state", "carry"):
            return self.values.current(name)
        array = self._buffer(port, "input", port.role, name)
        if port.role == "scalar":
            array[...] = self.job.scalars[name]
            return array
        assert place.positions is not None  # the bundle's checks: such a program stands in a batch
        match port.role:
            case "cache":
                array[...] = self.values.current(name)[place.positions]
            case "random":
                random = self.bundle.randoms[name]
                array[...] = draw.random(random, self.job.seed, place.epoch, place.positions, place.repeat)
            case _ if name == "onehot":
                array[...] = 0
                array[np.arange(len(array)), self.job.labels[place.positions]] = 1
            case _:
                images = self.job.images[place.positions]
                if place.augment:
                    moves = rng.augmentation(self.job.seed, place.epoch, place.positions)
                    images = augment.crop_flip(images, *moves)
                pixels(images, array)
        return array

    def _output(self, port: Port, node: plans.RunNode, inputs: Arrays, session: Session) -> Array:
        if port.role in ("state", "carry"):
            name = node.bind.get(port.name, port.binds)
            given = inputs.get(session.in_place.get(port.name, ""))
            return given if given is self.values.current(name) else self.values.target(name)
        return self._buffer(port, "output", port.name)

    def _log(self, operation: plans.Operation, metrics: Mapping[str, float]) -> None:
        place = operation.place
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Refused(f"{name} became {value} in epoch {place.epoch + 1}")
            means = self.evidence.metrics.setdefault(place.phase, {}).setdefault(name, [])
            epoch, total, count = self._sums.get((place.phase, name), (-1, 0.0, 0))
            if epoch != place.epoch:
                means.append(0.0)
                total, count = 0.0, 0
            total, count = total + value, count + 1
            self._sums[place.phase, name] = (place.epoch, total, count)
            means[-1] = total / count


def load(bundle: Bundle, engine: Engine, name: str) -> Session:
    """Load a program's file for an engine. Raises ClueError when the bundle has none for it."""
    program = bundle.programs[name]
    if engine.name not in program.files:
        made = ", ".join(sorted(program.files))
        raise ClueError(
            f"bundle {bundle.root} has no {engine.name} programs (it has {made}): export with --target pi5"
        )
    return engine.load(bundle.file(program.files[engine.name].file), program)


def programs(plan: plans.Plan) -> list[tuple[str, str]]:
    """(phase, program) for every run and stop in order, then predict, which verifies; no variants, which load
    when they are chosen and need no more than the program that they stand in for."""
    found = [
        (phase, node.program) for phase, node in plans.leaves(plan) if not isinstance(node, plans.ResetNode)
    ]
    return [*found, ("verify", "predict")]
