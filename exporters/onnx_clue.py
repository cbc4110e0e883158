"""ONNX with the operators of our kernel library (kernels/), for devices that have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from clue_mobile.lowering import kernels
from clue_mobile.programs import Traced
from exporters import onnx, onnx_kernels, onnx_memory
from exporters.base import Converted, Source, Tell

aten, clue = torch.ops.aten, torch.ops.clue
_CONVOLUTIONS = {
    clue.conv.default, clue.conv_stats.default, clue.conv_grad.default, clue.conv_input_grad.default,
}  # fmt: skip
OVERRIDES: dict[Any, Any] = kernels.OVERRIDES
# those that leave convolutions, norms and ReLU's masks in the form that `kernels.fuse` knows
PASSES = ("products", "joins", "concats")
FLOAT16 = False


def _read_where_it_lies(node: Node) -> bool:
    """Whether it is, or belongs to, a convolution's weights: no copy of their part of the parameters."""
    if node.target not in (aten.slice.Tensor, aten.reshape.default) or not node.users:
        return False
    return all(
        user.target in _CONVOLUTIONS or (user.target is aten.reshape.default and _read_where_it_lies(user))
        for user in node.users
    )


MEMORY = dataclasses.replace(
    onnx_memory.RULES,
    fused=lambda node: onnx_memory.RULES.fused(node) or _read_where_it_lies(node),
    recomputes=False,  # a copy would stand in the way of the fusing
    rewritten=kernels.fuse,
)


def versions() -> dict[str, str]:
    """As the ONNX exporter's, and the version of the operators."""
    return {**onnx.versions(), "clue-kernels": str(onnx_kernels.VERSION)}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """As `exporters.onnx.convert`; graphs that are not yet are fused in place first."""
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
