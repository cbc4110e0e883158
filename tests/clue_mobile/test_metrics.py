"""Scores against values worked out by hand."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_mobile import evaluate
from clue_mobile.data import Dataset, Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate import Scores, metrics


def test_softmax_and_energy() -> None:
    logits = np.array([[0.0, 0.0], [math.log(3.0), 0.0], [1000.0, 0.0], [-1000.0, -1000.0]], dtype=np.float32)
    assert np.allclose(
        evaluate.softmax(logits), [[0.5, 0.5], [0.75, 0.25], [1.0, 0.0], [0.5, 0.5]], atol=1e-7
    )
    assert np.allclose(evaluate.energy(logits), [-math.log(2), -math.log(4), -1000, 1000 - math.log(2)])


def test_accuracy() -> None:
    logits = np.array([[2, 1, 0], [0, 5, 1], [1, 0, 9], [3, 1, 2]], dtype=np.float32)
    assert evaluate.accuracy(logits, np.array([0, 1, 0, 1])) == 50.0
    with pytest.raises(ClueError, match="no images"):
        evaluate.accuracy(logits[:0], np.array([], dtype=np.int64))
    logits[0, 0] = np.nan
    with pytest.raises(ClueError, match="diverged"):
        evaluate.accuracy(logits, np.array([0, 1, 0, 1]))


def with_probability(
    probabilities: list[float], labels: list[int], classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax gives each label its probability and shares the rest evenly."""
    rest = (1 - np.array(probabilities)) / (classes - 1)
    powers = np.repeat(rest[:, None], classes, axis=1)
    powers[np.arange(len(labels)), labels] = probabilities
    return np.log(powers), np.array(labels, dtype=np.int64)


LABELS = [1, 2] * 20
MEMBERS = with_probability(list(np.linspace(0.9, 0.99, 40)), LABELS)
OTHERS = with_probability(list(np.linspace(0.2, 0.3, 40)), LABELS)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([0.95] * 4, 0.0), ([0.01, 0.1, 0.2, 0.3], 100.0), ([0.95, 0.95, 0.95, 0.25], 25.0)],
)
def test_attack_on_separable_features(probabilities: list[float], expected: float) -> None:
    forgotten = with_probability(probabilities, [0] * 4)
    assert evaluate.membership_attack(MEMBERS, OTHERS, forgotten) == pytest.approx(expected)


def test_attack_repeats_with_its_seed() -> None:
    random = np.random.default_rng(1)
    members = with_probability(random.uniform(0.3, 1.0, 300).tolist(), [1, 2, 0] * 100)
    others = with_probability(random.uniform(0.1, 0.9, 300).tolist(), [1, 2, 0] * 100)
    forgotten = with_probability(random.uniform(0.1, 0.99, 200).tolist(), [0] * 200)
    results = [evaluate.membership_attack(members, others, forgotten, seed=s, limit=30) for s in (5, 5, 6)]
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_attack_wants_both_kinds() -> None:
    forgotten = with_probability([0.5], [0])
    with pytest.raises(ClueError, match="both trained on and not"):
        evaluate.membership_attack(MEMBERS, with_probability([0.5, 0.5], [0, 0]), forgotten)
    with pytest.raises(ClueError, match="no images of the forgotten"):
        evaluate.membership_attack(MEMBERS, OTHERS, (forgotten[0][:0], forgotten[1][:0]))
    with pytest.raises(ClueError, match="diverged"):
        evaluate.membership_attack(MEMBERS, OTHERS, (forgotten[0] * np.inf, forgotten[1]))


def test_attack_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ClueError, match=r"clue-mobile\[export\]"):
        evaluate.membership_attack(MEMBERS, OTHERS, MEMBERS)


