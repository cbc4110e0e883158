"""Hyperparameters by model and method: those embedded in the package, and a user's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from clue_mobile import models
from clue_mobile.errors import ClueError
from clue_mobile.models.card import read_json
from clue_mobile.spec import ModelSpec
from clue_mobile.study.demo import HYPERPARAMETERS, PRESET

Fields = dict[str, dict[str, Any]]
"""By method (or METHOD:VARIANT): the fields of its Config that differ from its own defaults, and `batch`."""


def embedded(spec: ModelSpec) -> Fields:
    """What the study found for a built-in model with its own classes (`hyperparameters.json`); {} for others.

    The digits have the demo's for CLUE, found at batch 32.
    """
    if spec.model not in models.BUILTIN or spec.classes != models.BUILTIN[spec.model].spec.classes:
        return {}
    found = json.loads((resources.files("clue_mobile.study") / "hyperparameters.json").read_bytes())
    first: Fields = {"clue": {**HYPERPARAMETERS, "batch": PRESET.batch}} if spec.model == "digits_cnn" else {}
    return {**first, **found.get(spec.model, {})}


def read(path: Path) -> Fields:
    """A user's file {method: {field: value}}. Raises ClueError where it is none."""
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(fields, dict) for fields in found.values()):
        raise ClueError(f'{path} must hold hyperparameters by method, such as {{"clue": {{"lr": 0.0003}}}}')
    return found


def fields_of(name: str, hyperparameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields for METHOD or METHOD:VARIANT; a variant takes the method's own and overrides them."""
    method, _, variant = name.partition(":")
    own = dict(hyperparameters.get(method, {}))
    return {**own, **hyperparameters[name]} if variant else own
