"""Targets: one file each. A target says which runtimes it gets and what goes into the bundle's runtime/
folder."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Protocol, cast

from clue_mobile.errors import unknown

TARGETS = {"pi5": "exporters.targets.pi5", "host": "exporters.targets.host"}


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
