"""Data sets of arrays and of other packages: .npz files, scikit-learn's digits, torchvision."""

from __future__ import annotations

import inspect
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clue_mobile.data import pixels
from clue_mobile.data.splits import Dataset, Progress, Split, assemble
from clue_mobile.errors import ClueError, unknown

DIGITS_SEED = 0
DEFAULT_TORCHVISION_ROOT = "data"


def load_npz(
    source: str,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
    progress: Progress | None,
) -> Dataset:
    """Load an .npz with x_train, y_train, x_test, y_test [, x_validation, y_validation] or with x, y.

    x: uint8 [N, H, W] or [N, H, W, C]; y: integers [N] or [N, 1]. An optional `classes` (text [K]) names the
    labels; otherwise the class list given does, or, without one, their numbers. See `clue_mobile.data.load`.
    """
    try:
        with zipfile.ZipFile(source), np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ClueError(f"cannot read the arrays of {source}: {error}") from error
    pairs = {"train": ("x", "y")}
    if "x" not in arrays:
        pairs = {name: (f"x_{name}", f"y_{name}") for name in ("train", "validation", "test")}
        pairs = {name: pair for name, pair in pairs.items() if not arrays.keys().isdisjoint(pair)}
    if "train" not in pairs:
        raise ClueError(
            f"{source} has the arrays {', '.join(sorted(arrays)) or '(none)'}; "
            "x_train and y_train, or x and y, are needed"
        )
    raw: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]] = {}
    for name, (x, y) in pairs.items():
        for wanted in (x, y):
            if wanted not in arrays:
                raise ClueError(f"{source} has no array {wanted}")
        raw[name] = (_images(source, x, arrays[x]), _labels(source, y, arrays[y]))
        if len(raw[name][0]) != len(raw[name][1]):
            raise ClueError(
                f"{source}: {x} has {len(raw[name][0])} images but {y} has {len(raw[name][1])} labels"
            )
    found = _npz_classes(source, arrays, classes, [labels for _, labels in raw.values()])
    total = sum(len(labels) for _, labels in raw.values())
    counter = _Counter(progress, total)
    parts = {
        name: Split(_fit(images, input_shape, counter), labels) for name, (images, labels) in raw.items()
    }
    return assemble(source, found, parts, classes=classes, validation_per_class=validation_per_class)


def load_digits(
    source: str,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
    progress: Progress | None,
) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8 grey, values 0..16 scaled to 0..255.

    The split is always the same: of each class a fifth (rounded down) is test, a fifth validation, the rest
    training. See `clue_mobile.data.load`.
    """
    try:
        from sklearn.datasets import load_digits as read_digits
    except ImportError as error:
        raise ClueError("the digits need scikit-learn: pip install 'clue-mobile[export]'") from error
    bunch = read_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    # RandomState, not default_rng: NumPy promises its stream for good.
    shuffled = np.random.RandomState(DIGITS_SEED).permutation(len(labels))
    where = np.empty(len(labels), dtype="<U10")
    for label in range(10):
        places = shuffled[labels[shuffled] == label]
        fifth = len(places) // 5
        where[places] = "train"
        where[places[:fifth]] = "test"
        where[places[fifth : 2 * fifth]] = "validation"
    fitted = Split(_fit(images, input_shape, _Counter(progress, len(images))), labels)
    parts = {name: fitted.select(where == name) for name in ("train", "validation", "test")}
    found = [str(label) for label in range(10)]
    return assemble(source, found, parts, classes=classes, validation_per_class=validation_per_class)


def load_torchvision(
    source: str,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
    progress: Progress | None,
) -> Dataset:
    """Load `torchvision:NAME[:ROOT]`, a torchvision data set with a `train` flag, from ROOT (default: data).

    Nothing is downloaded. See `clue_mobile.data.load`.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ClueError(f"{source} needs torchvision: pip install 'clue-mobile[export]'") from error
    name, _, root = source.removeprefix("torchvision:").partition(":")
    root = root or DEFAULT_TORCHVISION_ROOT
    known: dict[str, Any] = {
        each: kind
        for each in datasets.__all__
        if inspect.isclass(kind := getattr(datasets, each))
        and {"root", "train", "download"} <= inspect.signature(kind).parameters.keys()
    }
    if name not in known:
        raise unknown("torchvision data set", name, known)
    try:
        opened = {
            part: known[name](root=root, train=train, download=False)
            for part, train in (("train", True), ("test", False))
        }
    except (RuntimeError, OSError) as error:
        raise ClueError(f"no {name} files in {root!r} (looked there as torchvision does): {error}") from error
    counter = _Counter(progress, sum(len(data) for data in opened.values()))
    parts = {part: _read_items(data, input_shape, counter) for part, data in opened.items()}
    found = getattr(opened["train"], "classes", None)
    if found is None:
        found = [str(label) for label in range(int(parts["train"].labels.max()) + 1)]
    return assemble(source, list(found), parts, classes=classes, validation_per_class=validation_per_class)


class _Counter:
    """Adds up what several calls have done, for one progress report."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def _images(source: str, name: str, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Check an array of images and give it its channel axis."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise ClueError(
            f"{source}: {name} is {images.dtype} {list(images.shape)}; "
            "uint8 [N, H, W] or [N, H, W, 1 or 3] is needed"
        )
    return images


def _labels(source: str, name: str, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Check an array of labels and make it int64 [N]."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ClueError(f"{source}: {name} is {labels.dtype} {list(labels.shape)}; integers [N] are needed")
    return labels.astype(np.int64)


def _npz_classes(
    source: str,
    arrays: dict[str, npt.NDArray[Any]],
    classes: tuple[str, ...] | None,
    labels: Sequence[npt.NDArray[np.int64]],
) -> list[str]:
    """Name the labels of an .npz: by its own `classes`, else by those given, else by their numbers."""
    if "classes" in arrays:
        named = arrays["classes"]
        if named.dtype.kind != "U" or named.ndim != 1:
            raise ClueError(f"{source}: classes is {named.dtype} {list(named.shape)}; text [K] is needed")
        return [str(name) for name in named]
    if classes is not None:
        return list(classes)
    highest = max((int(each.max()) for each in labels if len(each)), default=-1)
    return [str(label) for label in range(highest + 1)]


def _fit(
    images: npt.NDArray[np.uint8], input_shape: tuple[int, int, int], counter: _Counter
) -> npt.NDArray[np.uint8]:
    """Give images [N, H, W, C] the size and channels of `input_shape`; unchanged where both agree."""
    channels, height, width = input_shape
    if images.shape[1:] == (height, width, channels):
        counter.add(len(images))
        return images
    from PIL import Image

    fitted = np.empty((len(images), height, width, channels), dtype=np.uint8)
    for place, image in enumerate(images):
        fitted[place] = pixels.to_pixels(
            Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image), input_shape
        )
        counter.add(1)
    return fitted


def _read_items(data: Any, input_shape: tuple[int, int, int], counter: _Counter) -> Split:
    """Read every (Pillow image, label) of a torchvision data set."""
    channels, height, width = input_shape
    images = np.empty((len(data), height, width, channels), dtype=np.uint8)
    labels = np.empty(len(data), dtype=np.int64)
    for place in range(len(data)):
        image, labels[place] = data[place]
        images[place] = pixels.to_pixels(image, input_shape)
        counter.add(1)
    return Split(images, labels)
