"""Training a classifier from scratch: one-cycle SGD or AdamW on the CPU, resumable to the bit.

Nothing is chosen by looking at validation images: the weights are those after the last epoch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from clue_mobile.errors import ClueError, unknown
from clue_mobile.models.weights import write_atomic
from clue_mobile.spec import ModelSpec

Augment = Literal["crop_flip", "none"]
Precision = Literal["auto", "float32", "bfloat16"]
Optimizer = Literal["sgd", "adamw"]
Images = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]

PADDING = 4  # pixels on each side before the random crop
WARM_UP = 0.25  # share of the steps in which the learning rate rises
FIRST_LR = 0.04  # of the peak
BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")
CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `lr` is the peak of the one-cycle schedule; `exclude_class` leaves a class out.

    Leaving the forget class out gives the retrained reference that unlearning is measured against.

    optimizer: "sgd" with Nesterov's `momentum`, or "adamw" (Loshchilov and Hutter, 2019), whose first beta
    is `momentum`, the second 0.999, and whose weight decay is apart from the gradient: what a transformer
    needs, with an lr of about 0.001 and a weight decay of about 0.05.
    """

    epochs: int = 36
    lr: float = 0.1
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: Augment = "crop_flip"
    precision: Precision = "auto"
    optimizer: Optimizer = "sgd"
    seed: int = 0
    exclude_class: int | None = None

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("lr", 0 < self.lr < math.inf, "greater than 0"),
            ("batch", self.batch >= 2, "at least 2 (batch normalisation)"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not fits:
                raise ClueError(f"{name} must be {range_}, not {getattr(self, name)}")
        for name, choices in (("augment", Augment), ("precision", Precision), ("optimizer", Optimizer)):
            if getattr(self, name) not in get_args(choices):
                raise unknown(name, getattr(self, name), get_args(choices))


def train(
    module: nn.Module,
    spec: ModelSpec,
    images: Images,
    labels: Labels,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    validation: tuple[Images, Labels] | None = None,
) -> list[dict[str, Any]]:
    """Train `module` in place and leave it in eval mode.

    images: uint8 [N, H, W, C]; labels: int64 [N]; `spec` gives the normalisation. Every epoch takes a fresh
    order and drops its last incomplete batch, so that all batch statistics are over equally many images
    (fewer than `batch` images make one batch). Crops and horizontal flips are drawn per image.

    checkpoint: written after each epoch, whole or not at all, and continued where it exists: on the same
    machine, torch version and thread count the weights end bit-identical to an undisturbed run's. Ctrl-C
    leaves it intact, and `module` in the middle of an epoch. Named .pt, it loads as weights.
    progress: called after each epoch with its row.

    Returns a row per epoch: epoch (from 1), lr (of its last step), loss and train_accuracy (means over the
    epoch's steps, in train mode, on augmented images), validation_accuracy (in eval mode and float32, without
    the excluded class; None where no `validation` is given), seconds. Accuracies are shares in [0, 1].

    Raises ClueError for data that do not fit `spec`, a checkpoint of another run or a damaged one, and a loss
    that is not finite.
    """
    _check_data(spec, images, labels)
    included = _included(labels, config, spec)
    if validation is not None:
        _check_data(spec, *validation)
        kept = _included(validation[1], config, spec)
        if not len(kept):
            raise ClueError("validation holds no image of a class that is trained")
        validation = validation[0][kept], validation[1][kept]
    if len(included) < 2:
        raise ClueError(f"training needs at least 2 images, not {len(included)}")

    config = dataclasses.replace(config, precision=_resolve(config.precision))
    run = _identity(module, spec, images, labels, config)
    module.to(memory_format=torch.channels_last)
    optimizer = _optimizer(module, config)
    history = _resume(checkpoint, run, module, optimizer)
    for epoch in range(len(history), config.epochs):
        start = time.perf_counter()
        # Every draw of an epoch (order, crops, flips, the module's dropout) depends on seed and epoch alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_epoch_seed(config.seed, epoch))
            row = _train_epoch(module, spec, images, labels, included, config, optimizer, epoch)
        row["validation_accuracy"] = accuracy(module, spec, *validation) if validation else None
        row["seconds"] = time.perf_counter() - start
        history.append(row)
        if checkpoint is not None:
            _save(checkpoint, run, module, optimizer, history)
        if progress is not None:
            progress(dict(row))
    module.to(memory_format=torch.contiguous_format).eval()
    return history


def accuracy(module: nn.Module, spec: ModelSpec, images: Images, labels: Labels, batch: int = 256) -> float:
    """Return the share of images [N, H, W, C] that `module` classifies right; leaves it in eval mode."""
    _check_data(spec, images, labels)
    if not len(labels):
        raise ClueError("accuracy over no images is undefined")
    module.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(labels), batch):
            x = to_input(torch.tensor(images[start : start + batch]), spec)
            right += int((module(x).argmax(1) == torch.tensor(labels[start : start + batch])).sum())
    return right / len(labels)


