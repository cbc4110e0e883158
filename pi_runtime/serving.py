"""Predictions with whatever generation of weights serves at the time of the call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pi_runtime import weights
from pi_runtime.bundle import Bundle
from pi_runtime.classify import Classifier
from pi_runtime.engine import Array, Engine
from pi_runtime.request import load
from pi_runtime.store import Generation


class Server:
    """Loads programs and weights on first use; new weights are read into the same arrays."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._bundle, self._engine = bundle, engine
        self._classifiers: dict[str, Classifier] = {}
        self._state: dict[str, Array] = {}
        self._sha256 = ""

    def logits(self, images: NDArray[np.uint8], generation: Generation) -> Array:
        """Logits [N, K] of images uint8 [N, H, W, C]. Raises ClueError for unusable weights or programs."""
        self._use(generation)
        n, batch = len(images), self._bundle.programs["predict"].batch
        # A single image left over costs less in predict_1 than in a batch filled up.
        full = n - 1 if n % batch == 1 else n
        parts = [
            self._classifier(name).logits(self._state.__getitem__, images, positions)
            for name, positions in (("predict", np.arange(full)), ("predict_1", np.arange(full, n)))
            if len(positions)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self._bundle.classes)), np.float32)

    def _use(self, generation: Generation) -> None:
        if generation.sha256 == self._sha256:
            return
        arrays = weights.read(generation.path, generation.sha256, self._bundle)
        self._sha256 = ""  # until all of them are read
        for name, value in self._bundle.values.items():
            if value.role == "state":
                new = arrays[str(value.weights_key)]
                self._state.setdefault(name, np.empty_like(new))[...] = new
        self._sha256 = generation.sha256

    def _classifier(self, name: str) -> Classifier:
        if name not in self._classifiers:
            session = load(self._bundle, self._engine, name)
            self._classifiers[name] = Classifier(self._bundle.programs[name], session)
        return self._classifiers[name]
