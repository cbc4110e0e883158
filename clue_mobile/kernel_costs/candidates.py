"""From a model to the candidates that a device times: every form of every product of its convolutions, each a
tiny program."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clue_mobile import programs
from clue_mobile.errors import ClueError
from clue_mobile.lowering import choice
from clue_mobile.lowering.forms import OWN, Geometry, admitted, geometry, shapes
from clue_mobile.plan import Port, Program
from exporters.base import Exporter, Source
from pi_runtime.files import atomic_write
from pi_runtime.kernel_costs import CANDIDATES, SCHEMA

aten = torch.ops.aten
Tell = Callable[[int, int, str], None]
_NAME = "product"  # of the one program in a candidate's file
# a form that needs more at once is no candidate: where it fits, it is slow
_MOST_BYTES = 1 << 30
_OPERANDS = {
    "forward": ("x", "weight"),
    "input_gradient": ("grad", "weight"),
    "weight_gradient": ("grad", "x"),
}


@dataclass(frozen=True)
class Product:
    """A product of a shape that a model's programs have."""

    product: str
    at: Geometry

    @property
    def key(self) -> str:
        """Its name in a cost table."""
        return f"{self.product} {self.at.key()}"

    @property
    def forms(self) -> list[str]:
        """What is to be measured: the exporter's own form, and those that are admitted."""
        return [OWN, *admitted(self.product, self.at)]


class _Recorder(TorchDispatchMode):
    """Notes the convolutions of two axes, in the order in which they first occur."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Product, None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is aten.convolution.default and not args[6]:
            self._note("forward", args[0], args[1], args[3:6], args[8])
        elif func is aten.convolution_backward.default and not args[7]:
            for product, wanted in zip(("input_gradient", "weight_gradient"), args[10], strict=False):
                if wanted:
                    self._note(product, args[1], args[2], args[4:7], args[9])
        return func(*args, **(kwargs or {}))

    def _note(self, product: str, x: Tensor, weight: Tensor, where: Sequence[Any], groups: int) -> None:
        stride, padding, dilation = where
        at = geometry(x.shape, weight.shape, stride, padding, dilation, groups)
        if at.plane:
            self.found[Product(product, at)] = None


def collect(found: Iterable[Program]) -> list[Product]:
    """The distinct products of the programs' convolutions of two axes; nothing is computed."""
    recorder = _Recorder()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        for program in found:
            inputs = [fake.from_tensor(each) for each in programs.example_inputs(program)]
            with recorder:
                program.fn(*inputs)
    return list(recorder.found)


def _program(each: Product) -> Program:
    """The product alone, as ATen's operator."""
    at, none = each.at, [0] * len(each.at.kernel)
    first, second = shapes(each.product, at)
    x, weight = (at.batch, at.channels, *at.size), (at.outputs, at.channels // at.groups, *at.kernel)

    def function(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        where = (at.stride, at.padding, at.dilation, False, none, at.groups)
        if each.product == "forward":
            return (aten.convolution(a, b, None, *where),)
        backward = functools.partial(aten.convolution_backward, a)
        if each.product == "input_gradient":  # of the missing operand only the shape matters
            return (backward(a.new_zeros(x), b, None, *where, [True, False, False])[0],)
        return (backward(b, a.new_zeros(weight), None, *where, [False, True, False])[1],)

    result = {"forward": (at.batch, at.outputs, *at.out), "input_gradient": x, "weight_gradient": weight}
    left, right = _OPERANDS[each.product]
    inputs = (Port(left, "batch", first, left), Port(right, "batch", second, right))
    return Program(_NAME, at.batch, inputs, (Port("result", "result", result[each.product]),), function)


def trace(each: Product, name: str, exporter: Exporter) -> programs.Traced:
    """The form `name` of a product as the exporter's programs would have it."""

    def choose(product: str, at: Geometry) -> str | None:
        return name if name != OWN and (product, at) == (each.product, each.at) else None

    table = choice.overrides(choose, exporter.OVERRIDES)
    return programs.trace(_program(each), overrides=table, passes=exporter.PASSES)


def _content(traced: programs.Traced) -> str:
    """What two programs that are the same have in common."""
    digest = hashlib.sha256(traced.graph.code.encode())
    for name, value in traced.graph.named_buffers():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def write(
    folder: Path,
    runtime: str,
    exporter: Exporter,
    products: Sequence[Product],
    source: Source,
    *,
    tell: Tell = lambda done, total, note: None,
) -> list[str]:
    """Write the candidates of the products into the new or empty `folder`; returns notes on forms left out.

    A form whose program is the same as another's is left out without a note. Raises ClueError where the
    folder cannot be used.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClueError(f"{folder} exists already: name a new folder for the candidates")
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    entries = []
    for number, each in enumerate(products):
        tell(number, len(products), each.key)
        entries.append(_write_product(folder, number, exporter, each, source, notes))
    found = {
        "schema": SCHEMA,
        "runtime": runtime,
        "versions": exporter.versions(),
        "candidates": [entry for entry in entries if entry["forms"]],
    }
    atomic_write(folder / CANDIDATES, [json.dumps(found, indent=1).encode()])
    tell(len(products), len(products), "")
    return notes


def _write_product(
    folder: Path, number: int, exporter: Exporter, each: Product, source: Source, notes: list[str]
) -> dict[str, Any]:
    files: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for name in each.forms:
        try:
            traced = trace(each, name, exporter)
            if name != OWN and traced.peak_bytes > _MOST_BYTES:
                notes.append(f"{each.key}, {name}: needs {traced.peak_bytes / 2**20:,.0f} MiB")
                continue
            content = _content(traced)
            if content in seen:
                continue
            seen.add(content)
            converted = exporter.convert([traced], source, lambda text: None)
        except ClueError as error:
            notes.append(f"{each.key}, {name}: {error}")
            continue
        files[name] = _save(
            folder, f"{number:03d}-{each.product}-{name}", converted.files, converted.programs
        )
    ports = _program(each)
    return {
        "product": each.product,
        "shape": each.at.key(),
        "flops": each.at.flops,
        "program": _NAME,
        "inputs": {port.name: list(port.shape) for port in ports.inputs},
        "output": list(ports.outputs[0].shape),
        "forms": files,
    }


def _save(folder: Path, name: str, files: Mapping[str, bytes], where: Mapping[str, str]) -> dict[str, str]:
    """The candidate's one file, under its own name."""
    path = where[_NAME]
    if set(files) != {path}:
        raise ClueError(f"a candidate takes one file, and this runtime made {', '.join(sorted(files))}")
    target = f"{name}{Path(path).suffix}"
    return {"file": target, "sha256": atomic_write(folder / target, [files[path]])}
