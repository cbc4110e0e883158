"""Hyperparameters of the package: for whom they are, and that the methods take them."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path

import pytest

from clue_mobile import methods, models
from clue_mobile.errors import ClueError
from clue_mobile.study import defaults
from clue_mobile.study.demo import HYPERPARAMETERS


def test_the_embedded_ones_fit_their_methods() -> None:
    found = json.loads((resources.files("clue_mobile.study") / "hyperparameters.json").read_bytes())
    assert set(found) <= set(models.BUILTIN)
    for fields in found.values():
        for name, values in fields.items():
            own = {key: value for key, value in values.items() if key != "batch"}
            config = methods.configure(name.partition(":")[0], own)
            assert {key: getattr(config, key) for key in own} == own
            assert values.get("batch", 1) >= 1


def test_they_are_for_a_model_with_its_own_classes() -> None:
    digits = models.resolve_spec("digits_cnn")
    assert defaults.embedded(digits)["clue"] == {**HYPERPARAMETERS, "batch": 32}
    assert defaults.embedded(dataclasses.replace(digits, classes=tuple("abcdefghij"))) == {}
    assert defaults.embedded(dataclasses.replace(digits, model="timm:x")) == {}


def test_a_variant_overrides_its_method() -> None:
    given = {"ga": {"lr": 1.0, "batch": 8}, "ga:slow": {"lr": 0.1}, "rl:x": {"lr": 2.0}}
    assert defaults.fields_of("ga", given) == {"lr": 1.0, "batch": 8}
    assert defaults.fields_of("ga:slow", given) == {"lr": 0.1, "batch": 8}
    assert defaults.fields_of("rl:x", given) == {"lr": 2.0}
    assert defaults.fields_of("bs", given) == {}


def test_a_file_of_fields_without_methods_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text('{"lr": 0.1}')
    with pytest.raises(ClueError, match="must hold hyperparameters by method"):
        defaults.read(tmp_path / "h.json")
