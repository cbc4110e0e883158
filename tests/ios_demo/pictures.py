"""Writes the pictures that ClueAppleTests reads: `python tests/ios_demo/pictures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "ios_demo/Tests/ClueAppleTests/Pictures"

pixels = (np.arange(7 * 13 * 3).reshape(7, 13, 3) * 37 % 256).astype(np.uint8)
image = Image.fromarray(pixels)
FOLDER.mkdir(exist_ok=True)
image.save(FOLDER / "rgb.png")
image.save(FOLDER / "rgb.jpg", quality=90)
image.save(FOLDER / "progressive.jpg", quality=90, progressive=True)
image.convert("L").save(FOLDER / "grey.jpg", quality=90)
image.convert("CMYK").save(FOLDER / "cmyk.jpg", quality=90)
