"""Eager and compiled PyTorch: what its rows share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

from work import MODELS, MOMENTUM, Work

PACKAGES = ("torch",)
LOSSES = ("cross-entropy", "clue")


def module_of(work: Work) -> Any:
    """The module in training mode with the work's weights. Imports no more than its factory needs."""
    import importlib
    import importlib.util

    import torch

    reference, builtin = MODELS[work.model].reference, f"clue_mobile.models.{work.model}"
    source, _, name = reference.rpartition(":")
    if not source:
        module = getattr(importlib.import_module(builtin), name)()
    elif source == "torchvision":
        models = importlib.import_module("torchvision.models")
        module = models.get_model(name, weights=None, num_classes=work.classes)
    else:
        spec = importlib.util.spec_from_file_location("networks", source)
        assert spec is not None
        assert spec.loader is not None
        networks = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(networks)
        module = getattr(networks, name)(work.classes)
    state = {key: torch.from_numpy(value) for key, value in work.state().items()}
    module.load_state_dict(state, strict=False)  # counts of batches are not in it
    return module.train()


def loss_of(work: Work) -> Callable[[Any], Any]:
    """The loss as a function of the logits. "clue": energy and KL as CLUE's own file has them."""
    import torch
    from torch.nn import functional

    if work.loss == "clue":
        from clue_mobile.methods.clue import Config, losses

        teacher, config = torch.from_numpy(work.array("teacher")), Config()
        return lambda logits: losses(logits, teacher, config)[2]
    labels = torch.from_numpy(work.array("labels"))
    return lambda logits: functional.cross_entropy(logits, labels)


def setup(
    work: Work, *, channels_last: bool = False, compiled: bool = False, momentum: float = MOMENTUM
) -> Callable[[], float]:
    """A training step as PyTorch's tutorials have it; CLUE's multiplies the gradients with a mask of ones."""
    import torch

    torch.set_num_threads(work.threads)
    module, criterion = module_of(work), loss_of(work)
    x = torch.from_numpy(work.array("x"))
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (work.mean, work.std))
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    parameters = list(module.parameters())
    masks = [torch.ones_like(p) for p in parameters] if work.loss == "clue" else []
    optimizer = torch.optim.SGD(parameters, lr=work.lr, momentum=momentum, fused=compiled or None)

    def forward() -> Any:
        return criterion(module((x - mean) / std))

    if compiled:
        forward = torch.compile(forward)

    def step() -> float:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        for parameter, mask in zip(parameters, masks, strict=False):
            parameter.grad.mul_(mask)
        optimizer.step()
        return float(loss.item())

    return step


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"torch": metadata.version("torch")}
