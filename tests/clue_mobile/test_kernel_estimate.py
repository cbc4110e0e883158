"""Estimates of what forms cost on a processor that is not at hand."""

from __future__ import annotations

import pytest
import torch

import exporters
from clue_mobile.errors import ClueError
from clue_mobile.kernel_costs.candidates import Product
from clue_mobile.kernel_costs.estimate import PROCESSORS, Processor, estimate, milliseconds, traffic
from clue_mobile.kernel_costs.table import chooser, defaults
from clue_mobile.lowering import lower
from clue_mobile.lowering.forms import Geometry


def test_traffic_counts_what_operators_read_and_write() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.exp(x).reshape(6).neg() + 1,)

    graph = lower(function, [torch.zeros(2, 3)])
    assert traffic(graph) == 3 * 2 * 6 * 4  # exp, neg, add: one operand and one result each; no reshape


def test_time_is_of_operations_and_bytes() -> None:
    assert milliseconds(2_000_000, 30_000_000, Processor(1e9, 1e10)) == pytest.approx(2 + 3)
    assert milliseconds(2_000_000, 30_000_000, Processor(1e9, 1e10), 4) == pytest.approx(0.5 + 3)
    assert milliseconds(2_000_000, 30_000_000, Processor(1e9, 1e10), 4, 0.5) == pytest.approx(1.25 + 3)


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


def test_with_four_threads_an_input_gradient_is_no_transposed_convolution() -> None:
    """ONNX Runtime scatters its columns on one thread."""
    at = Geometry.parse("n32 c16 32x32 o16 k3x3 s1x1 p1x1 d1x1 g1")
    products = [Product("input_gradient", at)]
    one, four = (
        estimate("cortex-a76", "onnx", exporters.get("onnx"), products, threads=threads) for threads in (1, 4)
    )
    assert four.threads == 4
    ms = [record.costs[products[0].key]["ms"] for record in (one, four)]
    assert ms[1]["convolution"] < 0.5 * ms[1]["own"] < 0.5 * ms[0]["own"]
    choose = chooser([one, four], "onnx")
    assert choose is not None
    assert choose("input_gradient", at) == "convolution"


def test_the_pi_s_defaults_are_for_one_thread_and_for_all_four() -> None:
    assert [record.threads for record in defaults("pi5")] == [1, 4]


def test_unknown_processors_and_runtimes() -> None:
    with pytest.raises(ClueError, match="cortex-a76"):
        estimate("z80", "onnx", exporters.get("onnx"), [])
    with pytest.raises(ClueError, match="litert"):
        estimate(next(iter(PROCESSORS)), "litert", exporters.get("onnx"), [])
