"""Hyperparameters and their checks: a method's Config says its fields and their limits, and nothing more."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args, get_origin, get_type_hints

from clue_mobile.errors import ClueError
from clue_mobile.flat import BatchNorm

ANY = (-math.inf, math.inf)
POSITIVE = (0, math.inf)
COUNT = (1, math.inf)


@dataclass(frozen=True)
class Checked:
    """A dataclass of hyperparameters that are checked when it is made.

    A field whose type is Literal takes these choices, one of type bool a truth value; LIMITS gives the least
    and the largest value of each field that is a number, whole where its type is int. Raises ClueError.
    """

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise ClueError(f"{field.name} must be one of {', '.join(get_args(hint))}, not {value!r}")
            if hint is bool and not isinstance(value, bool):
                raise ClueError(f"{field.name} must be true or false, not {value!r}")
        for name, (low, high) in self.LIMITS.items():
            value = getattr(self, name)
            if not is_number(value):
                raise ClueError(f"{name} must be a finite number, not {value!r}")
            if hints[name] is int and not isinstance(value, int):
                raise ClueError(f"{name} must be a whole number, not {value}")
            if not low <= value <= high:
                limit = f"at least {low}" if value < low else f"at most {high}"
                raise ClueError(f"{name} must be {limit}, not {value}")


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class DescentConfig(Checked):
    """Hyperparameters of SGD on the forget set (methods/descent.py).

    epochs: at most this many passes. lr, momentum: SGD, constant lr, no weight decay. augment: "crop_flip" or
    "none". batch_norm: "batch" (batch statistics, running ones updated), "batch_keep_running" or "frozen".
    stop_accuracy, stop_every, stop_samples: leave once the forget accuracy, in percent, measured every so
    many steps on at most so many of the images, is at most this; stop_every 0 never stops early.
    verify_accuracy: a device's request whose forget accuracy stays above this fails.
    """

    epochs: int = 10
    lr: float = 1e-3
    momentum: float = 0.9
    augment: Literal["crop_flip", "none"] = "crop_flip"
    batch_norm: BatchNorm = "batch"
    stop_accuracy: float = 0.0
    stop_every: int = 0
    stop_samples: int = 256
    verify_accuracy: float = 50.0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "epochs": COUNT,
        "stop_every": POSITIVE,
        "stop_samples": COUNT,
        "lr": POSITIVE,
        "momentum": (0, 1),
        "stop_accuracy": ANY,
        "verify_accuracy": (0, 100),
    }
