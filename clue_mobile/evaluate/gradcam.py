"""Grad-CAM: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks, ICCV 2017, arXiv:1610.02391.

Where in the last convolutional map lies what speaks for a class: relu(sum over channels k of a_k A_k), a_k
being the mean over the pixels of the gradient of the class's logit with respect to A_k.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clue_mobile.errors import ClueError, unknown
from clue_mobile.evaluate.eager import evaluating, run_once
from clue_mobile.spec import ModelSpec


def feature_maps(module: nn.Module, spec: ModelSpec) -> list[str]:
    """Names of the layers that give a map [N, C, h, w] of more than one pixel, in the order of execution.

    Average pooling is left out: it gives what stands in the map before it.
    """
    names: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(layer: nn.Module, inputs: Any, out: Any) -> None:
            pooled = "AvgPool" in type(layer).__name__
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2:].numel() > 1 and not pooled:
                names.append(name)

        return note

    handles = [layer.register_forward_hook(watch(name)) for name, layer in module.named_modules() if name]
    run_once(module, spec, handles)
    return names


def last_map(module: nn.Module, spec: ModelSpec) -> str:
    """The name of the layer whose map comes last. Raises ClueError for a model without any."""
    names = feature_maps(module, spec)
    if not names:
        raise ClueError(
            f"{spec.model} has no feature map of more than one pixel and no attention over patches: there is "
            "nothing to draw a map of"
        )
    return names[-1]


def grad_cam(
    module: nn.Module, spec: ModelSpec, x: Tensor, labels: Tensor, layer: str | None = None
) -> tuple[Tensor, Tensor]:
    """The map [N, h, w] of what speaks for each image's label [N], and the logits [N, K]; x is [N, C, H, W].

    layer: a name from `feature_maps`; None for the last one. Raises ClueError for another name.
    """
    if layer is None:
        layer = last_map(module, spec)
    elif layer not in (names := feature_maps(module, spec)):
        raise unknown(f"layer of {spec.model} with a feature map", layer, names)
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        kept.append(out)
        return out.clone()  # what follows may write into its input

    handle = module.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad(), evaluating(module):
            # the input's gradient, so that a model whose weights are frozen has one too
            logits = module(x.detach().requires_grad_())
            chosen = logits.gather(1, labels[:, None]).sum()  # eval mode: no image looks at another
            (gradient,) = torch.autograd.grad(chosen, kept[-1])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * kept[-1]).sum(dim=1).relu().detach(), logits.detach()
