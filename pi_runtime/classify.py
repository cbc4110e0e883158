"""Logits of images in fixed batches, by any program that takes state and x and gives logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Program
from pi_runtime.engine import Array, Session


def pixels(images: NDArray[np.uint8], out: Array) -> None:
    """uint8 [B, H, W, C] to float32 [B, C, H, W] in [0, 1], into `out`."""
    np.divide(images.transpose(0, 3, 1, 2), np.float32(255), out=out, dtype=np.float32)


class Classifier:
    """Owns the batch and logits arrays of one program, so that its session sees the same ones every time."""

    def __init__(self, program: Program, session: Session) -> None:
        self._session = session
        self._state = {port.name: port.binds for port in program.inputs if port.role == "state"}
        (x,) = (port for port in program.inputs if port.role == "batch")
        (logits,) = program.outputs
        self._x_name, self._x = x.name, np.zeros(x.shape, np.float32)
        self._logits = np.zeros(logits.shape, np.float32)
        self._outputs = {logits.name: self._logits}

    def logits(
        self,
        state: Callable[[str], Array],
        images: NDArray[np.uint8],
        positions: NDArray[np.int64],
        between: Callable[[], None] = lambda: None,
    ) -> Array:
        """Logits [M, K] of images (uint8 [N, H, W, C]) at M positions; a short batch is filled cyclically.

        `state` gives the array of a value by its name; `between` is called before each batch.
        """
        batch, m = len(self._x), len(positions)
        out = np.empty((m, self._logits.shape[1]), np.float32)
        inputs = {name: state(value) for name, value in self._state.items()} | {self._x_name: self._x}
        for start in range(0, m, batch):
            between()
            rows = np.arange(start, start + batch) % m
            pixels(images[positions[rows]], self._x)
            self._session.run(inputs, self._outputs)
            stop = min(start + batch, m)
            out[start:stop] = self._logits[: stop - start]
        return out
