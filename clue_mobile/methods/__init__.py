"""Unlearning methods, one file each. A method is a module with `Config`, `unlearn` (eager) and `build`
(programs and plan)."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from clue_mobile.errors import ClueError, unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from clue_mobile.flat import FlatModel
    from clue_mobile.plan import Recipe
    from clue_mobile.spec import ModelSpec

METHODS = {"clue": "clue_mobile.methods.clue"}


Watch = Callable[["FlatModel", "Mapping[str, Any]", "dict[str, float]"], bool]
"""Told the model, the values by their names in the plan (the flat state among them) and the metrics after
each eager step; returns True to stop."""


class Method(Protocol):
    """What a module of this folder offers."""

    Config: type[Any]

    def unlearn(
        self,
        module: nn.Module,
        spec: ModelSpec,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        config: Any,
        *,
        seed: int = 0,
        batch: int = 256,
        watch: Watch | None = None,
    ) -> list[dict[str, float]]:
        """Forget in eager PyTorch, in place; returns one row of metrics for each step."""

    def build(self, model: FlatModel, config: Any, batch: int) -> Recipe:
        """The same method as programs and a plan."""


def get(name: str) -> Method:
    """The method called `name`; raises ClueError listing the choices."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return cast(Method, importlib.import_module(METHODS[name]))


def configure(name: str, given: Mapping[str, Any]) -> Any:
    """The method's Config with the `given` fields; raises ClueError for a name or value it does not take."""
    config_type = get(name).Config
    fields = {field.name for field in dataclasses.fields(config_type)}
    for key in given:
        if key not in fields:
            raise unknown(f"hyperparameter of {name}", key, fields)
    try:
        return config_type(**given)
    except TypeError as error:
        raise ClueError(f"hyperparameters of {name}: {error}") from error
