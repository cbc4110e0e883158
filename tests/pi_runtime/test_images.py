from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pi_runtime import Bundle, ClueError
from pi_runtime.images import Reader, batched


@pytest.fixture
def color(opened_bundle: Bundle) -> Bundle:
    """The toy as a model of 6 x 8 colour images (height x width)."""
    return dataclasses.replace(opened_bundle, input_shape=(3, 6, 8), color="RGB")


def one(path: Path, bundle: Bundle) -> Any:
    (source,) = Reader([path], bundle)
    assert source.images.dtype == np.uint8
    return source.images[0]


def test_pixels_of_the_right_size_are_untouched(tmp_path: Path, color: Bundle) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(one(tmp_path / "a.png", color), pixels)


def test_gray_models_get_one_channel(tmp_path: Path, opened_bundle: Bundle) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.png")
    found = one(tmp_path / "a.png", opened_bundle)
    assert found.shape == (4, 4, 1)
    assert np.all(found == 76)


def test_gray_images_become_colour(tmp_path: Path, color: Bundle) -> None:
    Image.new("L", (8, 6), 9).save(tmp_path / "a.png")
    assert np.all(one(tmp_path / "a.png", color) == 9)


def test_exif_orientation_is_applied(tmp_path: Path, color: Bundle) -> None:
    image = Image.new("RGB", (6, 8))
    image.paste((255, 255, 255), (0, 0, 6, 1))  # the top row
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the top becomes the right
    image.save(tmp_path / "a.png", exif=exif)
    found = one(tmp_path / "a.png", color)
    assert found.shape == (6, 8, 3)
    assert np.all(found[:, -1] == 255)
    assert np.all(found[:, :-1] == 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_black(tmp_path: Path, color: Bundle, mode: str) -> None:
    image = Image.new("RGBA", (8, 6), (200, 200, 200, 255))
    image.paste((200, 200, 200, 0), (0, 0, 4, 6))
    image.convert(mode).save(tmp_path / "a.png")
    found = one(tmp_path / "a.png", color)
    assert np.all(found[:, :4] == 0)
    assert np.all(found[:, 4:] == 200)


def test_shrinking_averages(tmp_path: Path, color: Bundle) -> None:
    stripes = np.zeros((60, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    found = one(tmp_path / "a.png", color).astype(int)
    assert found.shape == (6, 8, 3)
    assert abs(found - 100).max() <= 12  # no stripe survives


def test_folders_are_read_in_order_with_their_subfolders(tmp_path: Path, color: Bundle) -> None:
    for number, name in enumerate(("b/1.PNG", "a.jpg", "c.png", "notes.txt")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.new("RGB", (8, 6), (number,) * 3).save(path)
    names = [Path(source.names[0]).name for source in Reader([tmp_path], color)]
    assert names == ["a.jpg", "1.PNG", "c.png"]


def test_single_files_are_put_together_and_archives_are_not(tmp_path: Path, color: Bundle) -> None:
    for name in "abcde":
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.png")
    np.savez(tmp_path / "z.npz", x=np.zeros((7, 6, 8, 3), np.uint8), y=np.arange(7) % 3)
    paths = [*sorted(tmp_path.glob("*.png")), tmp_path / "z.npz"]
    sources = list(batched(Reader(paths, color), 2))
    assert [len(source.images) for source in sources] == [2, 2, 1, 7]
    assert [len(source.names) for source in sources] == [2, 2, 1, 7]
    assert sources[-1].labels is not None


@pytest.mark.parametrize("key", ["x", "images"])
def test_archives(tmp_path: Path, opened_bundle: Bundle, key: str) -> None:
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    path = tmp_path / "a.npz"
    np.savez(path, **{key: pixels, "y": np.array([2, 0], np.uint8)})
    (source,) = Reader([path], opened_bundle)
    assert np.array_equal(source.images[..., 0], pixels)
    assert source.labels is not None
    assert source.labels.tolist() == [2, 0]
    assert source.names == (f"{path}[0]", f"{path}[1]")


GOOD = np.zeros((2, 6, 8, 3), np.uint8)


@pytest.mark.parametrize(("arrays", "message"), [
    ({"pixels": GOOD}, "neither x nor images .it has pixels"),
    ({"x": GOOD.astype(np.float32)}, r"x is float32 \[2, 6, 8, 3\], it must be uint8 \[N, 6, 8, 3\]"),
    ({"x": GOOD[:, :5]}, r"x is uint8 \[2, 5, 8, 3\]"),
    ({"x": GOOD[..., 0]}, r"x is uint8 \[2, 6, 8\]"),
    ({"x": GOOD, "y": np.zeros(3, int)}, r"y is int64 \[3\]"),
    ({"x": GOOD, "y": np.zeros(2)}, r"y is float64 \[2\]"),
    ({"x": GOOD[:0]}, "a.npz has no images"),
    ({"x": np.array([None])}, "a.npz is no readable .npz archive"),
])  # fmt: skip
def test_archives_that_do_not_fit(
    tmp_path: Path, color: Bundle, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ClueError, match=message):
        list(Reader([tmp_path / "a.npz"], color))


def test_files_that_are_no_images_are_named(tmp_path: Path, color: Bundle) -> None:
    Image.effect_noise((80, 60), 90).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    Image.new("F", (8, 6)).save(tmp_path / "deep.tif")
    for name, message in (
        ("cut.png", "cannot read the image .*cut.png"),
        ("text.png", "text.png is no image"),
        ("text.npz", "text.npz is no readable .npz archive"),
        ("gone.png", "gone.png does not exist"),
        ("empty", "empty has no images"),
        ("deep.tif", r"deep.tif has pixels of another kind \(F\)"),
    ):
        with pytest.raises(ClueError, match=message):
            list(Reader([tmp_path / name], color))
