"""Original: nothing is done. The row that every method starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from clue_mobile.methods import Samples, Watch
from clue_mobile.spec import ModelSpec

TITLE = "Original"
SOURCE = "the model as it was trained"
RETAIN = ""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Config:
    """There is nothing to choose."""


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
    """Change nothing; there are no steps."""
    return []
