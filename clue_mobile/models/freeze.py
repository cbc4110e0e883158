"""Which parameters may change: chosen by name, marked by `requires_grad`."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from torch import nn


def train_only(module: nn.Module, patterns: Sequence[str]) -> None:
    """Let only the parameters whose names match a shell-style pattern ("layer3.*") require a gradient.

    Raises ClueError for a pattern without a match, listing what there is.
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, n=1, cutoff=0)[0]
            raise ClueError(
                f"--train-only {pattern!r} matches no parameter (the closest is {close!r}); the model has "
                f"{', '.join(_layers(names))}"
            )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def _layers(names: Sequence[str]) -> list[str]:
    """'layer1.*' for the parameters below each first-level module, single names as they are."""
    return list(dict.fromkeys(f"{name.split('.')[0]}.*" if "." in name else name for name in names))
