"""The arrays that the runtime holds while a request runs (contract/plan.md, "Values")."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pi_runtime import draw
from pi_runtime.bundle import Bundle, Program, Shape
from pi_runtime.engine import Array
from pi_runtime.plan import RunNode, leaves
from pi_runtime.weights import WeightsFile

_CHUNK = 1 << 16


def swapped_values(bundle: Bundle) -> set[str]:
    """The values that some run of the plan both reads and writes: only these need a second array."""
    found: set[str] = set()
    for _, node in leaves(bundle.plan):
        if isinstance(node, RunNode):
            found |= _read_and_written(bundle.programs[node.program], node.bind)
    return {name for name in found if bundle.values[name].role != "cache"}


def _read_and_written(program: Program, bind: Mapping[str, str]) -> set[str]:
    held = ("state", "carry", "cache")
    read = {bind.get(port.name, port.binds) for port in program.inputs if port.role in held}
    return read & {bind.get(port.name, port.binds) for port in program.outputs if port.role in held}


class Values:
    """The current content of every value, for `n` samples; a cache is [n, *shape].

    Raises ClueError when a file that a value starts from does not have it.
    """

    def __init__(self, bundle: Bundle, served: Mapping[str, Array], n: int, seed: int) -> None:
        self._bundle, self._served, self._seed = bundle, served, seed
        self._current: dict[str, Array] = {}
        self._spare: dict[str, Array] = {}
        self._swapped = swapped_values(bundle)
        for name, value in bundle.values.items():
            shape = (n, *value.shape) if value.role == "cache" else value.shape
            self._current[name] = np.zeros(shape, np.float32)
            self.reset(name, epoch=0, repeat=0)

    def current(self, name: str) -> Array:
        """The array with the content of a value; it stays the value's own."""
        return self._current[name]

    def target(self, name: str) -> Array:
        """Where a program that cannot write over what it reads is to write the new content, before `written`.

        A second array is made when the first such program asks for it.
        """
        if name in self._swapped and name not in self._spare:
            self._spare[name] = np.zeros_like(self._current[name])
        return self._spare.get(name, self._current[name])

    def written(self, name: str) -> None:
        """A program has filled the target: it is the content now."""
        if name in self._spare:
            self._current[name], self._spare[name] = self._spare[name], self._current[name]

    def reset(self, name: str, epoch: int, repeat: int) -> None:
        """Give a value its first content again, in place."""
        value, array = self._bundle.values[name], self._current[name]
        match value.init:
            case {"weights": key}:
                array[...] = self._served[key]
            case {"file": file, "key": key}:
                array[...] = self._from_file(file, key, value.shape)
            case {"value": source}:
                array[...] = self._current[source]
            case {"random": source}:
                random = self._bundle.randoms[source]
                array[...] = draw.random(random, self._seed, epoch, np.zeros(1, np.int64), repeat)[0]
            case _:
                array[...] = 0

    def begins_with_zeros(self, name: str, count: int) -> bool:
        """Whether the first `count` elements of a value are all zero; read up to one that is not."""
        first = self._current[name].reshape(-1)[:count]
        return not any(first[i : i + _CHUNK].any() for i in range(0, count, _CHUNK))

    def all(self) -> dict[str, Array]:
        """The current content of every value by its name."""
        return dict(self._current)

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Give every value the content that it had in a checkpoint, in place."""
        for name, array in self._current.items():
            array[...] = arrays[name]

    def state(self) -> dict[str, Array]:
        """The arrays of role state by their key in the weights file."""
        return {
            str(value.weights_key): self._current[name]
            for name, value in self._bundle.values.items()
            if value.role == "state"
        }

    def _from_file(self, file: str, key: str, shape: Shape) -> Array:
        arrays = WeightsFile(self._bundle.file(file))
        if arrays.shape(key) != shape:
            self._bundle.fail(f"{file} has no array {key} of shape {list(shape)}")
        return arrays[key]
