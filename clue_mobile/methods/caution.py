"""What should be known before a method is used on a model, as far as the model alone tells it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from clue_mobile.flat import FlatModel
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.clue import NOISE, SIGMA, Config, noisy
from clue_mobile.methods.config import Checked

IMAGES, GREY = 64, 128
PART = 16  # images that go through the model at once
MOSTLY = 0.5  # share of the answers; benchmarks/methods/ablation/cifar10.md has what was seen above it


def caution(model: FlatModel, config: Checked) -> str | None:
    """A sentence for the bundle's notices, None where nothing is known against the method.

    CLUE's KL term pulls forget images to the model's own answers on noisy images: a class that is the answer
    to most noise is pulled to itself.
    """
    if not isinstance(config, Config) or not config.kl_weight:
        return None
    channels, height, width = model.spec.input_shape
    shares = noise_answers(model, config, np.full((IMAGES, height, width, channels), GREY, np.uint8))
    most = int(shares.argmax())
    if shares[most] <= MOSTLY or most >= model.spec.num_classes:
        return None
    name, share = model.spec.classes[most], 100 * float(shares[most])
    return (
        f"This model answers {name!r} to {share:.0f} % of noisy grey images, and CLUE teaches it what it "
        f"answers to noise: a request to forget {name!r} can be expected to fail its check, which keeps the "
        "old weights. The methods bs, rl and be do not depend on noise."
    )


def noise_answers(model: FlatModel, config: Config, images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Share of each output, [K], in the model's answers to images [N, H, W, C] with the noise that CLUE's
    teacher sees; seed 0."""
    data = Batches(images, np.zeros(len(images), np.int64), model.spec.num_classes, 0, "none")
    state, found = model.pack(), []
    with torch.no_grad():
        for part in np.array_split(np.arange(len(images)), -(-len(images) // PART)):
            sigma = data.uniform(SIGMA, 0, part, config.sigma_low, config.sigma_high)
            found.append(model.predict(state, noisy(data.x(0, part), data.normal(NOISE, 0, part), sigma)))
    logits = torch.cat(found)
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(images)
