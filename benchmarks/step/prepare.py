"""Make the arrays of a piece of work: the model's first state, one batch of images, what a step costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from work import IMAGENET, MODELS, Work, folder_of

SEED = 0


def spec_of(model: str) -> Any:
    """The model's facts as clue-mobile has them."""
    from clue_mobile import models

    entry = MODELS[model]
    if entry.reference in models.BUILTIN:
        return models.resolve_spec(entry.reference)
    mean, std = IMAGENET
    return models.resolve_spec(
        entry.reference,
        classes=[str(number) for number in range(entry.classes)],
        input_shape=entry.input_shape,
        mean=mean,
        std=std,
    )


def module_of(model: str) -> Any:
    """The untrained module, with the same weights each time."""
    from clue_mobile import models

    return models.load(spec_of(model), None, seed=SEED)


def step_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of products and convolutions, 2 per multiply-add, by PyTorch's counter.

    It does not know the CPU's fused attention, which runs as products here.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from clue_mobile.memory.flops import CORRECTED

    counter = FlopCounterMode(display=False, custom_mapping=CORRECTED)
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return int(counter.get_total_flops())


def make(cache: Path, model: str, batch: int, loss: str) -> Path:
    """Write the work's folder, where it is not there yet; returns it."""
    folder = folder_of(cache, model, batch, loss)
    if (folder / "work.json").exists():
        return folder
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    spec, module = spec_of(model), module_of(model)
    draw = np.random.default_rng(SEED)
    # each channel of each image in a range of its own: plain noise would look the same to every deep layer
    low, high = np.sort(draw.random((2, batch, spec.input_shape[0], 1, 1)), axis=0)
    x = (low + (high - low) * draw.random((batch, *spec.input_shape))).astype(np.float32)
    labels = draw.integers(0, spec.num_classes, batch)
    np.save(folder / "x.npy", x)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "onehot.npy", np.eye(spec.num_classes, dtype=np.float32)[labels])
    np.save(folder / "teacher.npy", draw.normal(size=(batch, spec.num_classes)).astype(np.float32))
    tensors = {k: t.numpy() for k, t in module.state_dict().items() if t.is_floating_point()}
    np.savez(folder / "state.npz", **tensors)
    flops = step_flops(lambda: module.train()(torch.from_numpy(x)).sum().backward())
    parameters = sum(p.numel() for p in module.parameters())
    Work(model, batch, 1, loss, folder, spec.mean, spec.std, parameters, flops).write()
    return folder
