"""Parity: the exported programs against eager PyTorch, tensor by tensor.

`teacher_forced` gives one program the very values that an eager step began with and compares what comes out;
`phases` does so for the passes before an epoch's first step; `free_running` lets the runtime go its own way.
docs/parity.md says what is required and what was measured.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clue_mobile.bundle.reader import state_table
from clue_mobile.errors import ClueError
from pi_runtime import plan as plans
from pi_runtime.bundle import Bundle
from pi_runtime.cost import Meter
from pi_runtime.engine import Array, Engine
from pi_runtime.request import Cancelled, Job, Progress, Runner

if TYPE_CHECKING:
    from torch import nn

    from clue_mobile.spec import ModelSpec

Values = Mapping[str, Array]


@dataclass(frozen=True)
class TensorError:
    """max |got - want| / max |want| of one tensor, and that scale.

    The error is 0 where both are all zero, infinite where only `want` is or an element is not finite.
    """

    name: str
    error: float
    scale: float


def compare(got: Values, want: Values) -> list[TensorError]:
    """The error of each tensor of `want`, in its order. Raises ClueError where one is missing or has another
    shape."""
    errors = []
    for name, right in want.items():
        if name not in got or got[name].shape != right.shape:
            found = list(got[name].shape) if name in got else "missing"
            raise ClueError(f"cannot compare {name}: it is {found}, expected {list(right.shape)}")
        left = got[name].astype(np.float64)
        scale = float(np.abs(right).max(initial=0.0))
        error = float(np.abs(left - right).max(initial=0.0))
        if not math.isfinite(error):
            error = math.inf
        elif error:
            error = error / scale if scale else math.inf
        errors.append(TensorError(name, error, scale))
    return errors


def worst(errors: Iterable[TensorError]) -> TensorError:
    """The one with the largest error. Raises ClueError for none at all."""
    ranked = sorted(errors, key=lambda e: e.error)
    if not ranked:
        raise ClueError("there is no tensor to compare")
    return ranked[-1]


def named(table: Sequence[Mapping[str, Any]], values: Values) -> dict[str, Array]:
    """Flat vectors as views of named tensors, "VALUE:TENSOR".

    `table` is the manifest's `state`. Vectors with an element for each parameter (momentum, mask, grad_sum)
    are split as `params` is; anything else stays whole under its own name.
    """
    sizes: dict[str, int] = {}
    for row in table:
        sizes[row["value"]] = row["offset"] + math.prod(row["shape"])
    tensors: dict[str, Array] = {}
    for value, vector in values.items():
        source = value if value in sizes else "params"
        if vector.shape != (sizes[source],):
            tensors[value] = vector
            continue
        for row in table:
            if row["value"] == source:
                part = vector[row["offset"] : row["offset"] + math.prod(row["shape"])]
                tensors[f"{value}:{row['name']}"] = part.reshape(row["shape"])
    return tensors


# eager


@dataclass(frozen=True)
class Step:
    """One eager step: its number in the whole run, from 1, its epoch, from 0, and its number there, from 1.

    before and after: every value by its name in the plan, as the step before left it and as this one did (so
    `before` has the last epoch's mask and teacher at an epoch's first step, and only the model at step 1).
    """

    number: int
    epoch: int
    step: int
    metrics: Mapping[str, float]
    before: Values
    after: Values


def record(
    module: nn.Module,
    spec: ModelSpec,
    method: str,
    config: Any,
    images: np.ndarray[Any, np.dtype[np.uint8]],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    *,
    seed: int,
    batch: int,
    steps: Collection[int],
) -> list[Step]:
    """Run the method in eager PyTorch on a copy of `module` and keep these steps, counted from 1.

    images: uint8 [N, H, W, C], labels [N]. The run ends after the last of them. Raises ClueError where it
    has fewer steps.
    """
    from clue_mobile import methods
    from clue_mobile.flat import FlatModel

    module = copy.deepcopy(module)
    found: list[Step] = []
    counter = itertools.count(1)
    last: Mapping[str, Any] = FlatModel(module, spec).pack()

    def watch(model: FlatModel, values: Mapping[str, Any], row: dict[str, float]) -> bool:
        nonlocal last
        number = next(counter)
        if number in steps:
            metrics = {name: row[name] for name in row if name not in ("epoch", "step")}
            place = int(row["epoch"]), int(row["step"])
            found.append(Step(number, *place, metrics, _arrays(last), _arrays(values)))
        last = values  # each step makes new tensors: nothing of these is written again
        return number >= max(steps)

    unlearn = methods.get(method).unlearn
    unlearn(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    if len(found) < len(set(steps)):
        raise ClueError(f"the run had {next(counter) - 1} steps, fewer than {max(steps)}: give it more epochs")
    return found


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    return {name: tensor.numpy().copy() for name, tensor in values.items()}


# the runtime


class Forced(Runner):
    """The runtime's runner, with values set from outside and operations chosen from its plan."""

    def __init__(self, bundle: Bundle, engine: Engine, job: Job, served: Values) -> None:
        super().__init__(bundle, engine, served, job, Meter(engine, bundle.batch))

    def operations(self, program: str = "step") -> Iterator[tuple[list[plans.Operation], plans.Run]]:
        """Each run of `program` with the operations between it and the one before."""
        gathered: list[plans.Operation] = []
        job = self.job
        for operation in plans.operations(self.bundle.plan, len(job.images), job.scalars, job.seed):
            if isinstance(operation, plans.Run) and operation.node.program == program:
                yield gathered, operation
                gathered = []
            else:
                gathered.append(operation)

    def set(self, values: Values) -> None:
        """Replace the content of these values."""
        for name, array in values.items():
            self.values.current(name)[...] = array

    def get(self, names: Iterable[str]) -> dict[str, Array]:
        """Copies of the content of these values."""
        return {name: self.values.current(name).copy() for name in names}

    def carry_out(self, *operations: plans.Operation) -> None:
        """Carry these operations out, whatever comes before them in the plan."""
        self._until_stop(operations, len(operations))


