from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from clue_mobile.report.cost_table import CostRow, gains_picture, to_json, to_table

RETRAIN = CostRow(
    "Retrain", 100.0, "extrapolated", 200.0, "extrapolated", 1.0, 1.0, {"train": 0.1}, {"train": 1000}
)
CLUE = CostRow("CLUE", 2.0, "measured", None, "measured", 50.0, None, {"step": 0.02, "predict": 0.001},
               {"step": 10, "predict": 4})  # fmt: skip
GA = CostRow("GA", 0.5, "extrapolated", 1.0, "extrapolated", 200.0, 200.0, {"step": 0.02}, {"step": 10})


def test_the_table_marks_what_is_extrapolated() -> None:
    table = to_table([RETRAIN, CLUE, GA], "Cost", "note")
    rows = {row[0]: dict(zip(table.headings[1:], row[1:], strict=True)) for row in table.rows}
    assert rows["Retrain"]["Latency (s)"] == "100.00*"
    assert (rows["CLUE"]["Latency (s)"], rows["CLUE"]["Energy (J)"]) == ("2.00", "-")
    assert rows["GA"]["Energy (J)"] == "1.00*"
    assert (rows["CLUE"]["Runs"], rows["CLUE"]["step"], rows["CLUE"]["train"]) == ("14", "20.00", "-")
    assert [row[2] for row in table.rows] == ["1x", "50x", "200x"]
    assert table.stressed == {0}
    widths = [max(len(row[at]) for row in [table.headings, *table.rows]) for at in range(len(table.headings))]
    assert sum(widths) + len(widths) <= 80
    data = to_json([CLUE], setting={"samples": 1})
    assert data["setting"] == {"samples": 1}
    assert data["rows"][0]["gain_energy"] is None


def blue(path: Path) -> tuple[int, int]:
    """How many pixels of the left and the right half have the bars' colour."""
    with Image.open(path) as image:
        pixels = (np.asarray(image.convert("RGB")) == (0, 114, 178)).all(axis=-1)[:-90]  # without the legend
    half = pixels.shape[1] // 2
    return int(pixels[:, :half].sum()), int(pixels[:, half:].sum())


def test_bars_only_where_something_is_known(tmp_path: Path) -> None:
    left, right = blue(gains_picture(tmp_path / "a.png", [RETRAIN, CLUE, GA], "Cost"))
    assert 0 < left < right  # one hatched bar against two
    left, right = blue(gains_picture(tmp_path / "b.png", [RETRAIN, CLUE], "Cost"))
    assert left == 0 < right
