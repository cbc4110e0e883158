"""ONNX with the operators of our kernel library (kernels/), for devices that have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clue_mobile.lowering import kernels
from clue_mobile.memory.rules import Rules
from clue_mobile.programs import Traced
from exporters import onnx, onnx_kernels
from exporters.base import Converted, Source, Tell

OVERRIDES: dict[Any, Any] = kernels.OVERRIDES
# those that leave convolutions, norms and ReLU's masks in the form that `kernels.fuse` knows
PASSES = ("products", "concats")
FLOAT16 = False
MEMORY = Rules(recomputes=False)  # a copy would stand in the way of the fusing


def versions() -> dict[str, str]:
    """As the ONNX exporter's, and the version of the operators."""
    return {**onnx.versions(), "clue-kernels": str(onnx_kernels.VERSION)}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """As `exporters.onnx.convert`; the graphs are fused in place first."""
    files: dict[str, bytes] = {}
    for traced in programs:
        tell(traced.program.name)
        kernels.fuse(traced.graph)
        files |= onnx.convert_program(traced, f"{traced.program.name}.onnx", onnx_kernels)
    return Converted(
        files,
        {t.program.name: f"{t.program.name}.onnx" for t in programs},
        notes=("the onnx-clue programs need the kernel library on the device: see kernels/README.md",),
    )
