"""Fisher forgetting: noise on every weight, the more the less the retain set needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile.flat import Entry, FlatModel
from clue_mobile.methods import Samples, Watch, needed
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.config import COUNT, POSITIVE, Checked
from clue_mobile.methods.gradients import fisher_diagonal
from clue_mobile.spec import ModelSpec
from pi_runtime import rng

TITLE = "Fisher"
SOURCE = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020, arXiv 1911.04933"
RETAIN = "all retained training images (their Fisher information, one image at a time)"

Array = np.ndarray[Any, Any]

NOISE = rng.STREAM_METHOD  # random stream
EPSILON = 1e-8  # added to the Fisher information: a weight that no image needs has none
HIGHEST, HIGHEST_HEAD = 1e3, 1e2  # of 1 / F, in the code
ERASED = 1e-4  # variance of a deleted class's weights, before the factor of their layer
FACTOR = 10.0  # of the variance of the last layer and of vectors (biases, batch norm)


@dataclass(frozen=True)
class Config(Checked):
    """Hyperparameters of Fisher forgetting.

    alpha: how much noise; 1e-6 in the authors' notebook. samples: at most this many retain images for the
    Fisher information, drawn with the seed; 0 for all. group: images whose gradients are averaged before they
    are squared: 1 (the authors), or 32 (the port in Unlearn-Saliency), which is as many times faster.

    reading: "code" has variance alpha / F, with 1 / F at most 1,000 (100 in the last layer), averaged over
    the inputs of each weight tensor, and ten times as much in the last layer and in vectors. "paper" has
    variance sqrt(alpha / F), its alpha being the paper's lambda sigma^2. erase: the last layer's weights of a
    class that is wholly forgotten are replaced by noise of variance 0.001 (the code; reading "paper" never
    does). That alone makes the accuracy on the class 0, as a logit mask does.

    The last layer is the last weight tensor with a row for each class (the code: any tensor with as many rows
    as there are classes).
    """

    alpha: float = 1e-6
    samples: int = 0
    group: int = 1
    reading: Literal["code", "paper"] = "code"
    erase: bool = True

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "alpha": POSITIVE,
        "samples": POSITIVE,
        "group": COUNT,
    }


# the method


def head(entries: tuple[Entry, ...], classes: int) -> set[str]:
    """Names of the last layer's parameters: the last tensor [classes, ...] and the vector [classes] after
    it."""
    rows = [i for i, e in enumerate(entries) if len(e.shape) > 1 and e.shape[0] == classes]
    return {e.name for e in entries[rows[-1] :] if e.shape[0] == classes} if rows else set()


def noise(
    weight: Tensor, fisher: Tensor, config: Config, last: bool, deleted: list[int]
) -> tuple[Tensor, Tensor]:
    """(mean, variance) of a parameter's new value; fisher is its Fisher information, of the same shape.

    last: it belongs to the last layer. deleted: the classes of which nothing is retained.
    """
    if config.reading == "paper":
        return weight, torch.sqrt(config.alpha / (fisher + EPSILON))
    variance = config.alpha * (1 / (fisher + EPSILON)).clamp(max=HIGHEST_HEAD if last else HIGHEST)
    if weight.ndim > 1:
        variance = variance.mean(1, keepdim=True).expand_as(weight).clone()
    mean = weight.clone()
    if last and config.erase:
        mean[deleted], variance[deleted] = 0.0, ERASED
    return mean, variance * (FACTOR if last or weight.ndim == 1 else 1.0)


# eager


def unlearn(
    module: nn.Module,
    spec: ModelSpec,
    images: Array,
    labels: Array,
    config: Config,
    *,
    seed: int = 0,
    batch: int = 256,
    watch: Watch | None = None,
    retain: Samples | None = None,
) -> list[dict[str, float]]:
    """Add the noise in place; returns one row: mean Fisher information and mean standard deviation.

    Of the forget set only the labels are read: classes without a retained image are deleted (reading "code").
    """
    rest = needed("fisher", retain)
    model = FlatModel(module, spec)
    state = model.pack()
    data = Batches(rest.images, rest.labels, spec.num_classes, seed, "none")
    chosen = rng.permutation(seed, 0, len(rest.images))[: config.samples or None]
    fisher = fisher_diagonal(model, state, data, chosen, config.group)
    deleted = sorted(set(np.unique(labels).tolist()) - set(np.unique(rest.labels).tolist()))
    entries = tuple(entry for entry in model.entries if entry.value == "params")
    last = head(entries, spec.num_classes)
    means, variances = [], []
    weights, parts = (model.named("params", vector) for vector in (state["params"], fisher))
    for entry in entries:
        mean, variance = noise(weights[entry.name], parts[entry.name], config, entry.name in last, deleted)
        means.append(mean.reshape(-1))
        variances.append(variance.reshape(-1))
    deviation = torch.cat(variances).sqrt()
    drawn = torch.from_numpy(rng.normal(seed, NOISE, 0, [0], (len(deviation),))[0])
    state = {**state, "params": torch.cat(means) + deviation * drawn}
    row = {"epoch": 0, "step": 1, "fisher": float(fisher.mean()), "deviation": float(deviation.mean())}
    if watch is not None:
        watch(model, state, row)
    module.load_state_dict(model.state_dict(state), strict=False)
    return [row]
