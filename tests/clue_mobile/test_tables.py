"""The table of results in its three forms."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from clue_mobile.errors import ClueError
from clue_mobile.evaluate import Scores
from clue_mobile.report import Row, to_json, to_markdown, to_rich

ROWS = [
    Row("Retrain", Scores(0, 99.5, 92, 100, 0, (0, 92)), wall_s=1234.5, peak_mib=None),
    Row("CLUE [B=32]", Scores(2, 98.5, 90.25, 96, 1.5, (1.5, 90.25)), wall_s=61.26, peak_mib=512.4),
    Row("a|b", Scores(100, 99.5, 92, 0, 90, (90, 92))),
]


def test_markdown() -> None:
    assert to_markdown(ROWS) == (
        "| Method | UA | RA | TA | MIA | Avg. gap | Forget test | Time (s) | Peak (MiB) |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        "| Retrain | 0.00 | 99.50 | 92.00 | 100.00 | - | 0.00 | 1,234.5 | - |\n"
        "| CLUE [B=32] | 2.00 | 98.50 | 90.25 | 96.00 | 2.19 | 1.50 | 61.3 | 512 |\n"
        "| a\\|b | 100.00 | 99.50 | 92.00 | 0.00 | 50.00 | 90.00 | - | - |\n"
    )


def test_json_is_not_rounded() -> None:
    table = json.loads(json.dumps(to_json(ROWS)))
    assert table["reference"] == "Retrain"
    assert [row["gap"] for row in table["rows"]] == [None, 2.1875, 50.0]
    assert table["rows"][1]["scores"]["ra"] == 98.5
    assert table["rows"][1]["wall_s"] == 61.26
    assert table["rows"][2]["peak_mib"] is None


def test_rich_shows_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(to_rich(ROWS, title="Results"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("Results", "CLUE [B=32]", "a|b", "2.19", "1,234.5", "Peak (MiB)"):
        assert expected in text


def test_without_a_reference_there_are_no_gaps() -> None:
    assert [row["gap"] for row in to_json(ROWS[1:])["rows"]] == [None, None]
    assert [row["gap"] for row in to_json(ROWS, reference="a|b")["rows"]] == [50.0, 49.1875, None]
    with pytest.raises(ClueError, match="2 rows are called Retrain"):
        to_markdown([ROWS[0], ROWS[0]])
