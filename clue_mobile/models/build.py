"""Building an untrained module from a reference. torch and optional packages are imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from clue_mobile.errors import ClueError, unknown
from clue_mobile.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def build(reference: str, spec: ModelSpec, seed: int) -> nn.Module:
    """Return the module of `reference` for `spec`, in eval mode and float32, initialised from `seed`.

    reference: `torchvision:NAME`, `timm:NAME`, `package.module:factory` or `path/file.py:factory`. A factory
    is called with num_classes and input_shape where it takes them. torch's global random state stays as it
    was.

    Raises ClueError for a missing package or name, a factory that fails, and a module that does not map
    [1, *spec.input_shape] to logits [1, spec.num_classes].
    """
    torch = require("torch", extra="export")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _construct(reference, spec)
    if not isinstance(module, torch.nn.Module):
        raise ClueError(f"{reference} returned a {type(module).__name__}, not a torch.nn.Module")
    module = module.float().eval()
    _probe(module, spec)
    return module


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package; raise ClueError naming the extra that installs it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ClueError(
            f"{package} is not installed; install it with: pip install 'clue-mobile[{extra}]'"
        ) from None


def _construct(reference: str, spec: ModelSpec) -> Any:
    source, _, name = reference.rpartition(":")
    if source == "torchvision":
        models = require("torchvision", extra="export").models
        # list_models() alone also names detectors and segmentation networks.
        if name not in (known := models.list_models(module=models)):
            raise unknown("torchvision model", name, known)
        return models.get_model(name, weights=None, num_classes=spec.num_classes)
    if source == "timm":
        timm = require("timm", extra="timm")
        if not timm.is_model(name):
            similar = timm.list_models(f"*{name.split('_')[0]}*")
            raise unknown("timm model", name, similar or timm.list_modules())
        return timm.create_model(
            name, pretrained=False, num_classes=spec.num_classes, in_chans=spec.input_shape[0]
        )
    factory = _factory(source, name)
    try:
        return factory(**_arguments(factory, spec))
    except ClueError:
        raise
    except Exception as error:  # the user's code
        raise ClueError(f"{reference} failed: {type(error).__name__}: {error}") from error


def _factory(source: str, name: str) -> Callable[..., Any]:
    try:
        module = _import_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except ClueError:
        raise
    except Exception as error:  # the user's code
        raise ClueError(f"cannot import {source}: {type(error).__name__}: {error}") from error
    factory = getattr(module, name, None)
    if factory is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"factory in {source}", name, public)
    if not callable(factory):
        raise ClueError(
            f"{source}:{name} is a {type(factory).__name__}, not a function that returns a module"
        )
    return factory


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ClueError(f"no file {path} to take a model factory from")
    name = f"_clue_mobile_factory_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None  # .py always has a loader
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look the module up by its name
    found.loader.exec_module(module)
    return module


def _arguments(factory: Callable[..., Any], spec: ModelSpec) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    forwards = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments: dict[str, Any] = {}
    if "num_classes" in parameters or forwards:
        arguments["num_classes"] = spec.num_classes
    if "input_shape" in parameters:
        arguments["input_shape"] = spec.input_shape
    return arguments


def _probe(module: nn.Module, spec: ModelSpec) -> None:
    import torch

    shape = (1, *spec.input_shape)
    try:
        with torch.no_grad():
            logits = module(torch.zeros(shape))
    except Exception as error:  # the user's code
        raise ClueError(f"{spec.model} does not take an input of shape {list(shape)}: {error}") from error
    if not isinstance(logits, torch.Tensor):
        raise ClueError(f"{spec.model} returns a {type(logits).__name__}, not one tensor of logits")
    if logits.shape != (1, spec.num_classes):
        raise ClueError(
            f"{spec.model} returns {list(logits.shape)} for one image; {spec.num_classes} classes "
            f"need [1, {spec.num_classes}]"
        )
