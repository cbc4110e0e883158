"""The search for a method's hyperparameters on validation images; the test images are never touched.

A trial's value, which is minimised, is the mean of two distances in points, on validation images:

- |F - target|, F being the accuracy on those of the forgotten class; the target is 0 where nothing else is
  said, what a model has that never saw the class;
- max(0, R0 - R), R being the accuracy on those of the other classes, R0 the original's.

So no retrained model is needed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clue_mobile import methods
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.models.weights import write_atomic
from clue_mobile.study import executors, spaces
from clue_mobile.study.tasks import ORIGINAL, Cell, Setting, Task, data_identity, without_test
from pi_runtime.files import sha256_file

if TYPE_CHECKING:
    import optuna

Told = Callable[[int, int, str], None]
STORAGE = "tune.db"
STARTUP = 5
"""Trials drawn at random before the sampler learns from them."""


@dataclass(frozen=True)
class Search:
    """What to search. `given`: the fields to begin with; those in the method's space are the first trial.

    trials: how many shall have ended in the folder's study, those of earlier calls among them. seconds: a
    trial past it is pruned. target: the wanted accuracy on validation images of the class, in percent.
    """

    setting: Setting
    folder: Path
    method: str
    forget_class: int
    weights: Path
    given: Mapping[str, Any]
    trials: int = 12
    seconds: float | None = 90.0
    target: float = 0.0
    seed: int = 0
    batch: int = 256
    threads: int = 1


@dataclass(frozen=True)
class Found:
    """What a search came to: rows of all trials (number, state, value, forget, retain, seconds, fields), the
    best fields (None where no trial ended well), and the original's validation accuracies."""

    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    original: Mapping[str, float]


def objective(forget: float, retain: float, original_retain: float, target: float = 0.0) -> float:
    """A trial's value in points, all arguments in percent; see the head of this file."""
    return (abs(forget - target) + max(0.0, original_retain - retain)) / 2


def run(
    search: Search, dataset: Dataset, tell: Told = lambda done, total, text: None, on: str = "processes"
) -> Found:
    """Do the trials that are still missing; each is recorded when it ends, so an interrupted search goes on
    where it was, with the same draws as an undisturbed one.

    Raises ClueError where Optuna is missing, the method has nothing to search, there are no validation images
    or the original cannot be measured.
    """
    dataset = without_test(dataset)
    dataset.require("validation")
    methods.configure(search.method, search.given)  # a wrong field is told before anything is made
    setting = dataclasses.replace(search.setting, test=False)
    cell = Cell(
        ORIGINAL, "", {}, setting.spec.model, search.forget_class, search.seed, search.batch,
        sha256_file(search.weights), data_identity(dataset, setting.spec, ("train", "validation")),
    )  # fmt: skip
    study = _open(search, cell)
    with executors.start(on, setting, dataset, 1, search.threads) as executor:
        original = study.user_attrs.get("original")
        if original is None:
            original = _validation(executor, search, cell)
            if "reason" in original:
                raise ClueError(f"the original cannot be measured: {original['reason']}")
            study.set_user_attr("original", original)
        while (done := len(_ended(study))) < search.trials:
            text = _trial(study, search, cell, executor, original, done)
            tell(done + 1, search.trials, text)
    rows = [_row(trial) for trial in _ended(study)]
    finished = [row for row in rows if row["state"] == "complete"]
    best = min(finished, key=lambda row: row["value"])["fields"] if finished else None
    return Found(rows, best, original)


def write(folder: Path, method: str, batch: int, found: Found) -> list[Path]:
    """Write METHOD.trials.json and, where a trial ended well, METHOD.json (what `export --hyperparameters`
    reads), hyperparameters.json (what `compare --hyperparameters` reads, all methods tuned in this folder)
    and METHOD.png. Returns the paths."""
    from clue_mobile.report.plots_comparison import trials_picture

    name = Path(method).stem
    written = [folder / f"{name}.trials.json"]
    write_atomic(written[0], json.dumps(dataclasses.asdict(found), indent=1).encode() + b"\n")
    if found.best is None:
        return written
    every = folder / "hyperparameters.json"
    known = json.loads(every.read_bytes()) if every.exists() else {}
    for path, content in (
        (folder / f"{name}.json", found.best),
        (every, {**known, method: {**found.best, "batch": batch}}),
    ):
        write_atomic(path, json.dumps(content, indent=1).encode() + b"\n")
        written.append(path)
    shown = [row for row in found.trials if row["state"] == "complete"]
    return [*written, trials_picture(folder / f"{name}.png", shown, f"Trials of {method}")]


