"""A linear probe finds a class that is there, and none that is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from clue_mobile.data import Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.probe import drawn, linear_probe


def points(count: int, spread: float, seed: int, absent: bool) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in the plane around corners of a triangle; `absent`: class 2 lies exactly on class 1."""
    random = np.random.RandomState(seed)
    labels = np.repeat([0, 1, 2], count)
    corners = np.array([[0, 0], [10, 0], [10, 0] if absent else [0, 10]], float)
    return (corners[labels] + spread * random.randn(3 * count, 2)).astype(np.float32), labels


def test_a_class_that_is_linearly_separable_is_found() -> None:
    probe = linear_probe(points(40, 0.5, 0, False), points(20, 0.5, 1, False), 2)
    assert probe == (100.0, 100.0, 0.0)


def test_a_class_whose_features_are_those_of_another_is_not() -> None:
    probe = linear_probe(points(400, 0.5, 0, True), points(200, 0.5, 1, True), 2)
    # one of two classes at the same place: a guess, which finds as many of one as it takes of the other
    assert 30 < probe.forget < 70
    assert probe.wrongly == pytest.approx(probe.forget / 2, abs=10)
    assert probe.overall == pytest.approx(100 * 2 / 3, abs=5)
    assert linear_probe(points(400, 0.5, 0, True), points(200, 0.5, 1, True), 0).forget == 100.0


def test_constant_features_find_nothing() -> None:
    labels = np.array([0] * 6 + [1] * 4)
    probe = linear_probe((np.ones((10, 3)), labels), (np.ones((10, 3)), labels), 1)
    assert probe == (0.0, 60.0, 0.0)  # the larger class is all it can say


def test_what_a_probe_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    good = points(5, 0.5, 0, False)
    with pytest.raises(ClueError, match="images of the forgotten class and of others"):
        linear_probe(good, (good[0][:5], good[1][:5]), 2)
    with pytest.raises(ClueError, match="images of the forgotten class and of others"):
        linear_probe(good, (good[0][:5], good[1][:5]), 0)
    with pytest.raises(ClueError, match="features are not all finite"):
        linear_probe((good[0] * np.inf, good[1]), good, 0)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ClueError, match=r"clue-mobile\[export\]"):
        linear_probe(good, good, 0)


def test_images_are_drawn_alike_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 4, 50])
    images = np.arange(104, dtype=np.uint8)[:, None, None, None]
    split = Split(images, labels)
    found = drawn(split, 3, seed=0, limit=30)
    assert np.bincount(found.labels).tolist() == [10, 4, 10]
    assert len(set(found.images.ravel().tolist())) == 24
    assert all(
        labels[image] == label for image, label in zip(found.images.ravel(), found.labels, strict=True)
    )
    assert np.array_equal(drawn(split, 3, seed=0, limit=30).images, found.images)
    assert not np.array_equal(drawn(split, 3, seed=1, limit=30).images, found.images)
    assert len(drawn(split, 3, seed=0)) == 104
