"""Logit mask: the outputs of the classes are deleted, and no weight changes. The trivial row of a table.

Every image of a deleted class gets another label, so UA is 0 and RA rises. The class is still known, which a
linear probe, its energies and a few steps of relearning show. A method that is no better than this row there
has deleted an output. A forget set that is a part of a class costs the whole class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile.errors import ClueError
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import Checked
from clue_mobile.spec import ModelSpec

TITLE = "Logit mask"
SOURCE = "none: the baseline that any method must beat"
RETAIN = ""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Config(Checked):
    """margin: how far below the image's smallest logit a deleted output stands: so far that its softmax
    probability is 0 in float32, and finite, so that energies and attacks can be computed."""

    margin: float = 1e4

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"margin": (1e3, 1e6)}


class DeletedOutputs:
    """A forward hook that pushes the logits [N, K] of `classes` `margin` below the smallest of each row."""

    def __init__(self, margin: float) -> None:
        self.classes: set[int] = set()
        self.margin = margin

    def __call__(self, module: nn.Module, inputs: Any, logits: Tensor) -> Tensor:
        """The logits with the deleted ones replaced."""
        deleted = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        deleted[sorted(self.classes)] = True
        return torch.where(deleted, logits.amin(1, keepdim=True) - self.margin, logits)


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
    """Delete the outputs of every class in `labels` by a hook on `module`; there are no steps.

    The hook is copied with the module, but no state dict holds it. A second request adds its classes. Raises
    ClueError where no class would be left.
    """
    hooks = [hook for hook in module._forward_hooks.values() if isinstance(hook, DeletedOutputs)]
    hook = hooks[0] if hooks else DeletedOutputs(config.margin)
    classes = hook.classes | set(np.unique(labels).tolist())
    if len(classes) >= spec.num_classes:
        raise ClueError(f"all {spec.num_classes} classes would be deleted: leave at least one to answer with")
    hook.classes, hook.margin = classes, config.margin
    if not hooks:
        module.register_forward_hook(hook)
    return []
