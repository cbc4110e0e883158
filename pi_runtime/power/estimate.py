"""Energy from FLOPs and bytes, where nothing measures and an estimate was asked for.

An order of magnitude, never a measurement: one figure for a float32 operation with its share of an
instruction, one for a byte to or from memory, both of 45 nm silicon (M. Horowitz, Computing's energy problem,
ISSCC 2014): multiply 3.7 pJ and add 0.9 pJ, an instruction 70 pJ, here for four multiply-adds of a SIMD unit;
a 64-bit word from DRAM 1.3 to 2.6 nJ, here the mean. What idles meanwhile is not in it.
"""

from __future__ import annotations

from pi_runtime.bundle import Program

SOURCE = "estimate"
SCOPE = "arithmetic and memory traffic of the programs, from FLOPs and bytes"
J_PER_FLOP = (3.7 + 0.9) / 2 * 1e-12 + 70e-12 / 8
J_PER_BYTE = (1.3e-9 + 2.6e-9) / 2 / 8


def traffic(program: Program) -> int:
    """Bytes that one run moves at least: its inputs and outputs once, the planned intermediates twice."""
    ports = 0
    for port in (*program.inputs, *program.outputs):
        size = 4
        for extent in port.shape:
            size *= extent
        ports += size
    return ports + 2 * max(0, program.peak_bytes - ports)


def joules(flops: float, traffic_bytes: float) -> float:
    """The estimate in joules."""
    return flops * J_PER_FLOP + traffic_bytes * J_PER_BYTE


def of(program: Program) -> float:
    """The estimate for one run of a program, in joules."""
    return joules(program.flops, traffic(program))
