"""How far JPEG decoders may be apart: the figures of contract/resize.md."""

from __future__ import annotations

import io
from typing import Any

import jpeg_reference
import numpy as np
import pytest
from PIL import Image

from pi_runtime.images import decode
from pi_runtime.images.resize import resize


def noise() -> Any:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def smooth() -> Any:
    """As photos are: slow changes and a little noise."""
    y, x = np.mgrid[:96, :96]
    waves = [128 + 90 * np.sin(x / 9 + y / 17), 128 + 80 * np.cos(y / 11), 128 + 100 * np.sin((x - y) / 13)]
    return np.clip(np.dstack(waves) + np.random.default_rng(0).normal(0, 4, (96, 96, 3)), 0, 255).astype(
        np.uint8
    )


@pytest.mark.parametrize(("picture", "subsampling", "apart", "apart_resized"), [
    (noise, 0, 3, 1), (smooth, 0, 3, 1),  # all planes whole: rounding alone
    (noise, 2, 100, 3), (smooth, 2, 20, 2),  # chroma halved: how it is enlarged is the decoder's choice
])  # fmt: skip
@pytest.mark.parametrize("quality", [95, 60])
def test_decoders_differ_by_no_more_than_the_contract_says(
    picture: Any, subsampling: int, apart: int, apart_resized: int, quality: int
) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    ours = decode.decode(stream, "it", "RGB")
    plain = jpeg_reference.decode(stream.getvalue())
    assert abs(ours.astype(int) - plain).max() <= apart
    assert abs(resize(ours, 8, 8).astype(int) - resize(plain, 8, 8)).max() <= apart_resized
    # Neither decoder is just near grey: both are near the picture.
    assert abs(plain.astype(int) - picture()).mean() < (60 if picture is noise else 8)
