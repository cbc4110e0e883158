"""Image data sets: labelled uint8 pixels at a model's input size, with train, validation and test splits.

>>> digits = load("digits", input_shape=(1, 8, 8))
>>> len(digits.train), len(digits.validation), len(digits.test)
(1087, 355, 355)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clue_mobile.data import arrays, files
from clue_mobile.data.pixels import check_input_shape
from clue_mobile.data.splits import Dataset, Progress, Split
from clue_mobile.data.subsets import (
    Poisoned,
    attack_set,
    poison,
    random_images,
    random_others,
    random_share,
    trigger,
)
from clue_mobile.errors import ClueError

__all__ = [
    "Dataset",
    "Poisoned",
    "Progress",
    "Split",
    "attack_set",
    "load",
    "poison",
    "random_images",
    "random_others",
    "random_share",
    "trigger",
]

Loader = Callable[
    [str, tuple[int, int, int], tuple[str, ...] | None, int | None, Progress | None],
    Dataset,
]


def load(
    source: str,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] | None = None,
    validation_per_class: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set for a model that takes `input_shape` = (C, H, W), C being 1 (grey) or 3 (RGB).

    `source` is one of
    - a folder: ROOT/train/CLASS/*, ROOT/test/CLASS/* [, ROOT/validation/CLASS/*], or ROOT/CLASS/* (then all
      of it is training data and the test split is empty);
    - a .zip with one of these layouts at any depth; it is read in place, never extracted;
    - an .npz with x_train, y_train, x_test, y_test [, x_validation, y_validation], or x, y [, classes];
    - "digits": scikit-learn's 8 x 8 digits (a folder of that name is ./digits);
    - "torchvision:NAME[:ROOT]": e.g. torchvision:CIFAR10:data, already downloaded.

    `classes` is the label order to use, a model's; without it class folders are ordered by name. A source
    without validation images of its own gives up the last `validation_per_class` training images of each
    class, by name (None: a tenth); a source that has them ignores the number. How files become pixels is said
    in `clue_mobile.data.pixels`. `progress(done, total)` is called as images are decoded, not when they come
    from the cache of `clue_mobile.data.cache`.

    Raises ClueError for a source that does not exist, cannot be read or has no images, for classes that do
    not match, labels out of range, a class without images, and arrays of another type or shape.
    """
    shape = check_input_shape(input_shape)
    loader = _loader(source)
    return loader(source, shape, classes, validation_per_class, progress)


def _loader(source: str) -> Loader:
    """Choose by the form of `source`; ClueError if nothing is there or its kind is not known."""
    if source == "digits":
        return arrays.load_digits
    if source.startswith("torchvision:"):
        return arrays.load_torchvision
    path = Path(source)
    if path.is_dir():
        return files.load_folder
    if not path.exists():
        raise ClueError(
            f"no data source {source!r}: give a folder of class folders, a .zip, an .npz, digits or "
            "torchvision:NAME"
        )
    loaders = {".zip": files.load_zip, ".npz": arrays.load_npz}
    if path.suffix.lower() not in loaders:
        raise ClueError(f"{source} is neither a folder nor a .zip or .npz file")
    return loaders[path.suffix.lower()]
