"""Bundles from the toolkit's side: predictions by the exported programs with any weights, and named tensors
in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from clue_mobile.errors import ClueError
from clue_mobile.spec import ModelSpec
from pi_runtime.bundle import Bundle
from pi_runtime.classify import Classifier
from pi_runtime.engine import Array, Engine
from pi_runtime.request import load


def state_table(bundle: Bundle) -> list[dict[str, Any]]:
    """The manifest's table of tensors: name, shape, value, offset, kind, trainable."""
    table: list[dict[str, Any]] = _manifest(bundle)["state"]
    return table


def model_spec(bundle: Bundle) -> ModelSpec:
    """The facts of the model that was exported, its name among them."""
    raw = _manifest(bundle)
    mean, std = (tuple(map(float, raw["preprocessing"][name])) for name in ("mean", "std"))
    return ModelSpec(raw["model"]["name"], bundle.classes, bundle.input_shape, mean, std)


def _manifest(bundle: Bundle) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((bundle.root / "manifest.json").read_bytes())
    return raw


def pack(bundle: Bundle, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Named tensors (a state dict as numpy arrays) as the bundle's flat vectors, float32.

    Raises ClueError where a tensor is missing or has another shape: these are weights of another model.
    """
    parts: dict[str, list[Array]] = {}
    for row in state_table(bundle):
        name, shape = row["name"], tuple(row["shape"])
        if name not in tensors:
            raise ClueError(
                f"the weights have no tensor {name!r}, which {bundle.name} needs: they are of another model"
            )
        if tensors[name].shape != shape:
            raise ClueError(f"tensor {name!r} has shape {tensors[name].shape}, {bundle.name} needs {shape}")
        parts.setdefault(row["value"], []).append(np.asarray(tensors[name], np.float32).reshape(-1))
    return {value: np.concatenate(vectors) for value, vectors in parts.items()}


def unpack(bundle: Bundle, state: Mapping[str, Array]) -> dict[str, Array]:
    """The bundle's flat vectors as named tensors."""
    named = {}
    for row in state_table(bundle):
        size = int(np.prod(row["shape"], dtype=np.int64))
        named[row["name"]] = state[row["value"]][row["offset"] : row["offset"] + size].reshape(row["shape"])
    return named


class Predictor:
    """Logits by an exported program with given weights: call it with images uint8 [N, H, W, C], get float32
    [N, K]. Raises ClueError where the bundle has no such program."""

    def __init__(
        self, bundle: Bundle, engine: Engine, state: Mapping[str, Array], program: str = "predict"
    ) -> None:
        if program not in bundle.programs:
            raise ClueError(f"{bundle.root} has no program {program}: export with --float16-predict")
        self._classifier = Classifier(bundle.programs[program], load(bundle, engine, program))
        self._state = dict(state)

    def __call__(self, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Array:
        return self._classifier.logits(self._state.__getitem__, images, np.arange(len(images)))