labels_of_some = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@given(labels_of_some, labels_of_some, st.integers(1, 100))
def test_both_kinds_are_drawn_alike(members: list[int], others: list[int], limit: int) -> None:
    both = {k: min(members.count(k), others.count(k)) for k in range(6)}
    total = sum(both.values())
    arrays = np.array(members), np.array(others)
    if total == 0:
        with pytest.raises(ClueError):
            metrics._quotas(*arrays, limit)
        return
    counts = metrics._quotas(*arrays, limit)
    assert counts.sum() == min(total, limit)
    for label, count in enumerate(counts):
        exact = both[label] * min(1.0, limit / total)
        assert math.floor(exact - 1e-9) <= count <= min(both[label], math.ceil(exact + 1e-9))
    random = np.random.RandomState(0)
    for kind in arrays:
        drawn = metrics._draw(kind, counts, random)
        assert len(set(drawn.tolist())) == len(drawn)
        assert np.array_equal(np.bincount(kind[drawn], minlength=len(counts)), counts)


def test_gap_by_hand() -> None:
    retrain = Scores(ua=0.0, ra=99.0, ta=92.0, mia=100.0, forget_test=0.0, per_class=())
    other = Scores(ua=10.0, ra=98.0, ta=94.0, mia=60.0, forget_test=9.0, per_class=())
    assert other.gap(retrain) == (10 + 1 + 2 + 40) / 4
    assert retrain.gap(other) == other.gap(retrain)
    assert retrain.gap(retrain) == 0


def coded(rows: list[tuple[int, int, int]]) -> Split:
    """Images that say which class the model will give them: (label, class given, how many such images)."""
    labels = np.repeat([label for label, _, _ in rows], [count for _, _, count in rows]).astype(np.int64)
    given = np.repeat([answer for _, answer, _ in rows], [count for _, _, count in rows]).astype(np.uint8)
    return Split(np.broadcast_to(given[:, None, None, None], (len(given), 2, 2, 1)).copy(), labels)


def predict(images: np.ndarray) -> np.ndarray:
    assert len(images) <= metrics.BATCH
    return (4 * np.eye(3, dtype=np.float32))[images[:, 0, 0, 0]]


TRAIN = coded([(0, 0, 30), (0, 1, 90), (1, 1, 600), (1, 2, 200), (2, 2, 400)])
TEST = coded([(0, 0, 1), (0, 2, 9), (1, 1, 15), (1, 0, 5), (2, 2, 5), (2, 1, 15)])
DATASET = Dataset(("a", "b", "c"), TRAIN, TRAIN.take(0), TEST, "by hand")


def test_scores_by_hand() -> None:
    seen: list[tuple[int, int]] = []
    scores = evaluate.score(predict, DATASET, 0, progress=lambda done, total: seen.append((done, total)))
    assert scores.ua == 25.0
    assert scores.ra == pytest.approx(100 * 1000 / 1200)
    assert scores.ta == 50.0
    assert scores.per_class == (10.0, 75.0, 25.0)
    assert scores.forget_test == 10.0
    # A probable label is mostly a member's and an improbable one mostly another's, so of the 120 images of
    # the forgotten class the 90 that are given another class pass for never trained on.
    assert scores.mia == 75.0
    assert seen == sorted(seen)
    assert seen[-1] == (1370, 1370)
    assert json.loads(json.dumps(scores.to_json()))["per_class"] == [10.0, 75.0, 25.0]


def test_score_says_what_is_missing() -> None:
    with pytest.raises(ClueError, match="no class 3"):
        evaluate.score(predict, DATASET, 3)
    untested = Dataset(DATASET.classes, TRAIN, TRAIN.take(0), TRAIN.take(0), "by hand")
    with pytest.raises(ClueError, match="by hand has no test images"):
        evaluate.score(predict, untested, 0)
    with pytest.raises(ClueError, match=r"gave logits \[512, 2\]"):
        evaluate.score(lambda images: predict(images)[:, :2], DATASET, 0)
    one = Dataset(("a",), TRAIN.of_class(0), TRAIN.take(0), TEST.of_class(0), "one class")
    with pytest.raises(ClueError, match="nothing to retain"):
        evaluate.score(predict, one, 0)
