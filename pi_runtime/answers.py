"""What a classifier answers once classes were forgotten: it tells, hides or rejects them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pi_runtime.errors import ClueError, unknown

CHOICES: Final = ("tell", "hide", "reject")


@dataclass(frozen=True)
class Answer:
    """The best class of an image by index and name with its probability, and whether it was forgotten.

    All three are None where a forgotten class was rejected.
    """

    label: int | None
    name: str | None
    probability: float | None
    forgotten: bool


def check_choice(choice: str, classes: Sequence[str], forgotten: Collection[int]) -> None:
    """Raise ClueError for an unknown choice, or where hiding leaves no class to answer with."""
    if choice not in CHOICES:
        raise unknown("choice for forgotten classes", choice, CHOICES)
    if choice == "hide" and len(set(forgotten)) == len(classes):
        raise ClueError("every class was forgotten: nothing is left to answer with; choose tell or reject")


def answers(
    logits: NDArray[np.float32], classes: Sequence[str], forgotten: Collection[int], choice: str = "tell"
) -> list[Answer]:
    """An answer for each row of logits [N, K].

    `choice`: "tell" answers a forgotten class and says so, "hide" answers the best other class (its
    probability among these), "reject" answers no class where the best one was forgotten. The first of equal
    logits is the best. Raises ClueError as `check_choice` does.
    """
    check_choice(choice, classes, forgotten)
    scores = logits.astype(np.float64)
    if choice == "hide":
        scores[:, sorted(forgotten)] = -np.inf
    odds = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf)) if len(scores) else scores
    found = []
    for row in odds:
        best = int(row.argmax())
        gone = best in forgotten
        if gone and choice == "reject":
            found.append(Answer(None, None, None, True))
        else:
            found.append(Answer(best, classes[best], float(row[best] / row.sum()), gone))
    return found
