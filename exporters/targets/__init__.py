"""Targets: one file each. A target says which runtimes it gets and what goes into the bundle's runtime/
folder."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from clue_mobile.errors import ClueError, unknown
from exporters import ADDITIONS

TARGETS = {
    "android": "exporters.targets.android",
    "ios": "exporters.targets.ios",
    "pi5": "exporters.targets.pi5",
    "host": "exporters.targets.host",
}


class Target(Protocol):
    """The interface of the modules in this folder."""

    RUNTIMES: tuple[str, ...]

    def payload(self) -> Iterable[tuple[str, bytes]]:
        """Files of runtime/, as (path inside runtime/, content)."""


def get(name: str) -> Target:
    """The target called `name`; raises ClueError listing the choices."""
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    return cast(Target, importlib.import_module(TARGETS[name]))


def runtimes(target: Target, chosen: Sequence[str]) -> tuple[str, ...]:
    """The runtimes to export for: `chosen`, or the target's where it names none.

    "+NAME" adds to the target's runtimes instead. Names of `exporters.ADDITIONS` come on top in any case:
    alone they would leave the plan without programs. Raises ClueError for a mixture of both forms.
    """
    additions = [name for name in chosen if name.removeprefix("+") in ADDITIONS]
    chosen = [name for name in chosen if name not in additions]
    added = [name for name in chosen if name.startswith("+")]
    if added and len(added) < len(chosen):
        raise ClueError(
            f"--runtime {' and '.join(chosen)}: names with + add to the target's runtimes "
            f"({', '.join(target.RUNTIMES)}), names without replace them; give one form"
        )
    names = (*target.RUNTIMES, *added) if added else chosen or target.RUNTIMES
    return tuple(dict.fromkeys(name.removeprefix("+") for name in (*names, *additions)))
