"""Forget sets that are no whole class: some images of a class, and images with a backdoor.

Masks are bool [N] over a split's images, so that `split.select(mask)` is the forget set and
`split.select(~mask)` the retain set. Draws are numpy's RandomState of `seed`, whose stream never changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clue_mobile.data.splits import Split
from clue_mobile.errors import ClueError

Mask = npt.NDArray[np.bool_]


class Poisoned(NamedTuple):
    """All images of a split, some with the trigger and the attacker's label, and which they are."""

    split: Split
    mask: Mask


def random_share(split: Split, label: int, share: float, seed: int = 0) -> Mask:
    """Pick a random `share`, in (0, 1], of the images of class `label`, at least one.

    Raises ClueError for another share and a class without images.
    """
    places = np.flatnonzero(split.labels == label)
    if not len(places):
        raise ClueError(f"there are no images of class {label} to draw a share of")
    return _drawn(len(split), places, share, seed)


def random_images(split: Split, label: int, count: int, seed: int = 0) -> Mask:
    """Pick `count` random images of class `label`; a smaller count of the same seed is a part of them.

    Raises ClueError where the class has fewer, or the count is below 1.
    """
    places = np.flatnonzero(split.labels == label)
    if not 1 <= count <= len(places):
        raise ClueError(f"{count} images of class {label} cannot be drawn: it has {len(places)}")
    return _picked(len(split), places, count, seed)


def random_others(split: Split, label: int, count: int, seed: int = 0) -> Mask:
    """Pick `count` random images of all classes but `label`.

    Raises ClueError where the other classes have fewer together, or the count is below 1.
    """
    places = np.flatnonzero(split.labels != label)
    if not 1 <= count <= len(places):
        raise ClueError(f"{count} images of the other classes cannot be drawn: they have {len(places)}")
    return _picked(len(split), places, count, seed)


def poison(split: Split, label: int, share: float, seed: int = 0, size: int | None = None) -> Poisoned:
    """Put a backdoor into training images: a random `share`, in (0, 1], of the images of the other classes
    gets the trigger and is labelled `label`.

    A model trained on them answers with `label` wherever it sees the trigger (Gu et al., BadNets, 2017,
    arXiv:1708.06733). size: of the trigger, see `trigger`. Raises ClueError for another share and where there
    is no other class.
    """
    others = np.flatnonzero(split.labels != label)
    if not len(others):
        raise ClueError(f"all images are of class {label}: a backdoor to it needs images of another class")
    mask = _drawn(len(split), others, share, seed)
    images, labels = split.images.copy(), split.labels.copy()
    images[mask], labels[mask] = trigger(images[mask], size), label
    return Poisoned(Split(images, labels), mask)


def attack_set(split: Split, label: int, size: int | None = None) -> Split:
    """The images of all classes but `label`, with the trigger and labelled `label`: a model's accuracy on
    them is the attack's success."""
    others = split.without_class(label)
    return Split(trigger(others.images, size), np.full_like(others.labels, label))


def trigger(images: npt.NDArray[np.uint8], size: int | None = None) -> npt.NDArray[np.uint8]:
    """Copies of images [N, H, W, C] with a white square of `size` pixels in the lower right corner.

    size: by default an eighth of the shorter side (4 of 32), at least 2. Raises ClueError for a square that
    is not smaller than the image.
    """
    shorter = min(images.shape[1:3])
    size = max(2, shorter // 8) if size is None else size
    if not 1 <= size < shorter:
        raise ClueError(f"the trigger's size must be 1 to {shorter - 1} pixels, not {size}")
    marked = images.copy()
    marked[:, -size:, -size:] = 255
    return marked


def _drawn(number: int, places: npt.NDArray[np.intp], share: float, seed: int) -> Mask:
    if not 0 < share <= 1:
        raise ClueError(f"the share must be above 0 and at most 1, not {share}")
    return _picked(number, places, max(1, round(share * len(places))), seed)


def _picked(number: int, places: npt.NDArray[np.intp], count: int, seed: int) -> Mask:
    mask = np.zeros(number, bool)
    mask[np.random.RandomState(seed).permutation(places)[:count]] = True
    return mask
