"""SISA: an ensemble trained so that forgetting is cheap and exact: only what saw the samples is made anew.

The training images are split into shards, each with a model of its own, and each shard into slices: a model
is trained on slice 1, then on slices 1 and 2, and so on, and its weights after every slice are kept. To
forget, the shards with forgotten images go on from the weights before the first slice that has one. Not in
METHODS, since its original model is another one: its rows have an original and a retrained reference of
their own (`block`). A whole class has images in the first slice of every shard: then SISA is plain
retraining.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clue_mobile import training
from clue_mobile.errors import ClueError
from clue_mobile.methods import retrain
from clue_mobile.methods.config import COUNT
from clue_mobile.spec import ModelSpec
from pi_runtime import rng

TITLE = "SISA"
SOURCE = "Bourtoule et al., Machine Unlearning, IEEE S&P 2021, arXiv 1912.03817"
RETAIN = "the retained images of each shard that held a forgotten one"

Array = np.ndarray[Any, Any]
Told = Callable[[int, int], None]
"""Called with (slices trained, slices to train)."""

LEAST_VOTE, LEAST_PROBABILITY = 1e-6, 1e-12  # so that logits are finite


@dataclass(frozen=True)
class Config(retrain.Config):
    """Hyperparameters of SISA: those of training and the shards.

    shards, slices: 1 and 1 in the public code, which is plain retraining; its experiments name their own.
    aggregate: "vote" for the share of models that answer with a class (the public code's default), "mean" for
    the mean of their probabilities (the paper's other choice; differentiable). epochs: in all, as many image
    passes as plain training with this number: each slice gets 2 epochs / (slices + 1), as in the paper.
    """

    shards: int = 5
    slices: int = 3
    aggregate: Literal["vote", "mean"] = "vote"

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **retrain.Config.LIMITS,
        "shards": COUNT,
        "slices": COUNT,
    }

    def slice_epochs(self, number: int) -> int:
        """Epochs of slice `number` (from 0); over all slices they add up to what `epochs` says."""
        each = 2 * self.epochs / (self.slices + 1)
        return int((number + 1) * each) - int(number * each)


class Cost(NamedTuple):
    """What a training cost: seconds, image passes (images times epochs), slices and shards trained."""

    seconds: float
    images: int
    slices: int
    shards: int


class SisaModel(nn.Module):
    """The ensemble. slices: positions in the training set, by shard and slice. kept: bool [N], which images
    it may still learn from. checkpoints: by shard, the weights after each slice."""

    def __init__(self, module: nn.Module, slices: list[list[Array]], kept: Array, config: Config) -> None:
        super().__init__()
        self.models = nn.ModuleList(copy.deepcopy(module) for _ in slices)
        self.slices, self.kept, self.config = slices, kept, config
        self.checkpoints: list[list[dict[str, Tensor]]] = [[] for _ in slices]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images: the logarithm of the share of votes, or of the mean
        probability."""
        outputs = torch.stack([model(x) for model in self.models])
        if self.config.aggregate == "mean":
            return outputs.softmax(2).mean(0).clamp_min(LEAST_PROBABILITY).log()
        votes = F.one_hot(outputs.argmax(2), outputs.shape[2]).to(outputs.dtype)
        return votes.mean(0).clamp_min(LEAST_VOTE).log()


def train(
    module: nn.Module,
    spec: ModelSpec,
    images: Array,
    labels: Array,
    config: Config,
    *,
    seed: int = 0,
    without: Array | None = None,
    progress: Told | None = None,
) -> tuple[SisaModel, Cost]:
    """Train an ensemble of new models of the architecture of `module` (which stays as it is) and `spec`.

    images: uint8 [N, H, W, C], labels: int64 [N]. `seed` decides the shards and every training. without: bool
    [N], images that have their place in a shard but are left out. Raises ClueError for more slices than
    images.
    """
    if len(images) < config.shards * config.slices:
        raise ClueError(
            f"{len(images)} images are too few for {config.shards} shards of {config.slices} slices: "
            "take fewer of them"
        )
    order = rng.permutation(seed, 0, len(images))
    slices = [_sliced(shard, config.slices) for shard in np.array_split(order, config.shards)]
    left_out = np.zeros(len(images), bool) if without is None else _mask(without, len(images))
    model = SisaModel(module, slices, ~left_out, config)
    first = dict.fromkeys(range(config.shards), 0)
    return model, _train(model, spec, images, labels, first, seed, progress)


def forget(
    model: SisaModel,
    spec: ModelSpec,
    images: Array,
    labels: Array,
    forgotten: Array,
    *,
    seed: int = 0,
    progress: Told | None = None,
) -> tuple[SisaModel, Cost]:
    """A new ensemble that never saw the images that `forgotten` (bool [N]) picks, and what it cost.

    images, labels, seed: those that `model`, which stays as it is, was trained with. The weights are those of
    a training of the same seed without these images, bit for bit.
    """
    gone = _mask(forgotten, len(images)) & model.kept
    new = copy.deepcopy(model)
    new.kept = model.kept & ~gone
    first = {}
    for number, slices in enumerate(model.slices):
        touched = [place for place, positions in enumerate(slices) if gone[positions].any()]
        if touched:
            first[number] = touched[0]
    return new, _train(new, spec, images, labels, first, seed, progress)


def _sliced(shard: Array, slices: int) -> list[Array]:
    """Equal parts of a shard; the last also has what is left over, as in the public code."""
    size = len(shard) // slices
    return np.split(shard, [size * (number + 1) for number in range(slices - 1)])


def _mask(given: Array, number: int) -> Array:
    if given.dtype != bool or given.shape != (number,):
        raise ClueError(
            f"the forget set must be a bool array of shape [{number}], one for each training image, not "
            f"{given.dtype} {list(given.shape)}"
        )
    return given


def _train(
    model: SisaModel,
    spec: ModelSpec,
    images: Array,
    labels: Array,
    first: Mapping[int, int],
    seed: int,
    progress: Told | None,
) -> Cost:
    """Train each shard of `first` from its slice of that number on."""
    began, passes, done = time.perf_counter(), 0, 0
    todo = sum(model.config.slices - number for number in first.values())
    for shard, start in first.items():
        module, saved = model.models[shard], model.checkpoints[shard]
        del saved[start:]
        if saved:
            module.load_state_dict(saved[-1])
        else:
            retrain.restart(module, spec, _seed(seed, shard))
        for number in range(start, model.config.slices):
            positions = np.concatenate(model.slices[shard][: number + 1])
            positions = positions[model.kept[positions]]
            epochs = model.config.slice_epochs(number)
            if epochs and len(positions) > 1:  # of one image there are no batch statistics
                recipe = model.config.recipe(_seed(seed, shard, number), epochs=epochs)
                training.train(module, spec, images[positions], labels[positions], recipe)
                passes += epochs * len(positions)
            saved.append({name: t.detach().clone() for name, t in module.state_dict().items()})
            done += 1
            if progress is not None:
                progress(done, todo)
    model.eval()
    return Cost(time.perf_counter() - began, passes, todo, len(first))


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
