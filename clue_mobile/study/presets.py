"""Presets: methods with hyperparameters that a measurement found better than the methods' own defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from clue_mobile.errors import ClueError, unknown


@dataclass(frozen=True)
class Preset:
    """model: what it was found on; on another it is a start and no more. batch: of the steps when it was
    found. evidence: what was measured, with the figures. command: what measured it."""

    name: str
    method: str
    model: str
    batch: int
    hyperparameters: Mapping[str, Any]
    evidence: str
    command: str


def load() -> dict[str, Preset]:
    """The package's presets (`presets.json`) by name."""
    found = json.loads((resources.files("clue_mobile.study") / "presets.json").read_bytes())
    return {name: Preset(name, **fields) for name, fields in found.items()}


def get(name: str) -> Preset:
    """The preset of that name. Raises ClueError listing the choices."""
    known = load()
    if name not in known:
        raise unknown("preset", name, known)
    return known[name]


def listed() -> str:
    """What `--help` says of them."""
    return "; ".join(f"{name}: {each.method}, found on {each.model}" for name, each in load().items())


def scalars_for(preset: Preset, bundle: Path) -> dict[str, float]:
    """The scalars by which a bundle's method becomes the preset.

    Raises ClueError where the bundle has another method, or hyperparameters that are part of its programs and
    plan and differ from the preset's.
    """
    from clue_mobile import methods

    exported = json.loads((bundle / "manifest.json").read_bytes())["method"]
    again = f"export it again with --preset {preset.name}"
    if exported["name"] != preset.method:
        raise ClueError(f"{bundle} forgets by {exported['name']}, the preset by {preset.method}: {again}")
    wanted = asdict(methods.configure(preset.method, preset.hyperparameters))
    defaults = asdict(methods.configure(preset.method, {}))
    for name, value in wanted.items():
        had = exported["hyperparameters"].get(name, defaults[name])  # older bundles lack newer ones
        if name not in exported["scalars"] and had != value:
            raise ClueError(f"{bundle} was exported with {name} {had}, the preset has {value}: {again}")
    return {name: float(wanted[name]) for name in exported["scalars"] if name in wanted}
