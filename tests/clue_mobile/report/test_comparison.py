"""Means, deviations and gaps of a comparison, worked out by hand, and its tables in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from clue_mobile.errors import ClueError
from clue_mobile.report import comparison_files, comparison_text
from clue_mobile.report.comparison import Stat, comparisons, newest
from clue_mobile.report.comparison_html import to_report
from clue_mobile.report.html import render

PER_CLASS = {"original": [90.0, 96.0], "retrain": [0.0, 96.0], "ga": [10.0, 90.0]}


def row(method: str, seed: int, ua: float, ra: float, ta: float, mia: float, **more: Any) -> dict[str, Any]:
    relearn = more.pop("relearn", 3)
    return {
        "method": method, "variant": "", "config": {"lr": 0.5}, "batch": 32, "code": "", "model": "m",
        "data": "d", "source_of_data": "digits", "forget_class": 0, "class_name": "a_0", "seed": seed,
        "title": method.title(), "retain": "", "on_device": False, "status": "done", "threads": 1,
        "density": None,
        "scores": {"ua": ua, "ra": ra, "ta": ta, "mia": mia, "forget_test": ua,
                   "per_class": PER_CLASS.get(method, [ua, ta])},
        "deep": {
            "probe": 50.0, "relearn_steps": relearn, "relearn_limit": 200, "relearn_retain": 91.0,
        },
        "train_accuracy": 99.0, "test_accuracy": 93.0, "wall_s": 1.0, "peak_mib": 100.0, **more,
    }  # fmt: skip


ROWS = [
    row("original", 0, 100, 100, 96, 0, wall_s=None, peak_mib=None),
    row("original", 1, 100, 100, 96, 0, wall_s=None, peak_mib=None),
    row("retrain", 0, 0, 98, 94, 100, retain="the rest"),
    row("retrain", 1, 0, 100, 96, 100, retain="the rest"),
    row("ga", 0, 10, 90, 85, 80, wall_s=2.0, density=0.2, relearn=None),
    row("ga", 1, 14, 94, 85, 90, wall_s=4.0, density=0.4),
    {**row("ga", 2, 0, 0, 0, 0), "status": "failed", "reason": "it ran past its time limit", "scores": None},
]


def line(rows: list[dict[str, Any]], method: str, table: int = 0) -> Any:
    (found,) = [each for each in comparisons(rows)[table].lines if each.method == method]
    return found


def test_means_deviations_and_gaps() -> None:
    found = line(ROWS, "ga")
    assert found.stats["ua"] == Stat(12.0, pytest.approx(8**0.5), 2)  # of 10 and 14
    assert found.stats["ra"] == Stat(92.0, pytest.approx(8**0.5), 2)
    # the reference is UA 0, RA 99, TA 95, MIA 100: (10 + 9 + 10 + 20) / 4 and (14 + 5 + 10 + 10) / 4
    assert found.stats["gap"] == Stat(11.0, pytest.approx(1.25 * 2**0.5), 2)
    assert found.stats["relearn_steps"] == Stat(101.5, pytest.approx(98.5 * 2**0.5), 2, at_least=True)
    assert found.density == Stat(pytest.approx(0.3), pytest.approx(0.02**0.5), 2)
    assert (found.runs, found.reasons) == (2, ("it ran past its time limit",))
    assert found.per_class == (10.0, 90.0)
    assert line(ROWS, "retrain").stats["gap"] is None
    assert line(ROWS, "original").stats["gap"].mean == pytest.approx((100 + 1 + 1 + 100) / 4)
    assert line(ROWS, "original").stats["wall_s"] is None


def test_one_run_has_no_deviation_and_no_reference_no_gap() -> None:
    assert line(ROWS[4:5], "ga").stats["ua"] == Stat(10.0, None, 1)
    assert line(ROWS[4:5], "ga").stats["gap"] is None
    with pytest.raises(ClueError, match="no results yet"):
        comparisons([])


def test_over_several_classes_the_deviation_is_that_of_the_seeds() -> None:
    other = {"forget_class": 1, "class_name": "b"}
    both = [*ROWS[2:6], *({**each, **other} for each in ROWS[2:4])]
    both += [row("ga", 0, 20, 90, 85, 80, **other), row("ga", 1, 40, 90, 85, 80, **other)]
    found = comparisons(both)
    assert [each.class_name for each in found] == ["a_0", "b", ""]
    # seed 0: (10 + 20) / 2 = 15; seed 1: (14 + 40) / 2 = 27
    assert line(both, "ga", 2).stats["ua"] == Stat(21.0, pytest.approx(72**0.5), 2)
    assert line(both, "ga", 2).runs == 4


def test_a_block_is_measured_against_its_own_reference() -> None:
    others = {
        "original": {**row("", 0, 90, 90, 90, 10)},
        "retrain": {**row("", 0, 0, 80, 80, 100)},
    }
    for part in others.values():
        for name in ("method", "title", "variant"):
            del part[name]
    rows = [*ROWS[:4], row("sisa", 0, 0, 84, 84, 100, block="SISA", others=others)]
    found = comparisons(rows)[0]
    assert [(each.block, each.method) for each in found.lines] == [
        ("", "original"), ("", "retrain"), ("SISA", "original"), ("SISA", "retrain"), ("SISA", "sisa"),
    ]  # fmt: skip
    assert found.lines[-1].stats["gap"].mean == 2.0
    assert found.test_accuracy == Stat(93.0, 0.0, 2)  # of the table's own original
    text = comparison_text.to_markdown([found])
    assert "| *SISA* | | |" in text
    assert text.index("*SISA*") < text.index("| Sisa |")


def test_the_newest_configuration_of_a_method_counts() -> None:
    old = {**ROWS[4], "config": {"lr": 9.0}}
    elsewhere = {**ROWS[4], "data": "other"}
    assert newest([old, elsewhere, *ROWS[2:6]]) == ROWS[2:6]
    again = {**ROWS[4], "wall_s": 7.0}
    assert newest([*ROWS[2:6], again]) == [ROWS[2], ROWS[3], again, ROWS[5]]
    assert newest([]) == []


def test_the_retrained_model_of_each_class_has_a_configuration_of_its_own() -> None:
    first = {**ROWS[2], "config": {"weights": "a"}}
    second = {**ROWS[2], "config": {"weights": "b"}, "forget_class": 1, "class_name": "b"}
    again = {**first, "config": {"weights": "c"}}
    assert newest([first, second]) == [first, second]
    assert newest([first, second, again]) == [second, again]


CUT = [ROWS[0], ROWS[2], *ROWS[4:]]  # one run of the references


def test_markdown() -> None:
    assert comparison_text.to_markdown(comparisons(CUT)) == (
        "## m, digits: forgetting 'a_0', 3 seeds\n\n"
        "| Method | Retain | UA | RA | TA | MIA | Avg. gap | Forget test | Probe | Relearn | "
        "Others then | Time (s) | Peak (MiB) |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        "| Original | - | 100.00 | 100.00 | 96.00 | 0.00 | 51.00 | 100.00 | 50.00 | 3.0 | 91.0 | - | - |\n"
        "| Retrain | yes | 0.00 | 98.00 | 94.00 | 100.00 | - | 0.00 | 50.00 | 3.0 | 91.0 | 1.00 | 100 |\n"
        "| Ga | no | 12.00 ± 2.83 | 92.00 ± 2.83 | 85.00 ± 0.00 | 85.00 ± 7.07 | 10.50 ± 1.77 | 12.00 ± 2.83 "
        "| 50.00 ± 0.00 | >101.5 ± 139.3 | 91.0 ± 0.0 | 3.00 ± 1.41 | 100 ± 0 |\n"
        "\n"
        "- Original over all classes: 99.00 % of the training, 93.00 % of the test images\n"
        "- Each run in a process of its own, threads: 1\n"
        "- Ga: the mask holds 30.00 % of the weights\n"
        "- Ga: 1 of 3 runs failed: it ran past its time limit\n"
        "\n"
        "## Hyperparameters\n\n"
        "- Retrain: batch 32, lr 0.5\n"
        "- Ga: batch 32, lr 0.5\n"
    )


def test_latex() -> None:
    awkward = {**ROWS[2], "title": "R&D_1 50%", "class_name": "a_0"}
    text = comparison_text.to_latex(comparisons([awkward, *ROWS[4:6]]))
    assert text == (
        "% m, digits: forgetting 'a_0', 2 seeds\n"
        "\\begin{tabular}{lrrrrrrrrrrrr}\n"
        "\\toprule\n"
        "Method & Retain & UA & RA & TA & MIA & Avg. gap & Forget test & Probe & Relearn & "
        "Others then & Time (s) & Peak (MiB) \\\\\n"
        "\\midrule\n"
        "\\textbf{R\\&D\\_1 50\\%} & \\textbf{yes} & \\textbf{0.00} & \\textbf{98.00} & \\textbf{94.00} & "
        "\\textbf{100.00} & \\textbf{-} & \\textbf{0.00} & \\textbf{50.00} & \\textbf{3.0} & "
        "\\textbf{91.0} & "
        "\\textbf{1.00} & \\textbf{100} \\\\\n"
        "Ga & no & 12.00 $\\pm$ 2.83 & 92.00 $\\pm$ 2.83 & 85.00 $\\pm$ 0.00 & 85.00 $\\pm$ 7.07 & "
        "10.50 $\\pm$ 1.77 & 12.00 $\\pm$ 2.83 & 50.00 $\\pm$ 0.00 & $>$101.5 $\\pm$ 139.3 & "
        "91.0 $\\pm$ 0.0 & 3.00 $\\pm$ 1.41 & 100 $\\pm$ 0 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_csv_is_not_rounded() -> None:
    first, *rest, last = csv.reader(io.StringIO(comparison_text.to_csv(comparisons(CUT))))
    found = dict(zip(first, last, strict=True))
    assert first[:8] == ["forgotten", "method", "variant", "name", "block", "retain", "runs", "failed"]
    assert last[:8] == ["a_0", "ga", "", "Ga", "", "", "2", "1"]
    assert float(found["ua_mean"]) == 12.0
    assert float(found["ua_std"]) == pytest.approx(8**0.5, rel=1e-15)
    retrain = dict(zip(first, rest[1], strict=True))
    assert (retrain["gap_mean"], retrain["ua_std"]) == ("", "")


@pytest.mark.parametrize("width", [80, 120, 160, 200])
def test_rich_cuts_no_number(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    for table in comparison_text.to_rich(comparisons(ROWS)[0], width):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for number in ("12.00", "± 2.83", "11.00", ">101.5", "± 139.3", "3.00"):
        assert number in text


def test_files(tmp_path: Path) -> None:
    written = comparison_files.write(tmp_path, comparisons(ROWS), ("a_0", "$b"))
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 8
    (table,) = json.loads((tmp_path / "table.json").read_text())
    assert table["lines"][2]["stats"]["ua"] == {"mean": 12.0, "std": 8**0.5, "runs": 2, "at_least": False}
    for name in ("gaps", "scatter", "classes"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert min(image.size) > 200
    (tmp_path / "gaps.png").unlink()
    without = comparison_files.write(tmp_path, comparisons(ROWS[4:]), ("a_0", "$b"))
    assert "gaps.png" not in [path.name for path in without]  # no reference, no gap
    nothing = comparison_files.write(tmp_path, comparisons(ROWS[6:]), ("a_0", "$b"))
    assert [path.suffix for path in nothing] == [".md", ".csv", ".tex", ".json", ".html"]


def test_the_report(tmp_path: Path) -> None:
    (tmp_path / "classes.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = comparisons([*ROWS, *({**each, "forget_class": 1, "class_name": "$b"} for each in ROWS[:6])])
    report = to_report(found, [tmp_path / "classes.png"])
    assert report.title == "Unlearning compared: m, digits: forgetting 2 classes, 3 seeds"
    assert [table.caption for table in report.tables] == [
        "m, digits: forgetting 2 classes, 3 seeds", *(comparison_text.title(each) for each in found[-2::-1]),
        "Hyperparameters",
    ]  # fmt: skip
    assert "Ga: 1 of 5 runs failed: it ran past its time limit." in report.tables[0].note
    assert list(report.tables[-1].rows)[-1] == ("Ga", "batch 32, lr 0.5")
    page = render(report)
    assert page.count("<table>") == 4
    assert page.count("<td>12.00 ± 2.83</td>") >= 2  # of 10 and 14
    assert '<td class="words">' not in page
    assert page.count('<tr class="stressed"><th scope="row">Retrain</th>') == 3
    assert 'alt="Accuracy on the test images of each class"' in page


def test_pictures_change_with_the_numbers(tmp_path: Path) -> None:
    comparison_files.write(tmp_path / ".", comparisons(ROWS), ("a_0", "b"))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    scores = {**ROWS[4]["scores"], "ua": 60.0, "per_class": [60.0, 10.0]}
    comparison_files.write(
        tmp_path, comparisons([*ROWS[:4], {**ROWS[4], "scores": scores}, ROWS[5]]), ("a_0", "b")
    )
    assert len(before) == 3
    assert all(path.read_bytes() != before[path.name] for path in tmp_path.glob("*.png"))
