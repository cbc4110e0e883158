"""Attention rollout: Abnar and Zuidema, Quantifying Attention Flow in Transformers, 2020, arXiv:2005.00928.

What a token of the last layer took from each patch: the product over the layers of 0.5 A + 0.5 I, A being the
mean of the heads' attention, and I the shortcut around it. It looks at no class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clue_mobile.evaluate.eager import evaluating

PATCH_ATTENTION = "attn_drop"  # timm's name for the dropout through which the attention goes


class Attended(NamedTuple):
    """`attention`: of each layer, [N, heads, T, T]; `grid`: rows and columns of the patches, which are the
    last of the T tokens; `logits` [N, K]."""

    attention: list[Tensor]
    grid: tuple[int, int]
    logits: Tensor


def rollout(attention: Sequence[Tensor]) -> Tensor:
    """The flow [N, T, T] from the last layer's tokens (rows, each of sum 1) to the first one's (columns)."""
    flow: Tensor | None = None
    for layer in attention:
        mixed = layer.double().mean(dim=1)
        mixed = 0.5 * mixed + 0.5 * torch.eye(mixed.shape[-1], dtype=mixed.dtype)
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None  # `attended` gives no empty list
    return flow


def patch_map(attended: Attended) -> Tensor:
    """What the class token took from each patch, [N, rows, columns]; the mean over the patches' own tokens
    where a model has no class token."""
    flow, (rows, columns) = rollout(attended.attention), attended.grid
    first = flow.shape[-1] - rows * columns
    seen = flow[:, 0, first:] if first else flow.mean(dim=1)
    return seen.reshape(-1, rows, columns)


def attended(module: nn.Module, x: Tensor) -> Attended | None:
    """The attention that `module` pays to inputs x [N, C, H, W]; None for a model that is no plain vision
    transformer: without attention, or with attention inside windows.

    Seen are torch.nn.MultiheadAttention (torchvision), a torch.nn.Softmax over tokens (ours), and what goes
    through a layer called attn_drop (timm). The patches are those of the first convolution whose stride is
    its kernel.
    """
    found: list[Tensor] = []
    grids: list[tuple[int, int]] = []
    with _watched(module, found, grids), torch.no_grad(), evaluating(module):
        logits = module(x)
    shapes = {tuple(layer.shape[-2:]) for layer in found if len(layer) == len(x)}
    whole = all(len(layer) == len(x) for layer in found)
    if not found or not grids or not whole or len(shapes) != 1:
        return None
    tokens, patches = next(iter(shapes))[0], grids[0][0] * grids[0][1]
    return Attended(found, grids[0], logits) if 1 < patches <= tokens else None


@contextmanager
def _watched(module: nn.Module, found: list[Tensor], grids: list[tuple[int, int]]) -> Iterator[None]:
    """Collect attention and patch grids in the order of execution; all is as it was afterwards."""

    def keep(weights: Any) -> None:
        square = isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[-1] == weights.shape[-2]
        if square and not any(weights is other for other in found[-1:]):
            found.append(weights.detach())

    def ask(layer: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**options, "need_weights": True, "average_attn_weights": False}

    def note(layer: nn.Conv2d, inputs: Any, out: Tensor) -> None:
        if max(layer.kernel_size) > 1 and layer.kernel_size == layer.stride:
            grids.append((out.shape[-2], out.shape[-1]))

    handles: list[Any] = []
    fused: list[Any] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.MultiheadAttention):
            handles.append(layer.register_forward_pre_hook(ask, with_kwargs=True))
            handles.append(layer.register_forward_hook(lambda layer, inputs, out: keep(out[1])))
        elif isinstance(layer, nn.Softmax):
            handles.append(layer.register_forward_hook(lambda layer, inputs, out: keep(out)))
        elif name.rpartition(".")[2] == PATCH_ATTENTION:
            handles.append(layer.register_forward_pre_hook(lambda layer, inputs: keep(inputs[0])))
        elif isinstance(layer, nn.Conv2d):
            handles.append(layer.register_forward_hook(note))
        if getattr(layer, "fused_attn", False):
            fused.append(layer)
            layer.fused_attn = False  # the fused kernel never has the weights in one place
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for attention in fused:
            attention.fused_attn = True
