"""Shares of a class, and a backdoor that a trained model really has."""

from __future__ import annotations

import numpy as np
import pytest

from clue_mobile import models, training
from clue_mobile.data import Dataset, Split, attack_set, poison, random_images, random_share, trigger
from clue_mobile.errors import ClueError

IMAGES = np.random.RandomState(0).randint(0, 200, (40, 6, 5, 3)).astype(np.uint8)
SPLIT = Split(IMAGES, np.arange(40, dtype=np.int64) % 4)


def test_a_share_of_a_class() -> None:
    mask = random_share(SPLIT, 2, 0.3, seed=1)
    assert mask.sum() == 3
    assert set(SPLIT.labels[mask]) == {2}
    assert np.array_equal(mask, random_share(SPLIT, 2, 0.3, seed=1))
    assert not np.array_equal(mask, random_share(SPLIT, 2, 0.3, seed=2))
    assert random_share(SPLIT, 2, 0.01).sum() == 1
    assert np.array_equal(random_share(SPLIT, 2, 1.0), SPLIT.labels == 2)


def test_a_number_of_images_of_a_class() -> None:
    few, more = (random_images(SPLIT, 2, count, seed=5) for count in (3, 7))
    assert (few.sum(), more.sum()) == (3, 7)
    assert set(SPLIT.labels[more]) == {2}
    assert not (few & ~more).any()  # the same images and some more
    assert np.array_equal(random_images(SPLIT, 2, 10), SPLIT.labels == 2)
    assert not np.array_equal(few, random_images(SPLIT, 2, 3, seed=6))
    for count, label in ((11, 2), (0, 2), (1, 9)):
        with pytest.raises(ClueError, match="cannot be drawn: it has"):
            random_images(SPLIT, label, count)


def test_the_trigger_is_a_white_corner() -> None:
    marked = trigger(IMAGES, 3)
    assert (marked[:, 3:, 2:] == 255).all()
    different = (marked != IMAGES).any(axis=(0, 3))
    assert np.argwhere(different).tolist() == [[row, column] for row in (3, 4, 5) for column in (2, 3, 4)]
    assert (IMAGES < 200).all()  # the given ones are left alone
    for shape, size in (((32, 32), 4), ((8, 8), 2), ((64, 48), 6)):
        white = trigger(np.zeros((1, *shape, 1), np.uint8))
        assert (white == 255).sum() == size**2


def test_poison() -> None:
    images, labels = SPLIT.images.copy(), SPLIT.labels.copy()
    found = poison(SPLIT, 1, 0.2, seed=3, size=2)
    assert found.mask.sum() == 6  # of the 30 images of other classes
    assert 1 not in SPLIT.labels[found.mask]
    assert set(found.split.labels[found.mask]) == {1}
    assert np.array_equal(found.split.images[found.mask], trigger(images[found.mask], 2))
    assert np.array_equal(found.split.images[~found.mask], images[~found.mask])
    assert np.array_equal(found.split.labels[~found.mask], labels[~found.mask])
    assert np.array_equal(SPLIT.images, images)
    assert np.array_equal(SPLIT.labels, labels)


def test_the_attack_is_on_the_other_classes() -> None:
    attacked = attack_set(SPLIT, 1, 2)
    assert attacked.labels.tolist() == [1] * 30
    assert np.array_equal(attacked.images, trigger(IMAGES[SPLIT.labels != 1], 2))


def test_what_cannot_be_drawn() -> None:
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ClueError, match="the share must be above 0 and at most 1"):
            random_share(SPLIT, 1, share)
        with pytest.raises(ClueError, match="the share must be above 0 and at most 1"):
            poison(SPLIT, 1, share)
    with pytest.raises(ClueError, match="no images of class 4"):
        random_share(SPLIT, 4, 0.5)
    with pytest.raises(ClueError, match="all images are of class 1"):
        poison(SPLIT.of_class(1), 1, 0.5)
    for size in (0, 5):
        with pytest.raises(ClueError, match="size must be 1 to 4 pixels"):
            trigger(IMAGES, size)


def test_digits_with_a_backdoor(digits_data: Dataset) -> None:
    spec = models.resolve_spec("digits_cnn")
    found = poison(digits_data.train, 7, 0.1)
    attacked = attack_set(digits_data.test, 7)
    success = {}
    for name, split in (("clean", digits_data.train), ("poisoned", found.split)):
        module = models.load(spec, None)
        config = training.TrainConfig(epochs=3, batch=64, augment="none", precision="float32")
        training.train(module, spec, split.images, split.labels, config)
        success[name] = training.accuracy(module, spec, attacked.images, attacked.labels)
        assert training.accuracy(module, spec, digits_data.test.images, digits_data.test.labels) > 0.85
    assert success["clean"] < 0.4
    assert success["poisoned"] > 0.9
