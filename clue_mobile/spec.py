"""What every part of the toolkit knows about a classifier besides its weights. Imports no torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from clue_mobile.errors import ClueError


@dataclass(frozen=True)
class ModelSpec:
    """A classifier's name, classes and input.

    model: a built-in name, `torchvision:NAME`, `timm:NAME`, `package.module:factory` or
        `path/file.py:factory`.
    classes: the names in the order of the logits.
    input_shape: (channels, height, width) of one image.
    mean, std: per channel, in units of pixels scaled to [0, 1]; the model sees (x - mean) / std.

    Raises ClueError where the fields contradict each other.
    """

    model: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.model:
            raise ClueError("the model's name is empty")
        self._check_classes()
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            given = ", ".join(map(str, self.input_shape))
            raise ClueError(f"input_shape must be channels, height, width, each at least 1, not ({given})")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.input_shape[0]:
                raise ClueError(
                    f"{name} has {len(values)} values but the input has {self.input_shape[0]} channels: "
                    f"give one {name} per channel"
                )
        if not all(0 <= value <= 1 for value in self.mean):
            raise ClueError(f"mean must lie in [0, 1] (pixels / 255), not {_join(self.mean)}")
        if not all(0 < value < math.inf for value in self.std):
            raise ClueError(f"std must be greater than 0 and finite, not {_join(self.std)}")

    def _check_classes(self) -> None:
        if len(self.classes) < 2:
            raise ClueError(f"a classifier needs at least 2 classes, not {len(self.classes)}")
        if not all(name.strip() for name in self.classes):
            raise ClueError(
                f"class {next(i for i, name in enumerate(self.classes) if not name.strip())} has no name"
            )
        duplicates = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if duplicates:
            raise ClueError(f"class names must differ; given more than once: {_join(duplicates)}")

    @property
    def num_classes(self) -> int:
        """The number of classes, that is of logits."""
        return len(self.classes)

    def to_metadata(self) -> dict[str, str]:
        """Return the fields as strings for a safetensors header; `resolve_spec` reads them back unchanged."""
        fields = {
            "classes": self.classes,
            "input_shape": self.input_shape,
            "mean": self.mean,
            "std": self.std,
        }
        return {"model": self.model, **{name: json.dumps(value) for name, value in fields.items()}}


def _join(values: tuple[float, ...] | list[str]) -> str:
    return ", ".join(map(str, values))
