"""How many forget images suffice, on rows made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from clue_mobile.report import amounts, comparison_text
from clue_mobile.report.comparison import Comparison, comparisons, newest


def row(method: str, ua: float, ta: float, images: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "method": method, "variant": "", "config": {}, "batch": 32, "code": "", "model": "m", "data": "d",
        "source_of_data": "digits", "forget_class": 0, "class_name": "a", "seed": 0, "title": method.upper(),
        "retain": "", "on_device": True, "status": "done", "threads": 1, "density": None, "deep": None,
        "scores": {"ua": ua, "ra": 100, "ta": ta, "mia": 0, "forget_test": ua, "per_class": [ua, ta]},
        "train_accuracy": 99.0, "test_accuracy": 93.0, "wall_s": 1.0, "peak_mib": 100.0,
        "forget_from": "train", "forget_images": images, **more,
    }  # fmt: skip


ROWS = [
    row("original", 100, 96),
    row("ga", 0, 95, None), row("ga", 10, 91, 50), row("ga", 10.5, 95, 10), row("ga", 0, 95, 5),
    row("rl", 0, 90.5, None), row("rl", 0, 95, 10),
    row("be", 0, 95, 10, forget_from="test"), row("be", 0, 95, None, forget_from="test"),
    row("be", 0, 95, None),
]  # fmt: skip


def found() -> Comparison:
    (comparison,) = comparisons(ROWS)
    return comparison


def test_the_smallest_number_from_which_on_all_suffice() -> None:
    comparison = found()
    first = {key: amounts.smallest(lines, comparison) for key, lines in amounts.series(comparison).items()}
    assert set(first) == {("GA", "train"), ("RL", "train"), ("BE", "train"), ("BE", "test")}
    assert first["GA", "train"].forget_images == 50  # 5 did by luck, as 10 did not
    assert first["RL", "train"] is None  # all do not: the others lose 5.5 points
    assert first["BE", "test"].forget_images == 10
    without = comparisons(ROWS[1:])[0]
    assert (
        amounts.smallest(amounts.series(without)["GA", "train"], without) is None
    )  # nothing to compare with


def test_lines_are_told_apart_by_their_forget_sets() -> None:
    assert newest(ROWS) == ROWS
    labels = [line.label for line in found().lines]
    assert labels[1:5] == ["GA", "GA, 50 train images", "GA, 10 train images", "GA, 5 train images"]
    assert labels[-3:] == ["BE, 10 test images", "BE, all test images", "BE"]
    said = comparison_text.beside(found())
    assert "GA, forgetting 5, 10, 50, all train images: 50 sufficed" in said
    assert "RL, forgetting 10, all train images: none sufficed" in said
    assert "BE, forgetting 10, all test images: 10 sufficed" in said
    assert not any("BE, forgetting all train" in line for line in said)
    assert amounts.SUFFICED in said
    assert len(comparison_text.hyperparameters([found()])) == 3
    sets = [line.split(",")[-2:] for line in comparison_text.to_csv([found()]).splitlines()]
    assert sets[0] == ["forget_from", "forget_images"]
    assert sets[-3:] == [["test", "10"], ["test", "all"], ["train", "all"]]
    assert amounts.SUFFICED not in comparison_text.beside(comparisons(ROWS[:2])[0])


def test_the_picture(tmp_path: Path) -> None:
    path = amounts.picture(tmp_path / "amounts.png", found(), "a title")
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colours  # a line for each of the three methods
