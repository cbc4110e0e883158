"""The tables of what `clue_mobile.evaluate.deep` measures: attacks, probe, relearning, classes, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clue_mobile.report.grid import Table

HEADINGS = (
    "Method", "Forget train", "Forget test", "Conf. SVC", "Entr. SVC", "Loss AUC", "Energy AUROC", "Probe",
    "Relearn", "Others then",
)  # fmt: skip
NOTE = (
    "All in percent but Relearn (steps). Forget train, Forget test: accuracy on the class. Conf. SVC, Entr. "
    "SVC: forget images that a membership attack takes for never trained on. Loss AUC: forget set against "
    "test images of the class, 50 is no trace. Energy AUROC: forget images above retain images. Probe: test "
    "images of the class that a linear probe on the penultimate features finds. Relearn: training steps on "
    "50 images of the class until 90 % of the original's accuracy on it is back. Others then: the accuracy "
    "on the other classes at that point."
)
Deep = Mapping[str, Mapping[str, Any]]
"""What `deep_scores` returned, by the name of the row."""


def relearned(found: Mapping[str, Any]) -> str:
    """The relearn cost as text, "> 200" where the limit came first."""
    steps = found["relearn_steps"]
    return f"> {found['relearn_limit']}" if steps is None else str(steps)


def deep_table(deep: Deep, *, caption: str = "Is it forgotten, or only hidden?") -> Table:
    """One row for each model: attacks, energies, linear probe, relearn cost."""
    rows = [
        [
            name,
            *(
                f"{value:.1f}"
                for value in (
                    found["forget_train"],
                    found["forget_test"],
                    found["attacks"]["confidence_svc"],
                    found["attacks"]["entropy_svc"],
                    found["attacks"]["loss_auc"],
                    found["energy_auroc"],
                    found["probe"],
                )
            ),
            relearned(found),
            f"{found['relearn_retain']:.1f}",
        ]
        for name, found in deep.items()
    ]
    return Table(caption, HEADINGS, rows, note=NOTE)


def class_table(deep: Deep, classes: Sequence[str], forget_class: int) -> Table:
    """One row for each class: its test accuracy by each model."""
    rows = [
        [
            f"{name} (forgotten)" if label == forget_class else name,
            *(f"{found['per_class'][label]:.1f}" for found in deep.values()),
        ]
        for label, name in enumerate(classes)
    ]
    return Table("Accuracy on the test images of each class, in percent", ("Class", *deep), rows)


def confusion_tables(deep: Deep, classes: Sequence[str]) -> list[Table]:
    """One matrix for each model: a row for each true class, a column for each output."""
    tables = []
    for name, found in deep.items():
        counts: Sequence[Sequence[int]] = found["confusion"]
        extra = [f"output {at}" for at in range(len(classes), len(counts[0]))]
        rows = [[true, *(str(count) for count in row)] for true, row in zip(classes, counts, strict=True)]
        shades = [[0.0, *(count / max(1, sum(row)) for count in row)] for row in counts]
        tables.append(
            Table(
                f"{name}: test images of each class (rows) and the class that was given (columns)",
                ("True class", *classes, *extra),
                rows,
                shades=shades,
            )
        )
    return tables
