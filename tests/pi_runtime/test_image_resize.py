from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resize_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pi_runtime import ClueError
from pi_runtime.images import resize

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[2] / "contract" / "resize" / "golden.json").read_text(encoding="utf-8")
)


def unpacked(text: str, height: int, width: int, channels: int) -> Any:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, channels)


def golden_input(case: dict[str, Any]) -> Any:
    height, width, channels = case["height"], case["width"], case["channels"]
    if "input" in case:
        return unpacked(case["input"], height, width, channels)
    y, x, c = np.ogrid[:height, :width, :channels]
    return ((31 * y + 17 * x * x + 101 * c + x * y) % 256).astype(np.uint8)


@pytest.mark.parametrize("case", GOLDEN["images"], ids=lambda case: case["name"])
def test_the_known_answers(case: dict[str, Any]) -> None:
    given_ = golden_input(case)
    assert hashlib.sha256(given_.tobytes()).hexdigest() == case["input_sha256"]
    height, width = case["to_height"], case["to_width"]
    expected = unpacked(case["output"], height, width, case["channels"])
    assert np.array_equal(resize.fit(given_, height, width, case["fit"]), expected)
    plain = given_.tolist()
    if given_.size < 10_000:  # plain Python on all of the large ones takes seconds
        if case["fit"] == "center-crop":
            plain = reference.centre_crop(plain, height, width)
        assert reference.resize(plain, height, width) == expected.tolist()


def test_the_known_weights() -> None:
    for case in GOLDEN["weights"]:
        for (first, taps), expected in zip(
            resize.weights(case["n"], case["m"]), case["weights"], strict=True
        ):
            full = np.zeros(case["n"], np.int64)
            full[first : first + len(taps)] = taps
            assert full.tolist() == expected


sides = st.integers(1, 20)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sides, sides, sides, sides, st.sampled_from([1, 3]), st.integers(0, 2**32), st.booleans())
def test_it_is_the_text_of_the_contract(
    rows: int, columns: int, height: int, width: int, channels: int, seed: int, crop: bool
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, channels), np.uint8)
    plain = reference.centre_crop(pixels.tolist(), height, width) if crop else pixels.tolist()
    found = resize.fit(pixels, height, width, "center-crop" if crop else "stretch")
    assert found.tolist() == reference.resize(plain, height, width)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_it_is_the_triangle_filter_within_a_rounding(
    rows: int, columns: int, height: int, width: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 1), np.uint8)
    exact = reference.exact(pixels.tolist(), height, width)
    found = resize.resize(pixels, height, width)
    # Half a step, and what weights rounded to 2^-16 can add: at most 24 taps of 255.
    assert max(abs(float(a) - b) for a, b in zip(np.ravel(exact), found.ravel().tolist(), strict=True)) < 0.7


@pytest.mark.parametrize(("n", "m"), [(1, 1), (65_535, 1), (1, 300), (65_535, 3), (4_000, 224), (777, 776)])
def test_weights_are_shares(n: int, m: int) -> None:
    for first, taps in resize.weights(n, m):
        assert taps.sum() == 65_536
        assert taps.min() >= 0
        assert first >= 0
        assert first + len(taps) <= n


def test_it_is_near_the_resize_of_pillow() -> None:
    """Models were trained on images that Pillow had resized."""
    noise = np.random.default_rng(0).integers(0, 256, (301, 447, 3), np.uint8)
    for width, height in ((32, 32), (224, 224), (500, 640)):
        pillow = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR), int)
        assert abs(resize.resize(noise, height, width) - pillow).max() <= 1


def test_the_chunks_of_a_large_image_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 90, 3), np.uint8)
    whole = resize.resize(noise, 3, 4)
    monkeypatch.setattr(resize, "_AT_ONCE", 1000)
    assert np.array_equal(resize.resize(noise, 3, 4), whole)


def test_white_stays_white_and_black_black() -> None:
    for value in (0, 255):
        assert (resize.resize(np.full((999, 1001, 3), value, np.uint8), 31, 64) == value).all()


def test_a_side_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ClueError, match="a side of 65536 pixels"):
        resize.resize(np.zeros((65_536, 1, 1), np.uint8), 4, 4)
