"""What `clue-mobile tune` searches, by method: which fields of its Config, and from where to where."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from clue_mobile import methods
from clue_mobile.errors import ClueError


class Log(NamedTuple):
    """A number between both ends, drawn evenly on a logarithmic scale."""

    low: float
    high: float


class Whole(NamedTuple):
    """A whole number between both ends."""

    low: int
    high: int


class Even(NamedTuple):
    """A number between both ends."""

    low: float
    high: float


class OneOf(NamedTuple):
    """One of some values."""

    choices: tuple[Any, ...]


Range = Log | Whole | Even | OneOf

COMMON: dict[str, Range] = {
    "lr": Log(1e-5, 1e-1),
    "tau": Log(1e-4, 1e-2),
    "epochs": Whole(1, 10),
    "batch_norm": OneOf(("batch", "frozen")),
    "stop_accuracy": Even(0.0, 30.0),
}
"""For each method whose Config has the field; the stop is then measured after each step."""

OWN: dict[str, dict[str, Range]] = {
    "iu": {"alpha": Log(1e-2, 10.0)},
    "lu": {"sigma": Log(0.03, 1.0)},
    "unsir": {"repair_lr": Log(1e-4, 1e-1)},
    "clue": {"lr": Log(1e-5, 1e-2), "kl_weight": Log(0.3, 10.0), "refresh": OneOf((0, 256))},
    "ssd": {"alpha": Log(1.0, 100.0), "dampening": Log(0.1, 10.0)},
    "fisher": {"alpha": Log(1e-9, 1e-5)},
    "salun": {"density": Even(0.1, 1.0)},
}
"""More fields, or other ends."""


def space(method: str) -> dict[str, Range]:
    """The fields to search. Raises ClueError for a method that has none, and for what is no unlearning."""
    if method in ("original", "retrain", *methods.BLOCKS):
        raise ClueError(f"{method} is a reference or exact: there is nothing to tune")
    fields = {field.name for field in dataclasses.fields(methods.get(method).Config)}
    found = {name: range_ for name, range_ in {**COMMON, **OWN.get(method, {})}.items() if name in fields}
    if not found:
        raise ClueError(f"the method {method} has nothing to tune: {', '.join(sorted(fields)) or 'no field'}")
    return found


def tunable(method: str) -> bool:
    """Whether the method has something to tune."""
    try:
        return bool(space(method))
    except ClueError:
        return False


def fixed(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not searched: those `given`, and a stop after every step where there is a stop."""
    searched = space(method)
    stop = {"stop_every": 1} if "stop_accuracy" in searched else {}
    return {**stop, **{name: value for name, value in given.items() if name not in searched}}


def inside(range_: Range, value: Any) -> bool:
    """Whether the search could come to the value."""
    if isinstance(range_, OneOf):
        return value in range_.choices
    return not isinstance(value, str) and range_.low <= value <= range_.high
