"""Attacks and AUROC against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_mobile import evaluate
from clue_mobile.errors import ClueError
from clue_mobile.evaluate import attacks


def test_auroc_by_hand() -> None:
    # pairs (1 > 0, 1 = 1, 1 < 2; 3 > 0, 3 > 1, 3 > 2): 4 won and one tied of 6
    assert attacks.auroc(np.array([1.0, 3.0]), np.array([0.0, 2.0, 1.0])) == pytest.approx(100 * 4.5 / 6)
    assert attacks.auroc(np.array([5.0]), np.array([1.0, 2.0])) == 100.0
    assert attacks.auroc(np.array([1.0]), np.array([1.0])) == 50.0
    for bad in (np.array([]), np.array([np.nan])):
        with pytest.raises(ClueError, match="AUROC needs"):
            attacks.auroc(bad, np.array([1.0]))
        with pytest.raises(ClueError, match="AUROC needs"):
            attacks.auroc(np.array([1.0]), bad)


small = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(small, small)
def test_auroc_is_the_share_of_pairs(positive: list[int], negative: list[int]) -> None:
    won = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    found = attacks.auroc(np.array(positive, float), np.array(negative, float))
    assert found == pytest.approx(100 * won / (len(positive) * len(negative)))


def test_entropy_and_loss_by_hand() -> None:
    logits = np.array([[0, 0, -1e5], [math.log(3), 0, -1e5], [1e4, 0, 0]], np.float32)
    expected = [math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), 0]
    assert np.allclose(attacks.entropy(logits), expected, atol=1e-6)
    losses = attacks.cross_entropy(logits, np.array([1, 1, 1]))
    assert np.allclose(losses, [math.log(2), math.log(4), 1e4], rtol=1e-6)


def test_loss_auc_by_hand() -> None:
    """Losses of members: log 2 and log 4; of images never seen: log 4, and 1e4."""
    members = np.array([[0, 0, -1e5], [math.log(3), 0, -1e5]], np.float32), np.array([1, 1])
    unseen = np.array([[math.log(3), 0, -1e5], [1e4, 0, 0]], np.float32), np.array([1, 1])
    assert attacks.loss_auc(members, unseen) == pytest.approx(100 * 3.5 / 4)
    assert attacks.loss_auc(unseen, members) == pytest.approx(100 * 0.5 / 4)


def confident(
    count: int, sharpness: tuple[float, float], wrong: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of 3 classes with one entry high; `wrong`: beside the label, which the entropy does not see."""
    labels = np.arange(count) % 3
    logits = np.zeros((count, 3), np.float32)
    logits[np.arange(count), (labels + wrong) % 3] = np.linspace(*sharpness, count)
    return logits, labels


def test_entropy_svc_on_separable_predictions() -> None:
    members, others = confident(90, (7, 8)), confident(90, (0, 1))
    assert attacks.entropy_svc(members, others, confident(12, (7, 8))) == 0.0
    assert attacks.entropy_svc(members, others, confident(12, (0, 1))) == 100.0
    mixed = tuple(
        np.concatenate(pair) for pair in zip(confident(9, (7, 8)), confident(3, (0, 1)), strict=True)
    )
    assert attacks.entropy_svc(members, others, mixed) == 25.0  # type: ignore[arg-type]
    # sure of a wrong class: by its entropy a member, by the confidence in its label never seen
    sure = confident(12, (7, 8), wrong=True)
    assert attacks.entropy_svc(members, others, sure) == 0.0
    assert evaluate.membership_attack(members, others, sure) == 100.0
    with pytest.raises(ClueError, match="diverged"):
        attacks.entropy_svc(members, others, (np.full((1, 3), np.nan, np.float32), np.array([0])))
