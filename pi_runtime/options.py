"""The options of a request: limits and choices that are frozen with it, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pi_runtime.errors import ClueError, unknown

# Raspberry Pi firmware begins to hold the clock down at 80 degrees and does so firmly at 85.
MAX_CELSIUS = 80.0
_MOST_STEPS = 1 << 53


@dataclass(frozen=True)
class Options:
    """None: not given.

    `accuracy_at_most`: percent that the forget accuracy must come down to, in place of the bundle's.
    `max_seconds`, `max_joules`: what one run of the request may take, from its start or resumption on; then
    it pauses. `max_celsius`: above it the request pauses. `checkpoint_steps`: a checkpoint each so many runs
    of programs, besides those after each epoch. `stop_accuracy`, `stop_joules`: at the end of an epoch the
    plan's epochs are over when the forget accuracy is at most the one or the energy so far at least the
    other. `holdout`: the share of a class's samples that the plan does not get, only the checks.
    `brought_back` marks a request that the store made because a new bundle has the class again.
    """

    accuracy_at_most: float | None = None
    max_seconds: float | None = None
    max_joules: float | None = None
    max_celsius: float | None = None
    checkpoint_steps: int | None = None
    stop_accuracy: float | None = None
    stop_joules: float | None = None
    brought_back: bool | None = None
    holdout: float | None = None

    def __post_init__(self) -> None:
        for name in ("accuracy_at_most", "stop_accuracy"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ClueError(f"{name} is {value}: it must be from 0 to 100 percent")
        for name in ("max_seconds", "max_joules", "stop_joules"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ClueError(f"{name} is {value}: it must be more than 0")
        if self.max_celsius is not None and not 0 < self.max_celsius <= 120:
            raise ClueError(f"max_celsius is {self.max_celsius}: it must be from 0 to 120 degrees")
        steps = self.checkpoint_steps
        if steps is not None and not (steps == int(steps) and 0 < steps < _MOST_STEPS):
            raise ClueError(f"checkpoint_steps is {steps}: it must be a whole number from 1 on")

    @staticmethod
    def of(given: Mapping[str, Any]) -> Options:
        """The options of a request's row. Raises ClueError for an unknown name or a value out of range."""
        known = {field.name for field in dataclasses.fields(Options)}
        for name, value in given.items():
            if name not in known:
                raise unknown("option", name, known)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number or name == "brought_back"):
                raise ClueError(f"{name} is {value!r}: it must be a number")
        return Options(**given)

    def as_dict(self) -> dict[str, float]:
        """Those that are given, as they stand in the request's row."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def celsius_at_most(self) -> float:
        """Above this temperature the request pauses."""
        return MAX_CELSIUS if self.max_celsius is None else self.max_celsius

    @property
    def needs_energy(self) -> list[str]:
        """The names of the given options that only a device which measures energy can keep."""
        return [name for name in ("max_joules", "stop_joules") if getattr(self, name) is not None]
