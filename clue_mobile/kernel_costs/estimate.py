"""Costs of forms on a processor that is not at hand, estimated from what they compute and move.

A form's time is taken as its FLOPs over the rate that a matrix product sustains, plus the bytes that its
operators read and write over the memory's bandwidth: every operator of a graph reads its operands and writes
its result, except for reshapes. What an operator does inside (a convolution's unfolding) stays in the cache
and is not counted. benchmarks/kernels compares this with measured times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from clue_mobile.errors import unknown
from clue_mobile.kernel_costs import candidates
from clue_mobile.kernel_costs.candidates import Product
from clue_mobile.lowering.forms import OWN
from exporters.base import Exporter
from pi_runtime.kernel_costs import Record

# exact where the exporter leaves convolutions to the runtime
RUNTIMES = ("onnx",)
# Their time is not that of their operations and bytes, as measured on x86-64: `swapped` has products of as
# many columns as a kernel has elements, `winograd` strided copies. Neither is estimated, nor is any form of
# grouped convolutions, whose products are that thin too.
_NOT_ESTIMATED = {"swapped", "winograd"}


@dataclass(frozen=True)
class Processor:
    """What a float32 matrix product sustains on one core, and the bandwidth to memory of all."""

    flops_per_second: float
    bytes_per_second: float


# ONNX Runtime's transposed convolution scatters the columns of its product on one thread: so much of its time
# as the product of this many output channels takes. Measured with 1 and 2 threads on x86-64, ResNet-20's
# input gradients of stride 1, batch 32: shares 0.67, 0.58 and 0.46 at 16, 32 and 64 channels (here 0.75, 0.60
# and 0.43); of stride 2 0.72 at 32 (0.60), and 1.23 at 64, where the second thread cost time (0.43).
SCATTERING = 49


# Cortex-A76 of a Raspberry Pi 5: two 128-bit multiply-adds a cycle at 2.4 GHz are 38.4 GFLOP/s, of which 70 %
# are taken; the memory gives 10 to 17 GB/s in published measurements, of which the lower end is taken.
PROCESSORS = {"cortex-a76": Processor(0.7 * 38.4e9, 10e9)}


def _bytes(node: Node) -> int:
    value = node.meta.get("val")
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def traffic(graph: GraphModule) -> int:
    """Bytes that the graph's operators read and write."""
    total = 0
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target is torch.ops.aten.reshape.default:
            continue
        total += _bytes(node) + sum(_bytes(source) for source in node.all_input_nodes)
    return total


def _transposed(graph: GraphModule) -> bool:
    """Whether a transposed convolution is in it."""
    return any(n.target is torch.ops.aten.convolution.default and n.args[6] for n in graph.graph.nodes)


def milliseconds(
    flops: int, moved: int, processor: Processor, threads: int = 1, serial: float = 0.0
) -> float:
    """The estimate of a form; serial: the share of its operations that one thread does."""
    sharing = serial + (1 - serial) / threads
    return 1000 * (sharing * flops / processor.flops_per_second + moved / processor.bytes_per_second)


def _forms(each: Product) -> list[str]:
    if each.at.groups > 1:
        return [OWN]
    return [name for name in each.forms if name not in _NOT_ESTIMATED]


def estimate(
    name: str,
    runtime: str,
    exporter: Exporter,
    products: Sequence[Product],
    tell: Callable[[int, int, str], None] = lambda done, total, note: None,
    threads: int = 1,
) -> Record:
    """A record of kind "estimated" for the processor `name` with so many threads.

    Raises ClueError, listing them, for an unknown processor, and for a runtime whose graphs do not show what
    is computed.
    """
    if name not in PROCESSORS:
        raise unknown("processor", name, PROCESSORS)
    if runtime not in RUNTIMES:
        raise unknown("runtime that can be estimated", runtime, RUNTIMES)
    record = Record(runtime, "any", name, threads, "none", "estimated")
    for number, each in enumerate(products):
        tell(number, len(products), each.key)
        costs = {}
        for form in _forms(each):
            traced = candidates.trace(each, form, exporter)
            serial = 1 / (1 + each.at.outputs / SCATTERING) if _transposed(traced.graph) else 0.0
            cost = milliseconds(traced.flops, traffic(traced.graph), PROCESSORS[name], threads, serial)
            costs[form] = round(cost, 4)
        record.costs[each.key] = {
            "flops": each.at.flops, "ms": dict(sorted(costs.items(), key=lambda item: item[1])),
        }  # fmt: skip
    tell(len(products), len(products), "")
    return record
