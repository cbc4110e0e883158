"""The crop and flip on pixels: by hand, and against an ordinary padded crop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi_runtime.augment import crop_flip
from pi_runtime.errors import ClueError
from pi_runtime.rng import augmentation


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, shape).astype(np.uint8)


def padded_crop(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, flip: np.ndarray, pad: int) -> np.ndarray:
    """The plain way: pad everything, slice, mirror."""
    height, width = x.shape[1:3]
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cut = [w[a : a + height, b : b + width] for w, a, b in zip(wide, dy, dx, strict=True)]
    return np.stack([c[:, ::-1] if f else c for c, f in zip(cut, flip, strict=True)])


def test_by_hand() -> None:
    x = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3, 1)  # rows 1 2 3 and 4 5 6

    def run(dy: int, dx: int, flip: bool) -> list[list[int]]:
        out = crop_flip(x, np.array([dy]), np.array([dx]), np.array([flip]), pad=1)
        return out[0, :, :, 0].tolist()

    assert run(1, 1, False) == [[1, 2, 3], [4, 5, 6]]
    assert run(0, 1, False) == [[0, 0, 0], [1, 2, 3]]
    assert run(1, 2, False) == [[2, 3, 0], [5, 6, 0]]
    assert run(1, 2, True) == [[0, 3, 2], [0, 6, 5]]
    assert run(2, 0, True) == [[5, 4, 0], [0, 0, 0]]


@pytest.mark.parametrize("shape", [(40, 8, 8, 3), (40, 6, 9, 1), (40, 3, 2, 4)])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_equals_a_padded_crop(shape: tuple[int, ...], pad: int) -> None:
    """With pad 4 on the smallest shape, some crops lie in the padding altogether."""
    x = images(*shape)
    before = x.copy()
    draw = augmentation(5, 1, np.arange(40), pad)
    out = crop_flip(x, *draw, pad)
    assert out.dtype == np.uint8
    assert np.array_equal(out, padded_crop(x, *draw, pad))
    assert np.array_equal(x, before)
    assert not np.shares_memory(out, x)


def test_empty_batch() -> None:
    assert crop_flip(images(0, 4, 4, 3), *augmentation(1, 0, [])).shape == (0, 4, 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((1, 4, 4, 3), np.float32)}, "images must be uint8"),
        ({"images": np.zeros((4, 4, 3), np.uint8)}, "images must be uint8"),
        ({"pad": -1}, "pad must not be negative"),
        ({"dy": np.array([9])}, "dy must be from 0 to 8"),
        ({"dx": np.array([-1])}, "dx must be from 0 to 8"),
        ({"dx": np.array([0, 0])}, "dx must be one whole number for each of the 1 images"),
        ({"dy": np.array([0.0])}, "dy must be one whole number"),
        ({"flip": np.array([1])}, "flip must be one true or false"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "images": images(1, 4, 4, 3),
        "dy": np.array([4]),
        "dx": np.array([4]),
        "flip": np.array([True]),
    }
    assert np.array_equal(crop_flip(**good), good["images"][:, :, ::-1])
    with pytest.raises(ClueError, match=message):
        crop_flip(**(good | change))
