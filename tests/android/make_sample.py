"""Writes what ships with the demo app: the digits bundle, and images of each digit to try it with.

    python tests/android/make_sample.py [--demo demo_out] [--out android_demo/sample]

OUT/digits.clue is exported from the weights that `clue-mobile demo` trained (it is run where they are
missing); OUT/samples/CLASS has PNGs. Gradle packs OUT into the app's assets.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image

from clue_mobile import data, models
from clue_mobile.export import ExportRecipe, export
from clue_mobile.study import demo

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 64
"""Of each class."""


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "demo_out", help="the folder of `make demo`")
    parser.add_argument("--out", type=Path, default=ROOT / "android_demo" / "sample")
    options = parser.parse_args()
    weights = options.demo / "digits-seed0.safetensors"
    if not weights.exists():
        demo.run_demo(options.demo, "3", 0, tell=print)
    shutil.rmtree(options.out, ignore_errors=True)
    spec = models.resolve_spec("digits_cnn")
    recipe = ExportRecipe(target="android", runtimes=("onnx",), hyperparameters=demo.HYPERPARAMETERS)
    export(models.load(spec, weights), spec, options.out / "digits.clue", recipe)
    digits = data.load("digits", input_shape=spec.input_shape, classes=spec.classes)
    for label, name in enumerate(spec.classes):
        folder = options.out / "samples" / name
        folder.mkdir(parents=True)
        for index, image in enumerate(digits.train.of_class(label).images[:IMAGES]):
            Image.fromarray(image[..., 0]).save(folder / f"{index:02}.png")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
