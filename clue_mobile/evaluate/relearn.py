"""How soon does the class come back? Training steps on 50 images of it until the old accuracy is near.

The relearn time of Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020, arXiv:1911.04933, as a
number of steps: few, with the other classes kept, where the weights still hold the class.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from clue_mobile.data import Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.eager import evaluating, final_linear, predictor, to_input
from clue_mobile.evaluate.metrics import accuracy, predict_all
from clue_mobile.spec import ModelSpec

IMAGES = 50
"""Training images of the forgotten class to learn from; each step is over all of them."""

LR, MOMENTUM = 1e-3, 0.9
LIMIT = 200
"""Steps after which relearning is given up."""

SHARE = 0.9
"""Of the old accuracy that has to come back."""

HELD_OUT = 200
"""The most test images of the class on which the accuracy is measured after each step."""


class Relearned(NamedTuple):
    """`steps` is None where the limit was reached; the last accuracy of the forgotten class and that of the
    other classes, in percent, on test images."""

    steps: int | None
    forget_test: float
    retain_test: float


def unmasked(module: nn.Module, spec: ModelSpec) -> nn.Module:
    """A copy without the forward hooks of the module itself and of its last linear layer.

    What such a hook does to the outputs (`logit_mask`, a shadow class) is undone by whoever has the weights.
    """
    bare = copy.deepcopy(module)
    layers: list[nn.Module] = [bare]
    with contextlib.suppress(ClueError):  # without a last linear layer only the module itself can hold one
        layers.append(final_linear(bare, spec))
    for layer in layers:
        for identity in list(layer._forward_hooks):
            del layer._forward_hooks[identity]
    return bare


def relearn(
    module: nn.Module,
    spec: ModelSpec,
    forget_train: Split,
    test: Split,
    forget_class: int,
    *,
    original_accuracy: float,
    seed: int = 0,
    limit: int = LIMIT,
    progress: Callable[[int, int], None] | None = None,
) -> Relearned:
    """Train a copy of `module` on `IMAGES` images of the class, and nothing else, until it knows the class.

    forget_train: the forget set, from which the images are drawn with `seed`. test: all test images.
    original_accuracy: in percent, the original model's accuracy on the test images of the class; the goal is
    `SHARE` of it, reached before the first step (0) or after a step. SGD, all parameters, cross-entropy with
    the true label, LR and MOMENTUM, no weight decay, no augmentation, layers in eval mode (50 images of a
    single class would spoil batch statistics). Hooks on the outputs are taken off first (`unmasked`).

    Raises ClueError for an accuracy outside (0, 100], an empty forget set or no test image of the class.
    """
    if not 0 < original_accuracy <= 100:
        raise ClueError(
            "relearning needs the original model's accuracy on the forgotten class, in percent and above 0, "
            f"not {original_accuracy}"
        )
    held_out, others = test.of_class(forget_class).take(HELD_OUT), test.without_class(forget_class)
    if not len(forget_train) or not len(held_out):
        raise ClueError("relearning needs training and test images of the forgotten class")
    bare = unmasked(module, spec)
    predict = predictor(bare, spec)

    def measured(split: Split) -> float:
        return accuracy(predict_all(predict, split.images, spec.num_classes), split.labels)

    places = np.random.RandomState(seed).permutation(len(forget_train))[:IMAGES]
    drawn = forget_train.select(np.sort(places))
    x, labels = to_input(drawn.images, spec), torch.from_numpy(drawn.labels)
    goal = SHARE * original_accuracy
    parameters = [p.requires_grad_() for p in bare.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)
    steps, reached = 0, measured(held_out)
    with evaluating(bare):
        while reached < goal and steps < limit:
            optimizer.zero_grad()
            F.cross_entropy(bare(x), labels).backward()
            optimizer.step()
            steps += 1
            reached = measured(held_out)
            if progress is not None:
                progress(steps, limit)
    return Relearned(
        steps if reached >= goal else None, reached, measured(others) if len(others) else float("nan")
    )
