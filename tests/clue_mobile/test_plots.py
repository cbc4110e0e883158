"""The picture of forgetting: that it is drawn, whole, and from the right numbers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clue_mobile.errors import ClueError
from clue_mobile.report import Snapshot, forgetting_picture, plots

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

RANDOM = np.random.default_rng(0)
CLASSES = ("airplane", "$bird", "cat")
BEFORE = Snapshot(RANDOM.normal(-12, 2, 500), RANDOM.normal(-11, 2, 500), (90.0, 80.0, 70.0))
AFTER = Snapshot(RANDOM.normal(-3, 1, 500), RANDOM.normal(-10, 2, 500), (2.0, 79.0, 70.0))


def colours(path: Path) -> set[str]:
    with Image.open(path) as image:
        return {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in image.convert("RGB").getcolors(2**24)}


def test_picture_is_a_png_with_both_sets(tmp_path: Path) -> None:
    target = tmp_path / "new" / "picture.png"
    assert forgetting_picture(target, BEFORE, AFTER, classes=CLASSES, forget_class=0) == target
    with Image.open(target) as image:
        assert image.format == "PNG"
        assert image.size == (1650, 960)
    assert {plots.FORGET, plots.RETAIN, plots.BEFORE, plots.HIGHLIGHT} <= colours(target)
    assert [path.name for path in target.parent.iterdir()] == ["picture.png"]


def test_retrained_model_adds_its_marks(tmp_path: Path) -> None:
    options = {"classes": CLASSES, "forget_class": 1, "title": "a_$title"}
    without = forgetting_picture(tmp_path / "without.png", BEFORE, AFTER, **options)
    with_marks = forgetting_picture(
        tmp_path / "with.png", BEFORE, AFTER, retrain_per_class=(90, 0, 71), **options
    )
    assert without.read_bytes() != with_marks.read_bytes()


def test_many_classes_are_cut_to_those_that_changed() -> None:
    accuracies = np.full(100, 80.0)
    changed = accuracies.copy()
    changed[40:60] -= np.arange(1, 21)
    before, after = replace(BEFORE, per_class=accuracies), replace(AFTER, per_class=changed)
    assert plots._shown(before, after, 7) == [7, *range(41, 60)]
    assert plots._shown(BEFORE, AFTER, 2) == [0, 1, 2]


def test_constant_energies_can_be_drawn(tmp_path: Path) -> None:
    flat = Snapshot(np.zeros(3), np.zeros(3), BEFORE.per_class)
    assert forgetting_picture(tmp_path / "x.png", flat, flat, classes=CLASSES, forget_class=0).exists()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"forget_energy": np.array([])}, {}, "forget set after are empty"),
        ({"retain_energy": np.array([np.inf])}, {}, "retain set after .* not all finite"),
        ({"per_class": (1.0, 2.0)}, {}, "after has 2 accuracies for 3 classes"),
        ({}, {"retrain_per_class": (1.0,)}, "retrain has 1 accuracies"),
        ({}, {"forget_class": 3}, "no class 3 among 3"),
    ],
)
def test_wrong_numbers_are_named(
    tmp_path: Path, changes: dict[str, object], options: dict[str, object], message: str
) -> None:
    arguments = {"classes": CLASSES, "forget_class": 0} | options
    with pytest.raises(ClueError, match=message):
        forgetting_picture(tmp_path / "x.png", BEFORE, replace(AFTER, **changes), **arguments)
    assert not list(tmp_path.iterdir())


def test_picture_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ClueError, match=r"clue-mobile\[export\]"):
        forgetting_picture(tmp_path / "x.png", BEFORE, AFTER, classes=CLASSES, forget_class=0)


def test_failed_drawing_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OSError, match=r"x\.png"):
        forgetting_picture(tmp_path / "x.png", BEFORE, AFTER, classes=CLASSES, forget_class=0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