def runner(
    bundle: Bundle,
    engine: Engine,
    images: np.ndarray[Any, np.dtype[np.uint8]],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    *,
    seed: int,
    served: Values,
    **callbacks: Any,
) -> Forced:
    """A runner on these samples with the bundle's own scalars; `served` are the weights by their keys."""
    return Forced(bundle, engine, Job(images, labels, seed, bundle.scalars, **callbacks), served)


def forced_values(bundle: Bundle, step: Step) -> dict[str, Array]:
    """The values with which eager began `step`: what a step writes as the one before left it, the rest (mask,
    teacher) as the step used it."""
    written = {port.binds for port in bundle.programs["step"].outputs}
    values = {}
    for name, array in step.after.items():
        values[name] = step.before.get(name, np.zeros_like(array)) if name in written else array
    return {name: values[name] for name in bundle.values if name in values}


def teacher_forced(runtime: Forced, step: Step) -> list[TensorError]:
    """From eager's values, one runtime step against the same eager step: every tensor that a step writes, and
    the metrics. The runtime takes its own batch of the plan."""
    metrics: dict[str, float] = {}
    _, operation = next(itertools.islice(runtime.operations(), step.number - 1, None))
    if operation.place.epoch != step.epoch:
        raise ClueError(f"step {step.number} is in epoch {operation.place.epoch} of the runtime, {step.epoch} of eager")
    runtime.set(forced_values(runtime.bundle, step))
    outputs = runtime.bundle.programs["step"].outputs
    runtime.carry_out(operation)
    written = [port.binds for port in outputs if port.role in ("state", "carry")]
    table = state_table(runtime.bundle)
    want = named(table, {name: step.after[name] for name in written})
    return compare(named(table, runtime.get(written)), want)
