"""What a classifier answers to the noisy images that CLUE's teacher sees, class by class.

python noise_answers.py --model resnet20 --data cifar10_images.zip --weights whole.safetensors

CLUE pulls the model's answers on forget images to its own answers on the same images with noise. Where those
are the class itself, there is nothing to pull to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from clue_mobile import data, methods, models
from clue_mobile.flat import FlatModel
from clue_mobile.methods.clue import Config, noisy

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
    model = FlatModel(models.load(spec, options.weights).eval(), spec)
    state = model.pack()
    config = methods.configure("clue", {})
    assert isinstance(config, Config)
    torch.manual_seed(0)
    for label, name in enumerate(spec.classes):
        images = torch.from_numpy(dataset.train.of_class(label).images[:IMAGES])
        x = images.permute(0, 3, 1, 2).float() / 255
        sigma = torch.empty(len(x)).uniform_(config.sigma_low, config.sigma_high)
        with torch.no_grad():
            answers = model.predict(state, noisy(x, torch.randn_like(x), sigma)).argmax(1)
        shares = 100 * np.bincount(answers.numpy(), minlength=len(spec.classes)) / len(x)
        told = ", ".join(
            f"{spec.classes[k]} {shares[k]:.0f} %" for k in np.argsort(-shares) if shares[k] >= 3
        )
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()
