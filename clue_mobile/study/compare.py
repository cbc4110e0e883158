"""A comparison of methods: which cells it has, which are still to do, and doing them."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clue_mobile import methods
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError, unknown
from clue_mobile.spec import ModelSpec
from clue_mobile.study import executors
from clue_mobile.study.defaults import fields_of
from clue_mobile.study.demo import TRAINING
from clue_mobile.study.results import Results
from clue_mobile.study.tasks import ORIGINAL, RETRAIN, Cell, Setting, Task, data_identity
from clue_mobile.training import TrainConfig
from pi_runtime.files import sha256_file

Row = dict[str, Any]
Told = Callable[[int, int, str], None]
NO_WEIGHTS = "-"
"""Of a cell that starts from no weights."""

REFERENCES = (ORIGINAL, RETRAIN)
WHOLE_CLASS = ("train", None)
"""The forget set of all training images, the only one of SISA, which forgets what it was trained on."""


@dataclass(frozen=True)
class Study:
    """What to compare. `chosen`: methods, or METHOD:VARIANT of `hyperparameters`, as `choose` gives them.

    weights: the original's; None trains it by `training`, once, or for each seed where `per_seed` is set.
    retrained: by class, weights to take instead of training without it. batch: for methods whose
    hyperparameters name none. seconds: a cell's time limit. forget_from, forget_images: which of a class's
    images the methods are told to forget, see `Cell`; each pair is a run of its own. retain_images: on how
    many training images of the other classes RA is measured, see `Cell`.
    """

    setting: Setting
    folder: Path
    chosen: tuple[str, ...]
    classes: tuple[int, ...]
    seeds: tuple[int, ...]
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    batch: int = 256
    weights: Path | None = None
    retrained: Mapping[int, Path] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    per_seed: bool = False
    threads: int = 1
    seconds: float | None = None
    retry_failed: bool = False
    forget_from: tuple[str, ...] = ("train",)
    forget_images: tuple[int | None, ...] = (None,)
    retain_images: int | None = None

    @property
    def forget_sets(self) -> list[tuple[str, int | None]]:
        """(from, images) of each forget set."""
        return list(itertools.product(self.forget_from, self.forget_images))


def choose(text: str, hyperparameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods that `--methods` names, in the order of tables: "all" or names with commas.

    A method may be one's own file, and METHOD:VARIANT one of `hyperparameters`. Raises ClueError for others.
    """
    variants = [name for name in hyperparameters if ":" in name]
    known = [name for name in (*methods.METHODS, *methods.BLOCKS) if name not in REFERENCES]
    words = [*known, *variants] if text == "all" else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in (*known, *variants, *REFERENCES) and not word.endswith(".py"):
            raise unknown("method", word, [*REFERENCES, *known, *variants])
    for name in hyperparameters:
        if name.partition(":")[0] not in known and not name.partition(":")[0].endswith(".py"):
            raise unknown("method of the hyperparameters", name, known)
    order = {name: place for place, name in enumerate(known)}
    named = [word for word in dict.fromkeys(words) if word not in REFERENCES]
    return tuple(sorted(named, key=lambda word: order.get(word.partition(":")[0], len(order))))


