"""The rows of a comparison, one a run, as means and standard deviations over seeds.

The reference of a class is the mean of its retrained models' scores; a run's average gap is its distance from
that (`Scores.gap`). Over several classes, a seed's value is the mean over them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clue_mobile.errors import ClueError
from clue_mobile.evaluate import Scores

Row = Mapping[str, Any]
"""A line of results.jsonl, see docs/compare.md."""

References = Mapping[tuple[str, int], Scores]
"""The mean scores of the retrained models, by block and class."""

ORIGINAL, RETRAIN = "original", "retrain"
SHARED = ("model", "data", "retain_images")

METRICS = {
    "ua": ("UA", 2), "ra": ("RA", 2), "ta": ("TA", 2), "mia": ("MIA", 2), "gap": ("Avg. gap", 2),
    "forget_test": ("Forget test", 2), "probe": ("Probe", 2), "relearn_steps": ("Relearn", 1),
    "relearn_retain": ("Others then", 1),
    "wall_s": ("Time (s)", 2), "peak_mib": ("Peak (MiB)", 0),
}  # fmt: skip
"""Heading and digits of each column."""


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (None for a single run) over `runs` seeds; `at_least` where some run
    reached a limit, so that the true mean is larger."""

    mean: float
    std: float | None
    runs: int
    at_least: bool = False


@dataclass(frozen=True)
class Line:
    """A method's summary; stats by the names of METRICS, None where nothing was measured.

    forget_from, forget_images: what it was told to forget of the class: so many "train" or "test" images,
    None for all. on_device: whether it runs there, so that retain data, if it needs some, is shipped in the
    bundle. density: share of the weights that the method changed. per_class: accuracy on the test images of
    each class, in percent.
    """

    method: str
    variant: str
    name: str
    forget_from: str
    forget_images: int | None
    retain: str
    on_device: bool
    block: str
    config: Mapping[str, Any]
    batch: int
    runs: int
    reasons: tuple[str, ...]
    stats: Mapping[str, Stat | None]
    density: Stat | None
    per_class: tuple[float, ...]

    @property
    def label(self) -> str:
        """The name, with the forget set where it is not all training images of the class."""
        if self.forget_images is None:
            return self.name if self.forget_from == "train" else f"{self.name}, all {self.forget_from} images"
        return f"{self.name}, {self.forget_images} {self.forget_from} images"


@dataclass(frozen=True)
class Comparison:
    """One table: forgetting `class_name` ("" for all of `forgotten`). Accuracies of the original over all
    classes, in percent. retain_images: on how many training images of the other classes RA was measured, None
    for all."""

    model: str
    source: str
    class_name: str
    forgotten: tuple[str, ...]
    seeds: tuple[int, ...]
    threads: tuple[int, ...]
    train_accuracy: Stat | None
    test_accuracy: Stat | None
    lines: tuple[Line, ...]
    retain_images: int | None = None


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of everything in a file the rows that belong together: the newest of each method, variant, forget set,
    class and seed, on the newest row's model, data and retained images, in each method and variant with its
    newest configuration. The retrained models of different classes are weights of their own, so there it is
    the newest of the class."""
    every = list(rows)
    if not every:
        return []
    last = every[-1]
    every = [row for row in every if all(row.get(name) == last.get(name) for name in SHARED)]

    def configured(row: Row) -> tuple[Any, ...]:
        return row["method"], row["variant"], row["forget_class"] if row["method"] == RETRAIN else None

    shape = {configured(row): (row["config"], row["batch"], row["code"]) for row in every}
    kept = {}
    for row in every:
        if (row["config"], row["batch"], row["code"]) == shape[configured(row)]:
            kept[*_line_key(row), row["forget_class"], row["seed"]] = row
    return list(kept.values())


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """A table for each forgotten class and, for several, one over all of them, which comes last.

    Lines stand in the order in which methods first appear. Raises ClueError where there are no rows.
    """
    if not rows:
        raise ClueError("there are no results yet: run the comparison without --report-only first")
    rows = [part for row in rows for part in _parts(row)]
    labels = sorted({row["forget_class"] for row in rows})
    references = _references(rows)
    groups = [[label] for label in labels] + ([labels] if len(labels) > 1 else [])
    return [_comparison(rows, group, references) for group in groups]


def _parts(row: Row) -> list[Row]:
    """The row and, before it, those of an original and a reference that are its method's own."""
    others = [
        {**row, "title": name.title(), **part, "method": name} for name, part in row.get("others", {}).items()
    ]
    return [*others, row]


