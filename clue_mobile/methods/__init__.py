"""Unlearning methods, one file each: a module with `Config`, `unlearn` (eager) and, where no retain data is
needed, `build` (programs and plan)."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from clue_mobile.errors import ClueError, unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from clue_mobile.flat import FlatModel
    from clue_mobile.plan import Recipe
    from clue_mobile.spec import ModelSpec

METHODS = {
    "original": "clue_mobile.methods.original",
    "retrain": "clue_mobile.methods.retrain",
    "ga": "clue_mobile.methods.ga",
    "rl": "clue_mobile.methods.rl",
    "iu": "clue_mobile.methods.iu",
    "be": "clue_mobile.methods.be",
    "bs": "clue_mobile.methods.bs",
    "lu": "clue_mobile.methods.lu",
    "unsir": "clue_mobile.methods.unsir",
    "clue": "clue_mobile.methods.clue",
    "ssd": "clue_mobile.methods.ssd",
    "fisher": "clue_mobile.methods.fisher",
    "salun": "clue_mobile.methods.salun",
    "logit_mask": "clue_mobile.methods.logit_mask",
}
"""In the order in which tables show them."""

BLOCKS = {
    "sisa": "clue_mobile.methods.sisa",
}
"""Those with an original model of their own, and so a block of their own in a table; no `unlearn`."""

COSTS = {
    "train": "clue_mobile.methods.train",
}
"""What is exported only to measure what it costs; in no table of methods."""


class Samples(NamedTuple):
    """Images uint8 [N, H, W, C] and their class indices int64 [N]."""

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]


Watch = Callable[["FlatModel", "Mapping[str, Any]", "dict[str, float]"], bool]
"""Told the model, the values by their names in the plan (the flat state among them) and the metrics after
each eager step; returns True to stop."""


class Method(Protocol):
    """What a module of this folder offers.

    TITLE: the name in tables. SOURCE: the paper. RETAIN: what it reads besides the forget set, "" for
    nothing; such a method has a `build` (so has one whose retain data becomes part of the bundle). Config:
    a frozen dataclass of the hyperparameters; where paper and public code differ, its fields choose.
    """

    TITLE: str
    SOURCE: str
    RETAIN: str
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
        retain: Samples | None = None,
    ) -> list[dict[str, float]]:
        """Forget in eager PyTorch, in place; returns one row of metrics for each step.

        retain: the training images of the other classes, for a method whose RETAIN says so.
        """

    def build(self, model: FlatModel, config: Any, batch: int, train: Samples | None = None) -> Recipe:
        """The same method as programs and a plan. train: the whole training set, for what a bundle ships."""


def get(name: str) -> Method:
    """The method called `name`, or of your own file, path/name.py; raises ClueError listing the choices."""
    if name.endswith(".py"):
        return _own(Path(name))
    known = {**METHODS, **BLOCKS, **COSTS}
    if name not in known:
        raise unknown("method", name, {**METHODS, **BLOCKS})
    return cast(Method, importlib.import_module(known[name]))


def _own(path: Path) -> Method:
    """A method that is not part of the package."""
    if not path.is_file():
        raise ClueError(f"no file {path} to take a method from")
    name = f"_clue_mobile_method_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None  # .py always has a loader
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look the module up by its name
    try:
        found.loader.exec_module(module)
    except Exception as error:  # the user's code
        raise ClueError(f"cannot import {path}: {type(error).__name__}: {error}") from error
    missing = [
        each for each in ("TITLE", "SOURCE", "RETAIN", "Config", "unlearn") if not hasattr(module, each)
    ]
    if missing:
        raise ClueError(f"{path} is no method: it lacks {', '.join(missing)}")
    return cast(Method, module)


def on_device(name: str) -> bool:
    """Whether the method runs on a device: as programs and a plan, without retain data there."""
    return hasattr(get(name), "build")


def build(name: str, model: FlatModel, config: Any, batch: int, train: Samples | None = None) -> Recipe:
    """The method's recipe; raises ClueError for a method that needs retain data when it forgets."""
    method = get(name)
    if not on_device(name):
        able = ", ".join(other for other in METHODS if on_device(other))
        reason = f"it needs {method.RETAIN}" if method.RETAIN else "it changes no weights"
        raise ClueError(f"the method {name} cannot run on a device, since {reason}; choose from {able}")
    return method.build(model, config, batch, train)


def needed(name: str, retain: Samples | None) -> Samples:
    """The retain set that the method asks for; raises ClueError where it was not given."""
    if retain is None or not len(retain.labels):
        raise ClueError(f"the method {name} needs {get(name).RETAIN}, and no retain images were given")
    return retain


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
