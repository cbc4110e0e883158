"""A bundle's model as a PyTorch module again: what features, gradients and relearning need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from clue_mobile import models
from clue_mobile.bundle.reader import model_spec, unpack
from clue_mobile.errors import ClueError
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Array

if TYPE_CHECKING:
    from torch import nn

    from clue_mobile.spec import ModelSpec


def rebuild(bundle: Bundle, state: Mapping[str, Array]) -> tuple[nn.Module, ModelSpec]:
    """The module that the bundle's manifest names, in eval mode, with the weights of `state` (flat vectors).

    Raises ClueError where the name stands for nothing here (a factory's file that is not on this machine, a
    package that is not installed), or for a model with other tensors than the bundle's.
    """
    import torch

    spec = model_spec(bundle)
    why = f"the model of {bundle.root}, {spec.model}, cannot be built again as a PyTorch module"
    try:
        module = models.load(spec, None)
    except ClueError as error:
        raise ClueError(f"{why}: {error}") from error
    given = unpack(bundle, state)
    tensors = {
        **dict(module.named_parameters()),
        **{name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()},
    }
    for name in sorted({*tensors, *given}):
        own = tuple(tensors[name].shape) if name in tensors else "nothing"
        its = given[name].shape if name in given else "nothing"
        if own != its:
            raise ClueError(f"{why}: tensor {name!r} is {its} in the bundle and {own} in the module")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(given[name].copy()))
    return module, spec
