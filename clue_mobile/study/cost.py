"""What a request costs against retraining the same model on the same runtime (docs/cost.md).

Every time is one that was measured: of each program by `pi_runtime.bench`, of a whole request by its own
record. What is a product of such times and a number of runs is marked as extrapolated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_mobile.errors import ClueError
from pi_runtime.bench import Timing
from pi_runtime.bundle import Bundle
from pi_runtime.estimate import counts

MEASURED, EXTRAPOLATED = "measured", "extrapolated"
TRAIN = "train"


@dataclass(frozen=True)
class Amount:
    """Seconds or joules: `value` None where it is not known, `how` it came about, `note` what is behind."""

    value: float | None
    how: str = EXTRAPOLATED
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One method: its request's latency and energy; `times` in seconds and `runs` by program."""

    name: str
    latency: Amount
    energy: Amount
    times: Mapping[str, float]
    runs: Mapping[str, int]


@dataclass(frozen=True)
class Setting:
    """samples: of the request. train_images, train_epochs, train_batch: of retraining without the class."""

    samples: int
    train_images: int
    train_epochs: int
    train_batch: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ClueError(f"{name} must be at least 1, not {value}")

    @property
    def train_steps(self) -> int:
        """Steps of the whole training: every epoch drops its last incomplete batch, as `clue-mobile train`
        does."""
        return self.train_epochs * max(1, self.train_images // self.train_batch)


@dataclass(frozen=True)
class CostTable:
    """Retrain and the methods on one runtime; `energy_reason` says why no energy is known, if none is.

    busy: the largest share of the processors that other programs used while programs were timed.
    """

    setting: Setting
    runtime: Mapping[str, Any]
    retrain: Line
    methods: tuple[Line, ...]
    energy_reason: str
    busy: float

    def gain(self, line: Line, kind: str) -> float | None:
        """How many times less than Retrain; `kind` is latency or energy. None where one is not known."""
        ours, theirs = getattr(line, kind), getattr(self.retrain, kind)
        return theirs.value / ours.value if ours.value and theirs.value else None


def train_bundle(bundle: Bundle, out: Path, runtime: str, batch: int, tell: Callable[[str], None]) -> Bundle:
    """Export a step of training for the bundle's model and runtime as the bundle `out`.

    The step is traced from the model that the manifest names, with the bundle's own weights: a bundle that is
    shipped carries no program that no request runs. Raises ClueError where that model cannot be built here.
    """
    import torch

    from clue_mobile import models
    from clue_mobile.bundle import reader
    from clue_mobile.export import ExportRecipe, export
    from pi_runtime.weights import WeightsFile

    spec = reader.model_spec(bundle)
    module = models.load(spec, None)
    state = WeightsFile(bundle.file(bundle.weights.file))
    named = reader.unpack(bundle, {key: state[key] for key in state})
    module.load_state_dict(
        {key: torch.from_numpy(array.copy()) for key, array in named.items()}, strict=False
    )
    recipe = ExportRecipe("host", TRAIN, {}, batch, runtimes=(runtime,), name=f"{bundle.name}-train")
    export(module, spec, out, recipe, progress=lambda stage, done, total: tell(f"export {stage}"))
    return Bundle.open(out)


def read_times(path: Path, bundle: Bundle) -> tuple[list[Timing], dict[str, Any]]:
    """What `clue-pi bench --json` wrote: (times, {name, version, threads} of the runtime).

    Raises ClueError for another file, or one of another bundle.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        timings = [Timing(**row) for row in found["programs"]]
        runtime, manifest = dict(found["runtime"]), found["manifest_sha256"]
    except OSError as error:
        raise ClueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClueError(f"{path} is not what clue-pi bench --json writes ({error})") from error
    if manifest != bundle.sha256:
        raise ClueError(
            f"{path} has the times of another bundle than {bundle.root}: run clue-pi bench with it"
        )
    return timings, runtime


def method_line(
    bundle: Bundle,
    timings: Sequence[Timing],
    samples: int,
    whole: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Line:
    """A method's request: measured where the log's record of a whole request is given, else runs x times.

    The runs are those of the plan without an early stop, so the product is an upper limit.
    """
    runs = counts(bundle, samples, bundle.scalars).runs
    times = {timing.program: timing.p50_s for timing in timings}
    missing = sorted(runs.keys() - times.keys())
    if missing:
        raise ClueError(f"the times lack the programs {', '.join(missing)} of {bundle.root}")
    joules = {timing.program: timing.joules for timing in timings}
    latency = Amount(
        sum(n * times[program] for program, n in runs.items()), note="runs x times, no early stop"
    )
    parts = [joules[program] for program in runs]
    total = sum(n * (joules[program] or 0.0) for program, n in runs.items())
    energy = Amount(total if all(part is not None for part in parts) else None, note=_sources(timings))
    if whole is not None:
        latency = Amount(whole["wall_s"], MEASURED, f"request {whole['request_id']} of the log")
        measured = whole.get("energy_kind") == MEASURED
        energy = Amount(
            whole["energy_j"] if measured else None,
            MEASURED,
            str(whole.get("energy_source") or "not measured"),
        )
    return Line(name or bundle.method.upper(), latency, energy, times, runs)


def retrain_line(timings: Sequence[Timing], setting: Setting) -> Line:
    """Retraining from scratch: the measured step of training x its steps."""
    step = next((timing for timing in timings if timing.program == "step"), None)
    if step is None:
        raise ClueError("the times of the training bundle have no program step")
    steps = setting.train_steps
    latency = Amount(steps * step.p50_s, note="steps x measured step")
    known = step.joules is not None and step.energy_kind == MEASURED
    energy = Amount(
        steps * step.joules if known and step.joules is not None else None, note=_sources(timings)
    )
    return Line("Retrain", latency, energy, {TRAIN: step.p50_s}, {TRAIN: steps})


def _sources(timings: Sequence[Timing]) -> str:
    names = sorted({timing.energy_source for timing in timings if timing.energy_source})
    return f"runs x joules by {', '.join(names)}" if names else "not measured"
