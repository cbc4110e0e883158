"""A comparison as one HTML file: every table, what stands beside it, the pictures, the numbers as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clue_mobile.report import comparison_text as text
from clue_mobile.report.comparison import Comparison
from clue_mobile.report.grid import Table
from clue_mobile.report.html import Picture, Report

INTRODUCTION = (
    "How near each unlearning method comes to the model that was trained again without the class, over "
    "forget classes and seeds: mean ± standard deviation. Scores are in percent, the gap in points.",
    "UA is the accuracy on the forget set, RA on the retain set, TA on the test images of the other classes; "
    "MIA is how many images of the forget set a membership attack takes for never trained on; the gap is the "
    "mean distance of these four from the retrained model. Probe: how many test images of the class a linear "
    "probe on the penultimate features finds. Relearn: training steps on 50 images until 90 % of the "
    "original's accuracy on the class is back. A method that only hides an output has the original's probe "
    "and relearns in no step.",
)
CAPTIONS = {
    "gaps.png": "Average gap of each method",
    "scatter.png": "What was forgotten against what was kept",
    "amounts.png": "How many images of the class it takes",
    "classes.png": "Accuracy on the test images of each class",
}


def to_report(found: Sequence[Comparison], pictures: Sequence[Path] = ()) -> Report:
    """The report of `clue-mobile compare`; the last comparison, the most general, comes first."""
    tables = []
    for each in reversed(found):
        said = text.beside(each)
        tables.append(replace(text.to_table(each), note=". ".join(said) + "." * bool(said)))
    settings = [line.partition(": ") for line in text.hyperparameters(found)]
    tables.append(
        Table("Hyperparameters", ("Method", "Settings"), [(name, rest) for name, _, rest in settings])
    )
    shown = [Picture(path, CAPTIONS.get(path.name, path.stem)) for path in pictures]
    title = f"Unlearning compared: {text.title(found[-1])}"
    return Report(title, INTRODUCTION, tables, shown, text.to_json(found))
