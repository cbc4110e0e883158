"""Parity: the exported programs against eager PyTorch, tensor by tensor.

`teacher_forced` gives the runtime the very values that an eager step began with and compares what comes out,
`epoch_start` does so for the passes before an epoch's first step, and `free_running` lets the runtime go its
own way. docs/parity.md says what is required and what was measured.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clue_mobile.bundle.reader import state_table
from clue_mobile.errors import ClueError
from pi_runtime import plan as plans
from pi_runtime import weights
from pi_runtime.bundle import Bundle
from pi_runtime.cost import Meter
from pi_runtime.engine import Engine
from pi_runtime.request import Job, Progress, Runner

if TYPE_CHECKING:
    from torch import nn

    from clue_mobile.spec import ModelSpec

Values = Mapping[str, NDArray[Any]]
Images = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


# one helper for every comparison


@dataclass(frozen=True)
class TensorError:
    """error: max |got - want| / max |want| of one tensor; scale: max |want|.

    The error is 0 where the two are equal, infinite where only `want` is all zero or an element is not
    finite.
    """

    name: str
    error: float
    scale: float


def compare(got: Values, want: Values) -> list[TensorError]:
    """The error of each tensor of `want`, in its order, computed in float64.

    Raises ClueError where `got` lacks one or has it in another shape.
    """
    errors = []
    for name, right in want.items():
        if name not in got or got[name].shape != right.shape:
            found = list(got[name].shape) if name in got else "missing"
            raise ClueError(f"cannot compare {name}: it is {found}, expected {list(right.shape)}")
        scale = float(np.abs(right).max(initial=0.0))
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            error = float(np.abs(got[name].astype(np.float64) - right).max(initial=0.0))
        if not math.isfinite(error):
            error = math.inf
        elif error:
            error = error / scale if scale else math.inf
        errors.append(TensorError(name, error, scale))
    return errors


def worst(errors: Iterable[TensorError]) -> TensorError:
    """The one with the largest error. Raises ClueError for none at all."""
    found = max(errors, key=lambda each: each.error, default=None)
    if found is None:
        raise ClueError("there is no tensor to compare")
    return found


def named(table: Sequence[Mapping[str, Any]], values: Values) -> dict[str, NDArray[Any]]:
    """Flat vectors as views of their tensors, called "VALUE:TENSOR".

    `table` is the manifest's `state`. A vector with one element for each parameter (momentum, mask, grad_sum)
    is split as `params` is; any other array stays whole under its own name.
    """
    sizes: dict[str, int] = {}
    for row in table:
        sizes[row["value"]] = row["offset"] + math.prod(row["shape"])
    tensors: dict[str, NDArray[Any]] = {}
    for value, vector in values.items():
        source = value if value in sizes else "params"
        if vector.shape != (sizes[source],):
            tensors[value] = vector
            continue
        for row in (row for row in table if row["value"] == source):
            part = vector[row["offset"] : row["offset"] + math.prod(row["shape"])]
            tensors[f"{value}:{row['name']}"] = part.reshape(row["shape"])
    return tensors


# eager PyTorch


@dataclass(frozen=True)
class Step:
    """One eager step: its number in the whole run from 1, its epoch from 0, its number in there from 1.

    before, after: every value by its name in the plan as the previous step and as this one left it. Before
    step 1 there is only the model; before an epoch's first step, mask and teacher are the last epoch's.
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
    images: Images,
    labels: Labels,
    *,
    seed: int,
    batch: int,
    steps: Collection[int],
) -> list[Step]:
    """Run a method in eager PyTorch on a copy of `module` and keep these of its steps, counted from 1.

    images: uint8 [N, H, W, C], labels: [N]. The run ends after the last of them. Raises ClueError where it
    does not come so far.
    """
    from clue_mobile import methods
    from clue_mobile.flat import FlatModel

    module = copy.deepcopy(module)
    found: list[Step] = []
    number = 0
    last: Mapping[str, Any] = FlatModel(module, spec).pack()

    def watch(model: FlatModel, values: Mapping[str, Any], row: dict[str, float]) -> bool:
        nonlocal last, number
        number += 1
        if number in steps:
            place = int(row["epoch"]), int(row["step"])
            found.append(Step(number, *place, dict(row), _arrays(last), _arrays(values)))
        last = values  # every step makes new tensors: these are not written again
        return number == max(steps)

    unlearn = methods.get(method).unlearn
    unlearn(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    if number < max(steps):
        raise ClueError(f"the run ended after {number} steps, before step {max(steps)}: give it more epochs")
    return found


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with each parameter moved to the next float32 above or below: what rounding alone may do."""
    import torch

    module = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            up = torch.rand(parameter.shape, generator=generator) < 0.5
            parameter.copy_(torch.nextafter(parameter, torch.where(up, torch.inf, -torch.inf)))
    return module


def _arrays(values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy().copy() for name, tensor in values.items()}


# the runtime


class Replay(Runner):
    """The runtime's own runner, on values set from outside and on operations chosen from its plan.

    It begins with the bundle's weights and uses the bundle's scalars; `metrics` are those of the latest
    program. images: uint8 [N, H, W, C], labels: [N].
    """

    def __init__(self, bundle: Bundle, engine: Engine, images: Images, labels: Labels, seed: int) -> None:
        entry = bundle.weights
        served = weights.read(bundle.file(entry.file), entry.sha256, bundle)
        job = Job(images, labels, seed, bundle.scalars, progress=self._told)
        super().__init__(bundle, engine, served, job, Meter(engine, bundle.batch))
        self.metrics: Mapping[str, float] = {}
        self.table = state_table(bundle)

    def _told(self, progress: Progress) -> None:
        self.metrics = progress.metrics

    def steps(self) -> Iterator[tuple[list[plans.Operation], plans.Run]]:
        """Each run of the program `step`, after the other operations since the one before."""
        others: list[plans.Operation] = []
        for each in plans.operations(self.bundle.plan, len(self.job.images), self.job.scalars, self.job.seed):
            if isinstance(each, plans.Run) and each.node.program == "step":
                yield others, each
                others = []
            else:
                others.append(each)

    def step(self, number: int) -> tuple[list[plans.Operation], plans.Run]:
        """The step of this number, from 1, as `steps` gives it. Raises ClueError where the plan has fewer."""
        found = next(itertools.islice(self.steps(), number - 1, None), None)
        if found is None:
            raise ClueError(f"the plan has fewer than {number} steps")
        return found

    def set(self, values: Values) -> None:
        """Replace the content of these values."""
        for name, array in values.items():
            self.values.current(name)[...] = array

    def tensors(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Copies of these values, by tensor as `named` calls them."""
        return named(self.table, {name: self.values.current(name).copy() for name in names})

    def carry_out(self, *operations: plans.Operation) -> bool:
        """Carry out these operations alone; returns True where one is a stop that was taken."""
        self.evidence.stopped_early = False
        for each in operations:
            self._carry_out(each, len(operations))
            if self.evidence.stopped_early:
                return True
        return False

    def inputs(self, operation: plans.Run) -> dict[str, NDArray[Any]]:
        """Copies of what the program would be given, by port."""
        node, ports = operation.node, self.bundle.programs[operation.node.program].inputs
        return {port.name: self._input(port, node, operation.place).copy() for port in ports}

    def written(self) -> list[str]:
        """The values that a step writes."""
        return [p.binds for p in self.bundle.programs["step"].outputs if p.role in ("state", "carry")]


def forced_values(replay: Replay, step: Step) -> dict[str, NDArray[Any]]:
    """The values that eager's step began with.

    What a step writes is taken from before it, zero where nothing was there yet (momentum at step 1); the
    rest (mask, teacher) is as the step used it.
    """
    changed = {name: step.before.get(name, np.zeros_like(step.after[name])) for name in replay.written()}
    return {name: {**step.after, **changed}[name] for name in replay.bundle.values if name in step.after}


def after(replay: Replay, step: Step) -> dict[str, NDArray[Any]]:
    """What eager's step wrote, by tensor."""
    return named(replay.table, {name: step.after[name] for name in replay.written()})


def teacher_forced(replay: Replay, step: Step) -> list[TensorError]:
    """One runtime step against the same eager step, from eager's values: every tensor that a step writes, and
    the metrics as "metric:NAME".

    Which samples are in the batch the runtime takes from its own plan.
    """
    _, operation = replay.step(step.number)
    if operation.place.epoch != step.epoch:
        raise ClueError(
            f"step {step.number} is in epoch {operation.place.epoch} of the runtime, {step.epoch} of eager"
        )
    replay.set(forced_values(replay, step))
    replay.carry_out(operation)
    got, want = replay.tensors(replay.written()), after(replay, step)
    for name, value in replay.metrics.items():
        got[f"metric:{name}"], want[f"metric:{name}"] = np.array([value]), np.array([step.metrics[name]])
    return compare(got, want)


@dataclass(frozen=True)
class EpochStart:
    """CLUE's passes before an epoch's first step, runtime against eager from the same weights.

    sums: the gradient sum of the last saliency batch, by tensor. teacher: the logits [N, K]. density: the
    share of weights in eager's mask. differing: how many of its elements the runtime has otherwise.
    distance: the largest |R / tau - 1| among them, 0 for none; R is the runtime's, of the saliency batch in
    which it comes nearest to tau.
    """

    sums: list[TensorError]
    teacher: TensorError
    density: float
    differing: int
    distance: float


def epoch_start(replay: Replay, step: Step, saliency_batch: int) -> EpochStart:
    """Compare the passes before `step`, an epoch's first, of CLUE with its teacher."""
    operations, _ = replay.step(step.number)
    replay.set({name: array for name, array in forced_values(replay, step).items() if name in step.before})
    replay.set({name: step.before[name] for name in replay.written() if name in step.before})
    tau = replay.job.scalars["tau"]
    nearest = np.full_like(step.after["mask"], np.inf)
    for operation in operations:
        if isinstance(operation, plans.Run) and operation.node.program == "mask":
            weights_now, total = replay.values.current("params"), replay.values.current("grad_sum")
            ratio = np.abs(weights_now * total / saliency_batch) / tau
            nearest = np.minimum(nearest, np.abs(ratio - 1))
        replay.carry_out(operation)
    differ = replay.values.current("mask") != step.after["mask"]
    want = {name: step.after[name] for name in ("grad_sum", "teacher")}
    *sums, teacher = compare(replay.tensors(want), named(replay.table, want))
    distance = float(nearest[differ].max(initial=0.0))
    return EpochStart(sums, teacher, float(step.after["mask"].mean()), int(differ.sum()), distance)


def free_running(replay: Replay, steps: Collection[int]) -> dict[int, dict[str, NDArray[Any]]]:
    """The plan from its beginning: what a step writes, by tensor, after each of these steps (from 1).

    A stop that is taken ends it; steps after it are missing.
    """
    found = {}
    for number, (others, operation) in enumerate(replay.steps(), 1):
        if replay.carry_out(*others):
            break
        replay.carry_out(operation)
        if number in steps:
            found[number] = replay.tensors(replay.written())
        if number == max(steps):
            break
    return found