def to_input(images: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Convert uint8 images [N, H, W, C] to normalised float32 [N, C, H, W], channels last in memory."""
    mean = torch.tensor(spec.mean).view(-1, 1, 1)
    std = torch.tensor(spec.std).view(-1, 1, 1)
    return (images.permute(0, 3, 1, 2) / 255 - mean) / std


def crop_flip(images: torch.Tensor) -> torch.Tensor:
    """Shift each image [N, H, W, C] by up to 4 pixels, black where nothing was, and mirror half of them.

    Drawn per image from torch's global generator.
    """
    number, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    rows = torch.randint(2 * PADDING + 1, (number, 1)) + torch.arange(height)
    columns = torch.randint(2 * PADDING + 1, (number, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(number, 1) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(number)[:, None, None], rows[:, :, None], columns[:, None, :]]


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of `step` (from 0): linear up to `peak`, then a half cosine towards 0."""
    warm_up = WARM_UP * steps
    if step < warm_up:
        return peak * (FIRST_LR + (1 - FIRST_LR) * step / warm_up)
    return peak * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2


def _train_epoch(
    module: nn.Module,
    spec: ModelSpec,
    images: Images,
    labels: Labels,
    included: Labels,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> dict[str, Any]:
    batch = min(config.batch, len(included))
    steps = len(included) // batch
    order = included[torch.randperm(len(included)).numpy()]
    loss_sum, right, lr = 0.0, 0, 0.0
    module.train()
    for step in range(steps):
        lr = one_cycle(epoch * steps + step, config.epochs * steps, config.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        chosen = order[step * batch : (step + 1) * batch]
        x, y = torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])
        if config.augment == "crop_flip":
            x = crop_flip(x)
        with _autocast(config):
            logits = module(to_input(x, spec))
        loss = F.cross_entropy(logits.float(), y, label_smoothing=config.label_smoothing)
        if not math.isfinite(loss.item()):
            raise ClueError(
                f"the loss became {loss.item()} in epoch {epoch + 1}; try a smaller lr than {config.lr}"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item()
        right += int((logits.argmax(1) == y).sum())
    return {
        "epoch": epoch + 1,
        "lr": lr,
        "loss": loss_sum / steps,
        "train_accuracy": right / (steps * batch),
    }


def _optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    lr, momentum, decay = config.lr, config.momentum, config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=momentum > 0, weight_decay=decay)


def _autocast(config: TrainConfig) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16")


def _resolve(precision: Precision) -> Precision:
    if precision != "auto":
        return precision
    # Without such a unit bfloat16 is emulated: over ten times slower than float32. Older torch cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if any(capabilities.get(unit) for unit in BFLOAT16_UNITS) else "float32"


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def _check_data(spec: ModelSpec, images: Images, labels: Labels) -> None:
    channels, height, width = spec.input_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise ClueError(
            f"images must be uint8 of shape [N, {height}, {width}, {channels}] for {spec.model}, "
            f"not {images.dtype} {list(images.shape)}"
        )
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ClueError(
            f"labels must be int64 of shape [{len(images)}], one per image, "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < spec.num_classes:
        raise ClueError(
            f"labels must lie in 0 to {spec.num_classes - 1}, not {labels.min()} to {labels.max()}"
        )


def _included(labels: Labels, config: TrainConfig, spec: ModelSpec) -> Labels:
    excluded = config.exclude_class
    if excluded is None:
        return np.arange(len(labels))
    if not 0 <= excluded < spec.num_classes:
        raise ClueError(f"exclude_class must lie in 0 to {spec.num_classes - 1}, not {excluded}")
    return np.flatnonzero(labels != excluded)


def _identity(
    module: nn.Module, spec: ModelSpec, images: Images, labels: Labels, config: TrainConfig
) -> dict[str, Any]:
    """Describe a run in plain values: two runs that agree in all of them end with the same weights."""
    data = hashlib.sha256(np.ascontiguousarray(images).data)
    data.update(np.ascontiguousarray(labels).data)
    initial = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        initial.update(f"{name} {list(tensor.shape)}".encode())
        initial.update(tensor.contiguous().numpy().tobytes())
    return {
        **dataclasses.asdict(config),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "data": data.hexdigest()[:16],
        "initial weights": initial.hexdigest()[:16],
    }


def _save(
    path: Path,
    run: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, Any]],
) -> None:
    content = io.BytesIO()
    torch.save(
        {
            "version": CHECKPOINT_VERSION,
            "run": run,
            "model": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
        },
        content,
    )
    write_atomic(path, content.getvalue())


def _resume(
    path: Path | None, run: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    if path is None:
        return []
    if not path.parent.is_dir():  # else the first epoch would be lost
        raise ClueError(f"no folder {path.parent} for the checkpoint")
    if not path.exists():
        return []
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ... for what it cannot read
        raise ClueError(f"{path} is damaged or not a training checkpoint; delete it to start anew") from error
    if not isinstance(saved, dict) or saved.get("version") != CHECKPOINT_VERSION:
        raise ClueError(f"{path} is not a training checkpoint of version {CHECKPOINT_VERSION}")
    differing = [name for name in run if saved["run"].get(name) != run[name]]
    if differing:
        details = ", ".join(
            f"{name} ({saved['run'].get(name)} there, {run[name]} here)" for name in differing
        )
        raise ClueError(f"{path} belongs to another run: {details}; delete it or give another path")
    module.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    history: list[dict[str, Any]] = saved["history"]
    return history
