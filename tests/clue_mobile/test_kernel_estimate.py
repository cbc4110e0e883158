"""Estimates of what forms cost on a processor that is not at hand."""

from __future__ import annotations

import pytest
import torch

import exporters
from clue_mobile.errors import ClueError
from clue_mobile.kernel_costs.candidates import Product
from clue_mobile.kernel_costs.estimate import PROCESSORS, Processor, estimate, milliseconds, traffic
from clue_mobile.kernel_costs.table import chooser
from clue_mobile.lowering import lower
from clue_mobile.lowering.forms import Geometry


def test_traffic_counts_what_operators_read_and_write() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.exp(x).reshape(6).neg() + 1,)

    graph = lower(function, [torch.zeros(2, 3)])
    assert traffic(graph) == 3 * 2 * 6 * 4  # exp, neg, add: one operand and one result each; no reshape


def test_time_is_of_operations_and_bytes() -> None:
    assert milliseconds(2_000_000, 30_000_000, Processor(1e9, 1e10)) == pytest.approx(2 + 3)


def test_a_wide_layer_s_weight_gradient_is_cheapest_without_copies() -> None:
    """17 copies of an activation against 2: what was measured on x86-64 too (benchmarks/kernels)."""
    at = Geometry.parse("n32 c16 32x32 o16 k3x3 s1x1 p1x1 d1x1 g1")
    products = [Product("weight_gradient", at), Product("forward", at)]
    record = estimate("cortex-a76", "onnx", exporters.get("onnx"), products)
    assert (record.kind, record.machine) == ("estimated", "cortex-a76")
    choose = chooser([record], "onnx")
    assert choose is not None
    assert choose("weight_gradient", at) == "correlation"
    assert choose("forward", at) is None


def test_unknown_processors_and_runtimes() -> None:
    with pytest.raises(ClueError, match="cortex-a76"):
        estimate("z80", "onnx", exporters.get("onnx"), [])
    with pytest.raises(ClueError, match="litert"):
        estimate(next(iter(PROCESSORS)), "litert", exporters.get("onnx"), [])
