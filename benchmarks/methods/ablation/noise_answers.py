"""What a classifier answers to the noisy images that CLUE's teacher sees, class by class.

python noise_answers.py --model resnet20 --data cifar10_images.zip --weights whole.safetensors

CLUE pulls the model's answers on forget images to its own answers on the same images with noise. Where those
are the class itself, there is nothing to pull to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from clue_mobile import data, models
from clue_mobile.flat import FlatModel
from clue_mobile.methods.caution import noise_answers
from clue_mobile.methods.clue import Config

IMAGES = 300  # of each class


def main() -> None:
    """Print a line for each class: the share of its noisy images that each class gets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="digits_cnn")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights", type=Path, required=True)
    options = parser.parse_args()
    spec = models.resolve_spec(options.model, weights=options.weights)
    dataset = data.load(options.data, input_shape=spec.input_shape, classes=spec.classes)
    model = FlatModel(models.load(spec, options.weights), spec)
    for label, name in enumerate(spec.classes):
        shares = 100 * noise_answers(model, Config(), dataset.train.of_class(label).images[:IMAGES]).numpy()
        told = ", ".join(
            f"{spec.classes[k]} {shares[k]:.0f} %" for k in np.argsort(-shares) if shares[k] >= 3
        )
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()