def _open(search: Search, cell: Cell) -> optuna.Study:
    """The study in the folder that this search belongs to. A trial that was running when its process died has
    no result, and is done anew."""
    try:
        import optuna
    except ImportError as error:
        raise ClueError("tuning needs Optuna: pip install 'clue-mobile[study]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = spaces.space(search.method)
    search.folder.mkdir(parents=True, exist_ok=True)
    about = dataclasses.asdict(cell) | {
        "method": search.method,
        "given": dict(search.given),
        "space": {name: [type(range_).__name__, *range_] for name, range_ in space.items()},
        "target": search.target,
        "seconds": search.seconds,
    }
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    study = optuna.create_study(
        study_name=f"{search.method} {identity}",
        storage=f"sqlite:///{(search.folder / STORAGE).resolve()}",
        direction="minimize",
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _trial(
    study: optuna.Study,
    search: Search,
    cell: Cell,
    executor: executors.Executor,
    original: Mapping[str, float],
    done: int,
) -> str:
    """One more trial; returns a line about it. Its draws depend on the seed and the trials before it."""
    import optuna

    ranges = spaces.space(search.method)
    study.sampler = optuna.samplers.TPESampler(seed=1000 * search.seed + done, n_startup_trials=STARTUP)
    if not done:
        first = dataclasses.asdict(methods.configure(search.method, search.given))
        start = {name: first[name] for name, range_ in ranges.items() if spaces.inside(range_, first[name])}
        study.enqueue_trial(start)
    trial = study.ask({name: _distribution(range_) for name, range_ in ranges.items()})
    fields = {**spaces.fixed(search.method, search.given), **trial.params}
    trial.set_user_attr("fields", fields)
    config = dataclasses.asdict(methods.configure(search.method, fields))
    outcome = _validation(executor, search, dataclasses.replace(cell, method=search.method, config=config))
    if "reason" in outcome:
        trial.set_user_attr("reason", outcome["reason"])
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return f"trial {trial.number}: pruned, {outcome['reason']}"
    value = objective(outcome["forget"], outcome["retain"], original["retain"], search.target)
    for name, each in outcome.items():
        trial.set_user_attr(name, each)
    study.tell(trial, value)
    return (
        f"trial {trial.number}: {value:.2f} (forget {outcome['forget']:.1f}, retain {outcome['retain']:.1f})"
    )


def _validation(executor: executors.Executor, search: Search, cell: Cell) -> dict[str, Any]:
    """{forget, retain, seconds} of a cell, or {reason}."""
    task = Task("tune", cell, search.threads, str(search.weights.resolve()))
    ((_, outcome),) = executor.run([task], search.seconds)
    if "reason" in outcome:
        return outcome
    return {**outcome["row"]["validation"], "seconds": outcome["row"]["wall_s"]}


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    import optuna

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=states)


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    known = {name: trial.user_attrs.get(name) for name in ("forget", "retain", "seconds", "reason", "fields")}
    return {"number": trial.number, "state": trial.state.name.lower(), "value": trial.value, **known}


def _distribution(range_: spaces.Range) -> optuna.distributions.BaseDistribution:
    import optuna

    if isinstance(range_, spaces.OneOf):
        return optuna.distributions.CategoricalDistribution(range_.choices)
    if isinstance(range_, spaces.Whole):
        return optuna.distributions.IntDistribution(range_.low, range_.high)
    log = isinstance(range_, spaces.Log)
    return optuna.distributions.FloatDistribution(range_.low, range_.high, log=log)
