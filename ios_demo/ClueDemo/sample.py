"""Makes what the demo app carries, in Sample/ beside this file: a bundle and examples of each digit.

It needs the repository's environment (`make sample-ios`). The examples are digits that the classifier was
trained on: forgetting them is what the method is for.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from clue_mobile import data, models, training
from clue_mobile.export import ExportRecipe, export
from clue_mobile.study.demo import HYPERPARAMETERS, TRAINING

EXAMPLES = 64
FOLDER = Path(__file__).resolve().parent / "Sample"


def main(out: Path = FOLDER) -> None:
    """Train, export, write the examples; those that stood in `out` are replaced."""
    spec = models.resolve_spec("digits_cnn")
    digits = data.load("digits", input_shape=spec.input_shape, classes=spec.classes)
    for old in (out / "digits.clue", out / "images"):
        shutil.rmtree(old, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    module = models.load(spec, None, seed=TRAINING.seed)
    training.train(module, spec, digits.train.images, digits.train.labels, TRAINING)
    # the target host leaves runtime/ out: the app has the package already
    recipe = ExportRecipe(target="host", runtimes=("onnx", "coreml"), hyperparameters=HYPERPARAMETERS)
    export(
        module, spec, out / "digits.clue", recipe, progress=lambda name, i, n: print(f"export {i}/{n} {name}")
    )
    for label, name in enumerate(spec.classes):
        folder = out / "images" / name
        folder.mkdir(parents=True)
        for number, pixels in enumerate(digits.train.of_class(label).images[:EXAMPLES]):
            Image.fromarray(np.squeeze(pixels)).save(folder / f"{number:02}.png")
    print(f"wrote {out}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
