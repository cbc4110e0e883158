"""The types of a data set, and what every source shares: class matching, checks, and the validation split."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clue_mobile.errors import ClueError

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

SHOWN = 10
"""How many class names an error lists before it says how many more there are."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    `images` is uint8 [N, H, W, C] (RGB or grey), `labels` is int64 [N]; ClueError for other types or shapes.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ClueError(
                f"images must be uint8 [N, H, W, C], not {self.images.dtype} {list(self.images.shape)}"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ClueError(
                f"labels must be int64 [{len(self.images)}], one an image, "
                f"not {self.labels.dtype} {list(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Split:
        """Return the images that a boolean mask [N] or an array of positions picks."""
        return Split(self.images[which], self.labels[which])

    def of_class(self, label: int) -> Split:
        """Return the images of one class, in their order."""
        return self.select(self.labels == label)

    def without_class(self, label: int) -> Split:
        """Return the images of every other class, in their order."""
        return self.select(self.labels != label)

    def take(self, count: int) -> Split:
        """Return the first `count` images, or all where there are fewer."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled image data set; label k means `classes[k]`. `source` is the string it was loaded from.

    `validation` and `test` may be empty: code that cannot do without one asks by `require`.
    """

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    source: str

    def require(self, name: str) -> Split:
        """Return the split called "train", "validation" or "test"; ClueError if it has no images."""
        split: Split = getattr(self, name)
        if not len(split):
            raise ClueError(
                f"{self.source} has no {name} images, and this needs them: put them into a folder "
                f"{name}/CLASS beside train/CLASS (in an .npz: x_{name} and y_{name})"
            )
        return split


def assemble(
    source: str,
    found: Sequence[str],
    parts: Mapping[str, Split],
    *,
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
) -> Dataset:
    """Build the Dataset from a source's own parts.

    `found` names the source's classes in the order of its labels; `parts` has "train" and may have
    "validation" and "test". With `classes`, labels are renumbered so that they index `classes`. Without
    validation images of its own, the source gives up the last `validation_per_class` training images of each
    class (None: a tenth, rounded down). Raises ClueError for labels out of range, classes that do not match,
    and a class without images.
    """
    order, new_label = _match_classes(source, found, classes)
    splits: dict[str, Split] = {}
    for name, part in parts.items():
        if not len(part):
            continue
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= len(found):
            wrong = low if low < 0 else high
            raise ClueError(
                f"{source}: a {name} label is {wrong}, outside 0..{len(found) - 1} ({len(found)} classes)"
            )
        split = Split(part.images, new_label[part.labels])
        counts = np.bincount(split.labels, minlength=len(order))
        if not counts.all():
            empty = [order[label] for label in np.flatnonzero(counts == 0)]
            raise ClueError(f"{source}: no {name} images for {_listed(empty)}")
        splits[name] = split
    if "train" not in splits:
        raise ClueError(f"{source} has no training images")
    nothing = splits["train"].take(0)
    if "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(
            source, splits["train"], order, validation_per_class
        )
    return Dataset(order, splits["train"], splits["validation"], splits.get("test", nothing), source)


def _match_classes(
    source: str, found: Sequence[str], classes: tuple[str, ...] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the class order, and an array that maps a label of the source to its place in that order."""
    order = tuple(found) if classes is None else tuple(classes)
    for names, owner in ((found, source), (order, "the given class list")):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise ClueError(f"{owner} names a class twice: {_listed(twice)}")
    extra = [name for name in found if name not in order]
    missing = [name for name in order if name not in found]
    if extra or missing:
        reasons = []
        if extra:
            reasons.append(f"only in the data: {_listed(extra, order)}")
        if missing:
            reasons.append(f"only in the class list: {_listed(missing, found)}")
        raise ClueError(f"the classes of {source} are not those of the class list: {'; '.join(reasons)}")
    return order, np.array([order.index(name) for name in found], dtype=np.int64)


def _listed(names: Sequence[str], choices: Sequence[str] = ()) -> str:
    """Join quoted names, each with its closest match in `choices` if there is one; a long list is cut."""
    words = []
    for name in names[:SHOWN]:
        close = difflib.get_close_matches(name, choices, n=1)
        words.append(f"{name!r} (close to {close[0]!r})" if close else repr(name))
    if len(names) > SHOWN:
        words.append(f"and {len(names) - SHOWN} more")
    return ", ".join(words)


def _hold_out(
    source: str, train: Split, order: tuple[str, ...], per_class: int | None
) -> tuple[Split, Split]:
    """Split off the last images of each class: (training, validation), each in the original order."""
    if per_class is not None and per_class < 0:
        raise ClueError(f"validation_per_class must be 0 or more, not {per_class}")
    held = np.zeros(len(train), dtype=bool)
    for label, name in enumerate(order):
        places = np.flatnonzero(train.labels == label)
        count = len(places) // 10 if per_class is None else per_class
        if count >= len(places):
            raise ClueError(
                f"{source}: class {name!r} has {len(places)} training images; "
                f"holding out {count} for validation leaves none"
            )
        held[places[len(places) - count :]] = True
    return train.select(~held), train.select(held)
