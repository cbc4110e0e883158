"""A PyTorch module as evaluation sees it: logits, and the features in front of its last linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clue_mobile import training
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.metrics import BATCH, Predict
from clue_mobile.spec import ModelSpec

Images = npt.NDArray[np.uint8]

PART = 128
"""Images that go through the module at once: with 512, ResNet-20's activations leave the cache, and an image
takes twice as long."""


def to_input(images: Images, spec: ModelSpec) -> Tensor:
    """Images uint8 [N, H, W, C] as the module takes them: normalised float32 [N, C, H, W]."""
    return training.to_input(torch.from_numpy(np.ascontiguousarray(images)), spec)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in eval mode; afterwards each of its layers is in the mode that it was in."""
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        yield module
    finally:
        for layer in training:
            layer.training = True


def run_once(module: nn.Module, spec: ModelSpec, handles: Sequence[Any]) -> None:
    """One black image through the module in eval mode, for the hooks of `handles`, which are then removed."""
    try:
        with torch.no_grad(), evaluating(module):
            module(torch.zeros(1, *spec.input_shape))
    finally:
        for handle in handles:
            handle.remove()


def predictor(module: nn.Module, spec: ModelSpec) -> Predict:
    """The module as a function from images to logits, in eval mode, without gradients."""

    def predict(images: Images) -> npt.NDArray[np.float32]:
        with torch.no_grad(), evaluating(module):
            parts = to_input(images, spec).split(PART)
            return torch.cat([module(part).float() for part in parts]).numpy()

    return predict


def final_linear(module: nn.Module, spec: ModelSpec) -> nn.Linear:
    """The last linear layer that a forward pass runs through, the one that gives the logits.

    Raises ClueError where there is none: such a model has no features of its own to look at.
    """
    seen: list[nn.Linear] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        wide = isinstance(layer, nn.Linear) and layer.out_features >= spec.num_classes
        if isinstance(layer, nn.Linear) and wide and inputs and inputs[0].ndim == 2:
            seen.append(layer)

    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    run_once(module, spec, [layer.register_forward_pre_hook(note) for layer in linear])
    if not seen:
        raise ClueError(
            f"{spec.model} has no linear layer (torch.nn.Linear) that gives its {spec.num_classes} logits, "
            "so its penultimate features cannot be found; leave the linear probe out"
        )
    return seen[-1]


def features(module: nn.Module, spec: ModelSpec, images: Images) -> npt.NDArray[np.float32]:
    """The input [N, D] of the last linear layer for images [N, H, W, C]; ClueError as `final_linear`."""
    layer = final_linear(module, spec)
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0].detach().float())

    handle = layer.register_forward_pre_hook(keep)
    predict = predictor(module, spec)
    try:
        for start in range(0, len(images), BATCH):
            predict(images[start : start + BATCH])
    finally:
        handle.remove()
    return torch.cat(found).numpy() if found else np.empty((0, layer.in_features), np.float32)
