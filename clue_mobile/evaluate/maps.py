"""Where a model looks: attention rollout for vision transformers, Grad-CAM for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from clue_mobile.data import Split
from clue_mobile.evaluate.eager import to_input
from clue_mobile.evaluate.gradcam import grad_cam, last_map
from clue_mobile.evaluate.rollout import attended, patch_map
from clue_mobile.spec import ModelSpec

ROLLOUT, GRAD_CAM = "attention rollout", "Grad-CAM"


@dataclass(frozen=True, eq=False)
class Maps:
    """`heat`: 0 or more, float64 [N, H, W] at the size of the images; `logits` float32 [N, K]; `kind` and,
    for Grad-CAM, the name of the `layer`."""

    kind: str
    layer: str
    heat: npt.NDArray[np.float64]
    logits: npt.NDArray[np.float32]


def explain(module: nn.Module, spec: ModelSpec, images: Split, layer: str | None = None) -> Maps:
    """A map for each image: of what the class token saw, or of what speaks for the image's label.

    layer: take Grad-CAM at this layer, whatever the model. Small maps are enlarged bilinearly. The module is
    left as it is. Raises ClueError for a model that has nothing to draw, and for a layer without a map.
    """
    x = to_input(images.images, spec)
    seen = attended(module, x) if layer is None else None
    if seen is not None:
        small, logits, kind, name = patch_map(seen), seen.logits, ROLLOUT, ""
    else:
        name, kind = layer or last_map(module, spec), GRAD_CAM
        small, logits = grad_cam(module, spec, x, torch.from_numpy(images.labels), name)
    heat = F.interpolate(small.double()[:, None], size=x.shape[2:], mode="bilinear", align_corners=False)
    return Maps(kind, name, heat[:, 0].numpy(), logits.float().numpy())