def training_of(spec: ModelSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The TrainConfig, without seed and class, by which originals and references are trained: the demo's for
    digits_cnn, else the defaults of `clue-mobile train`, with `changes`. Raises ClueError for wrong ones."""
    base = dataclasses.asdict(TRAINING if spec.model == "digits_cnn" else TrainConfig())
    for name in ("seed", "exclude_class"):
        del base[name]
    for name in changes:
        if name not in base:
            raise unknown("setting of the training", name, base)
    try:
        found = dataclasses.asdict(TrainConfig(**{**base, **changes}))
    except TypeError as error:
        raise ClueError(f"the training's settings do not fit: {error}") from error
    return {name: found[name] for name in base}


@dataclass(frozen=True)
class Plan:
    """The cells in the order in which they run; `originals` are the weights by seed, some of which may be
    still to train (`training`: the TrainConfig of each such file)."""

    cells: tuple[Cell, ...]
    originals: Mapping[int, Path]
    training: Mapping[Path, Mapping[str, Any]]


def plan(study: Study, dataset: Dataset) -> Plan:
    """Work out the cells. Those whose original is still to train have weights "" and so no lasting key.

    Raises ClueError for hyperparameters, weights or images that do not fit.
    """
    for part in ("train", "test"):
        dataset.require(part)
    spec = study.setting.spec
    data = data_identity(dataset, spec)
    base = training_of(spec, study.training)
    originals, training = {}, {}
    for seed in study.seeds:
        if study.weights is not None:
            originals[seed] = study.weights
            continue
        config = {**base, "seed": seed if study.per_seed else 0, "exclude_class": None}
        originals[seed] = study.folder / "weights" / f"original-{_name(spec, data, config)}.safetensors"
        training[originals[seed]] = config
    made = [path for path in dict.fromkeys(originals.values()) if path not in training or path.exists()]
    hashes = {path: sha256_file(path) for path in made}
    given = {label: sha256_file(path) for label, path in study.retrained.items()}
    runs = [(name, *_configured(name, study)) for name in study.chosen]
    _check_numbers(study, dataset)
    first, second, then = list[Cell](), list[Cell](), list[Cell]()
    for seed in study.seeds:
        weights = hashes.get(originals[seed], "")
        for label in study.classes:
            reference = {"weights": given[label]} if label in given else base
            first.append(Cell(ORIGINAL, "", {}, spec.model, label, seed, 0, weights, data))
            second.append(Cell(RETRAIN, "", reference, spec.model, label, seed, 0, NO_WEIGHTS, data))
            for name, config, batch, code in runs:
                method, _, variant = name.partition(":")
                cell = Cell(method, variant, config, spec.model, label, seed, batch, weights, data, code)
                sets = [WHOLE_CLASS] if method in methods.BLOCKS else study.forget_sets
                then += [dataclasses.replace(cell, forget_from=f, forget_images=n) for f, n in sets]
    cells = (*first, *second, *then)
    cells = tuple(dataclasses.replace(cell, retain_images=study.retain_images) for cell in cells)
    return Plan(cells, originals, {p: c for p, c in training.items() if not p.exists()})


def run(
    study: Study, dataset: Dataset, on: str, jobs: int, tell: Told = lambda done, total, text: None
) -> list[Row]:
    """Do what is still to do and return the rows of all cells in the order of tables, failed ones among them.

    Each row is on the disk before the next is awaited, so whatever ends this, the next call goes on there.
    Raises ClueError where the original cannot be trained; an error in a cell is its row's.
    """
    results = Results(study.folder)
    with results.opened():
        todo = plan(study, dataset)
        if _pending(todo.cells, results, study) or todo.training:
            with executors.start(on, study.setting, dataset, jobs, study.threads) as executor:
                if todo.training:
                    tell(0, len(todo.cells), "training the original")
                    _train(todo, executor, study)
                    todo = plan(study, dataset)
                for first in (True, False):  # what relearning has to reach is known from the original alone
                    stage = [cell for cell in todo.cells if (cell.method == ORIGINAL) == first]
                    _stage(study, stage, todo, results, executor, tell)
        latest = results.latest()
    return ordered([latest[cell.key] for cell in todo.cells])


def ordered(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows in the order of tables: as METHODS has them, the references first; others at the end."""
    order = {name: place for place, name in enumerate((*REFERENCES, *methods.METHODS, *methods.BLOCKS))}
    last = len(order)

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Training images before test images, few before many."""
        number = row.get("forget_images")
        images = row.get("forget_from", "train") != "train", math.inf if number is None else number
        return (order.get(row["method"], last), row["method"], row["variant"], *images, row["seed"])

    return [dict(row) for row in sorted(rows, key=place)]


def estimate(study: Study, cells: Sequence[Cell], jobs: int) -> tuple[list[tuple[Cell, str]], float | None]:
    """Each cell with "done", "failed" or "to do", and the seconds that those to do will take, from the cells
    of the same method in the folder (for a method without any: from all); None where there are none."""
    results = Results(study.folder)
    rows, latest = results.rows(), results.latest()
    seconds: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "done":
            seconds.setdefault(row["method"], []).append(row["total_s"])
    every = [each for values in seconds.values() for each in values]
    open_keys = {cell.key for cell in _pending(cells, results, study)}
    states = [(c, "to do" if c.key in open_keys else latest[c.key]["status"]) for c in cells]
    if not every:
        return states, None if open_keys else 0.0
    means = [seconds.get(cell.method, every) for cell, state in states if state == "to do"]
    return states, sum(sum(values) / len(values) for values in means) / jobs


def _check_numbers(study: Study, dataset: Dataset) -> None:
    """Refuse, before anything runs, more images than there are."""
    for label in study.classes:
        held = int((dataset.train.labels != label).sum())
        if study.retain_images is not None and not 1 <= study.retain_images <= held:
            name = study.setting.spec.classes[label]
            raise ClueError(
                f"--retain-images {study.retain_images}: the classes other than {name} have {held} training "
                f"images; give a number from 1 to {held}, or all"
            )
    for source, number in study.forget_sets:
        labels = dataset.require(source).labels
        for label in study.classes:
            held = int((labels == label).sum())
            if number is not None and not 1 <= number <= held:
                name = study.setting.spec.classes[label]
                raise ClueError(
                    f"--forget-images {number}: class {name} has {held} {source} images; give a number from "
                    f"1 to {held}, or all"
                )


def _pending(cells: Sequence[Cell], results: Results, study: Study) -> list[Cell]:
    finished = {
        key for key, row in results.latest().items() if row["status"] == "done" or not study.retry_failed
    }
    return [cell for cell in cells if not cell.weights or cell.key not in finished]


def _train(todo: Plan, executor: executors.Executor, study: Study) -> None:
    tasks = [
        Task(
            "train", Cell(ORIGINAL, "", config, "", 0, 0, 0, "", ""), study.threads, save=str(path.resolve())
        )
        for path, config in todo.training.items()
    ]
    for _, outcome in executor.run(tasks):
        if "reason" in outcome:
            raise ClueError(f"the original could not be trained: {outcome['reason']}")


def _stage(
    study: Study,
    cells: Sequence[Cell],
    todo: Plan,
    results: Results,
    executor: executors.Executor,
    tell: Told,
) -> None:
    before = {
        (row["forget_class"], row["weights"]): row
        for row in results.latest().values()
        if row["method"] == ORIGINAL
    }
    tasks = {}
    for cell in _pending(cells, results, study):
        spec, save = study.setting.spec, ""
        if cell.method == RETRAIN and cell.forget_class not in study.retrained:
            name = _name(spec, cell.data, {**cell.config, "class": cell.forget_class, "seed": cell.seed})
            save = str((study.folder / "weights" / f"retrain-{name}.safetensors").resolve())
        retrained = study.retrained.get(cell.forget_class) if cell.method == RETRAIN else None
        tasks[cell.key] = Task(
            "compare",
            cell,
            study.threads,
            str(todo.originals[cell.seed].resolve()),
            str(retrained.resolve()) if retrained else "",
            save,
            _accuracy(before, cell, todo),
        )
    done = len(todo.cells) - len(_pending(todo.cells, results, study))
    for task, outcome in executor.run(tasks.values(), study.seconds):
        row = _row(task.cell, study, outcome)
        results.add(row)
        done += 1
        tell(done, len(todo.cells), _line(row))


def _accuracy(before: Mapping[tuple[int, str], Row], cell: Cell, todo: Plan) -> float | None:
    """The original's accuracy on the test images of the cell's class; None for the original itself."""
    if cell.method == ORIGINAL:
        return None
    weights = next(c.weights for c in todo.cells if c.method == ORIGINAL and c.seed == cell.seed)
    row = before[cell.forget_class, weights]
    if row["status"] == "failed":
        raise ClueError(f"the original cannot be measured, so nothing can be compared: {row['reason']}")
    return float(row["scores"]["forget_test"])


def _row(cell: Cell, study: Study, outcome: Mapping[str, Any]) -> Row:
    """The line of the file: what the cell is, what its method says of itself, and what came of it."""
    method = methods.get(cell.method)
    about: Row = {"title": method.TITLE, "source": method.SOURCE, "retain": method.RETAIN}
    about["on_device"] = hasattr(method, "build")
    return {
        "key": cell.key,
        **dataclasses.asdict(cell),
        **about,
        "model": study.setting.spec.model,
        "source_of_data": study.setting.source,
        "classes": list(study.setting.spec.classes),
        "class_name": study.setting.spec.classes[cell.forget_class],
        "status": "failed" if "reason" in outcome else "done",
        **{name: outcome[name] for name in ("reason", "traceback") if name in outcome},
        **outcome.get("row", {}),
        "machine": platform.machine(),
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _line(row: Mapping[str, Any]) -> str:
    name = row["method"] + (f":{row['variant']}" if row["variant"] else "")
    what = f"{name}, class {row['class_name']}{_forgetting(row)}, seed {row['seed']}"
    if row["status"] == "failed":
        return f"{what}: failed, {row['reason']}"
    scores = row["scores"]
    return (
        f"{what}: UA {scores['ua']:.1f}, RA {scores['ra']:.1f}, TA {scores['ta']:.1f}, {row['total_s']:.1f} s"
    )


def _forgetting(row: Mapping[str, Any]) -> str:
    if (row["forget_from"], row["forget_images"]) == WHOLE_CLASS:
        return ""
    return f" ({row['forget_images'] or 'all'} {row['forget_from']} images)"


def _configured(name: str, study: Study) -> tuple[dict[str, Any], int, str]:
    """(every hyperparameter, batch, sha256 of the method's own file)."""
    method = name.partition(":")[0]
    fields = fields_of(name, study.hyperparameters)
    config = methods.get(method).Config
    if method in methods.BLOCKS:  # what trains its own original trains it as the others are
        fields = {**training_of(study.setting.spec, study.training), **fields}
    takes_batch = any(each.name == "batch" for each in dataclasses.fields(config))
    batch = study.batch if takes_batch else fields.pop("batch", study.batch)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ClueError(f"the batch of {name} must be a whole number of at least 1, not {batch!r}")
    found = dataclasses.asdict(methods.configure(method, fields))
    code = sha256_file(Path(method)) if method.endswith(".py") else ""
    return json.loads(json.dumps(found)), batch, code


def _name(spec: ModelSpec, data: str, config: Mapping[str, Any]) -> str:
    text = json.dumps([spec.model, spec.to_metadata(), data, dict(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
