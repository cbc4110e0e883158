"""The picture of maps: its size, that each panel shows something, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clue_mobile.errors import ClueError
from clue_mobile.report.maps import MAX_ROWS, Look, Shown, maps_picture


def row(channels: int = 3, forgotten: bool = True, heat: float = 1.0) -> Shown:
    image = np.random.RandomState(0).randint(0, 256, (8, 8, channels), dtype=np.uint8)
    ramp = heat * np.linspace(0, 1, 64).reshape(8, 8)
    return Shown(image, "a$b", forgotten, Look(ramp, "a$b", 0.9, 0.9), Look(ramp[::-1], "other", 0.6, 0.01))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "maps.png"
    assert maps_picture(path, [row(), row(1, False)], title="T", kind="Grad-CAM", note="small print") == path
    assert [p.name for p in path.parent.iterdir()] == ["maps.png"]
    found = pixels(path)
    assert found.shape == (784, 918, 3)
    thirds = np.array_split(found[:, 30:-30], 3, axis=1)
    colourful = [int((np.ptp(third, axis=2) > 40).sum()) for third in thirds]
    assert all(count > 3000 for count in colourful)
    orange, blue = ((found == colour).all(axis=-1).sum() for colour in ((213, 94, 0), (0, 114, 178)))
    assert orange > 500 < blue  # frames and names of the forgotten and of the retained class
    # before and after are the same map upside down, over one image: not the same picture
    before, after = thirds[1], thirds[2]
    width = min(before.shape[1], after.shape[1])
    assert np.abs(before[:, :width] - after[:, :width]).mean() > 5


def test_a_map_that_is_zero_is_drawn_as_nothing(tmp_path: Path) -> None:
    zero = maps_picture(tmp_path / "zero.png", [row(heat=0.0)], title="T", kind="k")
    some = maps_picture(tmp_path / "some.png", [row(heat=1e-9)], title="T", kind="k")
    bright = [int((pixels(path)[:, 350:].mean(axis=2) > 100).sum()) for path in (zero, some)]
    assert bright[1] > bright[0] + 20_000  # a map that is anywhere above zero reaches the light end


def test_what_is_refused(tmp_path: Path) -> None:
    good = row()
    small = dataclasses.replace(good, after=Look(np.zeros((4, 4)), "a", 1, 1))
    wild = dataclasses.replace(good, before=Look(np.full((8, 8), np.nan), "a", 1, 1))
    for rows, message in (
        ([], "takes 1 to 24 images, not 0"),
        ([good] * (MAX_ROWS + 1), "takes 1 to 24 images, not 25"),
        ([good, small], r"a map of \[4, 4\] does not lie over an image of \[8, 8, 3\]"),
        ([wild], "a map is not all finite"),
    ):
        with pytest.raises(ClueError, match=message):
            maps_picture(tmp_path / "p.png", rows, title="T", kind="k")
    assert not (tmp_path / "p.png").exists()
