"""The averages of the published table, recomputed from its rows where these are known (docs/errata.md)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from clue_mobile.evaluate import Scores

ROOT = Path(__file__).parents[2]
TABLE = json.loads((ROOT / "benchmarks" / "published" / "slides.json").read_text())
ROWS = {(row["model"], row["method"]): row for row in TABLE["rows"]}
COMPARED = [key for key in ROWS if key[1] != "Retrain"]
ERRATA = [key for key in COMPARED if ROWS[key]["recomputed_average"] is not None]
VALUES = ("ua", "ra", "ta", "mia")
ROUNDING = 0.005
"""Half a unit of the second digit, to which the slides print."""


def scores(row: dict[str, Any]) -> Scores | None:
    """A row's scores; None unless all four values are known."""
    values = [row[name] for name in VALUES]
    if None in values:
        return None
    return Scores(*values, forget_test=math.nan, per_class=())


def test_table_has_its_16_compared_rows() -> None:
    methods = {"GA", "RL", "IU", "BE", "BS", "LU", "UNSIR", "CLUE"}
    assert set(COMPARED) == {(model, method) for model in ("ResNet-20", "ViT") for method in methods}
    assert len(TABLE["rows"]) == len(ROWS) == len(COMPARED) + 2


@pytest.mark.parametrize("key", COMPARED, ids=" ".join)
def test_average_follows_from_its_row(key: tuple[str, str]) -> None:
    row, retrain = ROWS[key], ROWS[key[0], "Retrain"]
    own, reference = scores(row), scores(retrain)
    if own is None or reference is None:
        pytest.skip(f"the slides' values of {key[1]} or Retrain on {key[0]} are not known")
    expected = row["printed_average"] if row["recomputed_average"] is None else row["recomputed_average"]
    assert own.gap(reference) == pytest.approx(expected, abs=ROUNDING + 1e-9)


@pytest.mark.parametrize("key", ERRATA, ids=" ".join)
def test_erratum_is_no_matter_of_rounding(key: tuple[str, str]) -> None:
    printed, recomputed = ROWS[key]["printed_average"], ROWS[key]["recomputed_average"]
    assert abs(printed - recomputed) > ROUNDING
    # A mean of four differences of values with two digits is a multiple of a quarter of 0.01.
    assert recomputed * 400 == pytest.approx(round(recomputed * 400), abs=1e-6)
    assert 0 <= recomputed <= 100


def test_the_document_lists_the_errata_of_the_file() -> None:
    text = (ROOT / "docs" / "errata.md").read_text()
    assert len(ERRATA) == 4
    for model, method in ERRATA:
        row = ROWS[model, method]
        line = f"| {model} | {method} | {row['printed_average']:.2f} | "
        (found,) = [each for each in text.splitlines() if each.startswith(line)]
        assert float(found.split("|")[4]) == row["recomputed_average"]
    for claim in TABLE["claims"]:
        assert claim["printed"] in text
