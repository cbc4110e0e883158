"""What the tests of the Core ML exporter share: programs from functions, saved packages, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mil_evaluator import Package
from mil_operators import Array
from torch import Tensor

from clue_mobile.plan import Port, Program
from clue_mobile.programs import Traced, trace
from exporters import coreml


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal float32 values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def program(fn: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, name: str = "p") -> Program:
    """`fn` as a program of carries in0, in1, ... with results out0, out1, ..."""
    given = tuple(Port(f"in{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(inputs))
    made = tuple(Port(f"out{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(fn(*inputs)))
    return Program(name, 1, given, made, fn)


def traced(fn: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, name: str = "p") -> Traced:
    """The same, traced as an export does for Core ML."""
    return trace(program(fn, *inputs, name=name), overrides=coreml.OVERRIDES)


def save(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what an exporter returned."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def convert_one(made: Traced, folder: Path, minimum: str = "iOS16", half: bool = False) -> Package:
    """The program's own package, saved and loaded."""
    graphs = {"main": (made.program, coreml.spelled(made))}
    save(coreml.package("p.mlpackage", graphs, minimum, half), folder)
    return Package(folder / "p.mlpackage")


def run(package: Package, inputs: Sequence[Tensor], function: str = "main") -> list[Array]:
    """The outputs in order; a scalar goes in and comes out as a vector of one."""
    names = package.inputs(function)
    given = {n: t.numpy().reshape(t.shape or (1,)) for n, t in zip(names, inputs, strict=True)}
    return list(package.run(given, function).values())


def assert_same(
    found: Sequence[Array], expected: Sequence[Tensor], rtol: float = 2e-5, atol: float = 2e-6
) -> None:
    """Equal shapes ([] is [1] in the file) and nearly equal values."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        assert one.shape == (tuple(other.shape) or (1,))
        np.testing.assert_allclose(one, other.detach().numpy().reshape(one.shape), rtol=rtol, atol=atol)


def operators(package: Package, function: str = "main") -> list[str]:
    """The types of the operators, without constants."""
    return [each.type for each in package.operations(function) if each.type != "const"]