def _comparison(rows: Sequence[Row], labels: Sequence[int], references: References) -> Comparison:
    chosen = [row for row in rows if row["forget_class"] in labels]
    names = {row["forget_class"]: row["class_name"] for row in chosen}
    by_method: dict[tuple[Any, ...], list[Row]] = {}
    for row in chosen:
        by_method.setdefault((row.get("block", ""), *_line_key(row)), []).append(row)
    originals = [row for row in _done(chosen) if row["method"] == ORIGINAL and not row.get("block")]
    return Comparison(
        chosen[0]["model"],
        chosen[0]["source_of_data"],
        names[labels[0]] if len(labels) == 1 else "",
        tuple(names[label] for label in labels),
        tuple(sorted({row["seed"] for row in chosen})),
        tuple(sorted({row["threads"] for row in _done(chosen)})),
        _stat(originals, lambda row: row["train_accuracy"]),
        _stat(originals, lambda row: row["test_accuracy"]),
        tuple(_line(own, references) for own in by_method.values()),
        chosen[0].get("retain_images"),
    )


def _line_key(row: Row) -> tuple[Any, ...]:
    """What the runs of one line share."""
    return row["method"], row["variant"], *_forget_set(row)


def _forget_set(row: Row) -> tuple[str, int | None]:
    return row.get("forget_from", "train"), row.get("forget_images")


def _line(rows: Sequence[Row], references: References) -> Line:
    first, done = rows[0], _done(rows)
    stats = {name: _stat(done, _reader(name, references)) for name in METRICS}
    if stats["relearn_steps"] is not None:
        given_up = any(row["deep"]["relearn_steps"] is None for row in done if row.get("deep"))
        stats["relearn_steps"] = Stat(**{**vars(stats["relearn_steps"]), "at_least": given_up})
    per_class = [row["scores"]["per_class"] for row in done]
    reading = f" [{first['config']['reading']}]" if "reading" in first["config"] else ""
    return Line(
        first["method"],
        first["variant"],
        first["title"] + reading + (f" ({first['variant']})" if first["variant"] else ""),
        *_forget_set(first),
        first["retain"],
        first["on_device"],
        first.get("block", ""),
        first["config"],
        first["batch"],
        len(done),
        tuple(row["reason"] for row in rows if row["status"] == "failed"),
        stats,
        _stat(done, lambda row: row["density"]),
        tuple(statistics.fmean(values) for values in zip(*per_class, strict=True)),
    )


def _reader(name: str, references: References) -> Callable[[Row], float | None]:
    """How to read the metric `name` off a row; None where the row has none."""

    def read(row: Row) -> float | None:
        deep = row.get("deep") or {}
        if name == "gap":
            reference = references.get((row.get("block", ""), row["forget_class"]))
            return None if reference is None or row["method"] == RETRAIN else scores_of(row).gap(reference)
        if name == "relearn_steps" and deep:
            return float(deep["relearn_limit"] if deep[name] is None else deep[name])
        value = {**row, **row["scores"], **deep}.get(name)
        return None if value is None else float(value)

    return read


def _stat(rows: Iterable[Row], read: Callable[[Row], float | None]) -> Stat | None:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        value = read(row)
        if value is not None:
            by_seed.setdefault(row["seed"], []).append(value)
    values = [statistics.fmean(of_seed) for of_seed in by_seed.values()]
    if not values:
        return None
    return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def scores_of(row: Row) -> Scores:
    """The scores of a row that is done."""
    values = dict(row["scores"])
    return Scores(**{**values, "per_class": tuple(values["per_class"])})


def _references(rows: Iterable[Row]) -> References:
    found: dict[tuple[str, int], list[Scores]] = {}
    for row in _done(rows):
        if row["method"] == RETRAIN:
            found.setdefault((row.get("block", ""), row["forget_class"]), []).append(scores_of(row))

    def mean(of_class: Sequence[Scores], name: str) -> float:
        return statistics.fmean(getattr(scores, name) for scores in of_class)

    return {
        place: Scores(
            ua=mean(of_class, "ua"),
            ra=mean(of_class, "ra"),
            ta=mean(of_class, "ta"),
            mia=mean(of_class, "mia"),
            forget_test=math.nan,
            per_class=(),
        )
        for place, of_class in found.items()
    }


def _done(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "done"]
