"""Golden vectors: how to draw each program's inputs, and what eager PyTorch answers (contract/golden.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clue_mobile.flat import FlatModel
from clue_mobile.plan import Port, Program, Recipe
from pi_runtime import draw

MAX_STORED = 65_536  # elements of an output that are stored: enough to catch an error, small enough for a phone

Draw = dict[str, Any]


@dataclass(frozen=True)
class Golden:
    """inputs: the manifest's draws for each port. tensors: what the golden file holds. strides: for each output."""

    inputs: dict[str, list[Draw]]
    tensors: dict[str, np.ndarray[Any, Any]]
    strides: dict[str, int]


def _draw(length: int, distribution: str, a: float | None = None, b: float | None = None) -> Draw:
    spread = {"a": a, "b": b}
    return {"length": length, "distribution": distribution, **{k: float(v) for k, v in spread.items() if v is not None}}


def _weights(model: FlatModel, value: str) -> list[Draw]:
    """Normal draws with each trained tensor's mean and deviation: activations of a healthy size, and no trained weight stored."""
    packed = model.pack()[value]
    draws = []
    for entry in model.entries:
        if entry.value == value:
            tensor = packed[entry.offset : entry.offset + entry.numel].double()
            draws.append(_draw(entry.numel, "normal", float(tensor.mean()), float(tensor.std(correction=0))))
    return draws


def _pixels(shape: tuple[int, ...]) -> list[Draw]:
    """Each channel of each sample in a range of its own. Plain noise would look the same to every deep layer: batch norm would
    divide differences of the size of rounding errors by their own deviation."""
    ranges = np.random.default_rng(0).uniform(0, 1, (shape[0] * shape[1], 2)).round(3)
    return [_draw(shape[2] * shape[3], "uniform", min(pair), max(pair)) for pair in ranges]


def _draws(model: FlatModel, recipe: Recipe, port: Port) -> list[Draw]:
    length = int(np.prod(port.shape, dtype=np.int64))
    if port.role == "state":
        return [_draw(length, "stored")] if port.binds == "buffers" else _weights(model, port.name)
    if port.golden is not None:
        return [_draw(length, *port.golden)]
    if port.role == "scalar":
        assert port.binds is not None
        return [_draw(length, "constant", recipe.scalars[port.binds])]
    if port.role == "random":
        assert port.binds is not None
        stream = recipe.randoms[port.binds]
        if stream.distribution == "onehot":
            return [_draw(length, "cycle", port.shape[-1])]
        if stream.distribution == "uniform":
            return [_draw(length, "uniform", stream.low, stream.high)]
        return [_draw(length, "normal", 0, 1)]
    if port.role == "batch":
        return [_draw(length, "cycle", port.shape[-1])] if port.binds == "onehot" else _pixels(port.shape)
    if port.role == "cache":
        return [_draw(length, "normal", 0, 2)]
    if port.binds is not None and recipe.values[port.binds].storage == "bits":
        return [_draw(length, "bernoulli", 0.5)]
    return [_draw(length, "normal", 0, 0.01)]


def _calibrated(model: FlatModel, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Running statistics that fit the drawn weights, found by running batches through in training mode until they settle.

    With the trained ones the drawn network's activations would grow or vanish from layer to layer.
    """
    state = {**params, "buffers": model.pack()["buffers"]}
    for _ in range(50):
        leaves = model.named("params", state["params"])
        with torch.no_grad():
            _, moved = model.forward(leaves, state, x, "batch")
        state.update(moved)
    return state["buffers"]


def make(model: FlatModel, recipe: Recipe, program: Program, seed: int) -> Golden:
    """Draw the program's inputs and run it in eager PyTorch, float32."""
    inputs = {port.name: _draws(model, recipe, port) for port in program.inputs}
    arrays: dict[str, Tensor] = {}
    for number, port in enumerate(program.inputs):
        if inputs[port.name][0]["distribution"] != "stored":
            parts = [draw.golden(how, seed, number, index) for index, how in enumerate(inputs[port.name])]
            arrays[port.name] = torch.from_numpy(np.concatenate(parts).reshape(port.shape))
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    if "buffers" in model.sizes and any(port.name == "buffers" for port in program.inputs):
        params = {name: arrays[name] for name in model.sizes if name != "buffers"}
        x = arrays.get("x")
        if x is None or len(x) < 2:
            x = torch.rand(32, *model.spec.input_shape, generator=torch.Generator().manual_seed(seed))
        arrays["buffers"] = _calibrated(model, params, x)
        tensors["input.buffers"] = arrays["buffers"].numpy()
    results = program.fn(*(arrays[port.name] for port in program.inputs))
    strides = {}
    for port, result in zip(program.outputs, results, strict=True):
        flat = result.detach().reshape(-1)
        strides[port.name] = max(1, -(-flat.numel() // MAX_STORED))
        tensors[port.name] = flat[:: strides[port.name]].numpy().copy()
    return Golden(inputs, tensors, strides)
