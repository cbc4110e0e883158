"""Where power figures come from: one small protocol, and the sources that there are (docs/cost.md).

A source is a class with `name`, `scope`, `kind`, `hz`, `read` and `close`; another meter is one file and one
line in SOURCES.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pi_runtime.errors import ClueError, unknown


class PowerError(Exception):
    """A source cannot be read, now or at all; the message says why. Never ends a request."""


@dataclass(frozen=True)
class Reading:
    """One sample: `watts` at this moment, or `joules` since the source was opened (a counter).

    `rails`: (amperes, volts) by the name of the rail, where the source has them; they are kept as they came.
    """

    watts: float | None = None
    joules: float | None = None
    rails: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Source(Protocol):
    """`name`, `scope` and `kind` go on record as energy_source, energy_scope and energy_kind.

    `scope` says what the figure covers, `kind` is "measured" or "estimated", `hz` the rate that suits it.
    """

    name: str
    scope: str
    kind: str
    hz: float

    def read(self) -> Reading:
        """A new sample. Raises PowerError."""

    def close(self) -> None:
        """Let go of what it holds."""


# name: (module, function that opens it); `auto` tries those of AUTO in this order
SOURCES = {
    "pmic": ("pi_runtime.power.pmic", "open_rails"),
    "pmic-board": ("pi_runtime.power.pmic", "open_board"),
    "hwmon": ("pi_runtime.power.meter", "open_hwmon"),
    "rapl": ("pi_runtime.power.rapl", "open_rapl"),
}
AUTO = ("pmic", "hwmon", "rapl")
ESTIMATE = "estimate"
CHOICES = ("auto", *SOURCES, ESTIMATE, "off")
FASTEST_HZ = 100.0


@dataclass(frozen=True)
class Choice:
    """What was asked for: a name of CHOICES, or a command that prints watts; `hz` None for the source's own.

    Raises ClueError for another name, a rate out of range, or both a name and a command.
    """

    name: str = "auto"
    command: str | None = None
    hz: float | None = None

    def __post_init__(self) -> None:
        if self.name not in CHOICES:
            raise unknown("source of power figures (--power)", self.name, CHOICES)
        if self.command is not None and self.name != "auto":
            raise ClueError(f"--power {self.name} and --power-command exclude each other: give one of them")
        if self.hz is not None and not 0 < self.hz <= FASTEST_HZ:
            raise ClueError(f"--power-hz is {self.hz:g}: it must be above 0 and at most {FASTEST_HZ:g}")


AUTOMATIC = Choice()


@dataclass(frozen=True)
class Opened:
    """What a choice came to: its source, or the reason why there is none."""

    choice: Choice
    source: Source | None
    reason: str = ""

    def close(self) -> None:
        """Let go of the source. May be called again."""
        if self.source is not None:
            self.source.close()


def open_source(choice: Choice) -> Opened:
    """Find the source of a choice; it is read once before it is given out.

    Raises ClueError where a source was named and cannot be read; `auto` without one is no error.
    """
    if choice.command is not None:
        from pi_runtime.power.meter import CommandMeter

        try:
            return Opened(choice, _tried(CommandMeter(choice.command)))
        except PowerError as error:
            raise ClueError(f"--power-command: {error}") from None
    if choice.name in ("off", ESTIMATE):
        return Opened(choice, None, "power was not sampled")
    if choice.name != "auto":
        try:
            return Opened(choice, _open(choice.name))
        except PowerError as error:
            raise ClueError(f"--power {choice.name}: {error}") from None
    reasons = []
    for name in AUTO:
        try:
            return Opened(choice, _open(name))
        except PowerError as error:
            reasons.append(f"{name}: {error}")
    return Opened(choice, None, "; ".join(reasons))


def measures(choice: Choice) -> bool:
    """Whether there is a source, or an estimate was asked for. Raises ClueError as `open_source`."""
    opened = open_source(choice)
    opened.close()
    return opened.source is not None or choice.name == ESTIMATE


def _open(name: str) -> Source:
    module, function = SOURCES[name]
    source: Source = getattr(importlib.import_module(module), function)()
    return _tried(source)


def _tried(source: Source) -> Source:
    try:
        source.read()
    except BaseException:
        source.close()
        raise
    return source
