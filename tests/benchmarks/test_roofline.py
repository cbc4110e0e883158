"""The roofline's arithmetic, the traffic of small graphs by hand, the generated part of a document."""

from __future__ import annotations

import marked
import pytest
import roofline
import torch
import traffic
from pi5 import PI5, Assumptions, Machine, Work, seconds, totals
from torch import Tensor

from clue_mobile import programs
from clue_mobile.lowering import lower
from clue_mobile.plan import Port, Program

GIVEN = Assumptions(dense=0.5, grouped=0.1, bandwidth=1e9, cached=0)
SMALL = Machine(cores=1, hertz=1e9, pipes=1, lanes=4)  # 8 GFLOP/s


def test_the_peak_is_lanes_pipes_clock_cores() -> None:
    assert SMALL.peak == 8e9
    assert PI5.peak == pytest.approx(153.6e9)


def test_a_node_takes_the_longer_of_its_two_bounds_and_nodes_add_up() -> None:
    arithmetic = Work("dense", flops=4_000_000, bytes=1000)  # 1 ms at half the peak, 1 us of memory
    memory = Work("other", flops=0, bytes=2_000_000, count=3)  # 2 ms each
    grouped = Work("grouped", flops=800_000, bytes=0)  # 1 ms at a tenth of the peak
    assert seconds([arithmetic], SMALL, GIVEN) == pytest.approx(1e-3)
    assert seconds([memory], SMALL, GIVEN) == pytest.approx(6e-3)
    assert seconds([arithmetic, memory, grouped], SMALL, GIVEN) == pytest.approx(8e-3)
    assert totals([arithmetic, memory, grouped]) == (4_800_000, 6_001_000)


def test_what_fits_the_cache_costs_no_memory_time() -> None:
    cached = Assumptions(dense=0.5, grouped=0.1, bandwidth=1e9, cached=1000)
    assert seconds([Work("other", 0, 1000)], SMALL, cached) == 0
    assert seconds([Work("other", 0, 1001)], SMALL, cached) == pytest.approx(1001e-9)


def work_of(fn: object, *shapes: tuple[int, ...]) -> dict[tuple[str, int, int], int]:
    graph = lower(fn, [torch.zeros(shape) for shape in shapes])  # type: ignore[arg-type]
    return {(w.kind, w.flops, w.bytes): w.count for w in traffic.work(graph)}


def test_a_product_reads_both_sides_and_its_transpose_is_free() -> None:
    def fn(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return (a @ b.t(),)

    flops, moved = 2 * 3 * 5 * 7, 4 * (3 * 5 + 7 * 5 + 3 * 7)
    assert work_of(fn, (3, 5), (7, 5)) == {("dense", flops, moved): 1}


def test_a_copied_transpose_and_a_view_and_a_slice() -> None:
    def fn(a: Tensor) -> tuple[Tensor, ...]:
        return (a.reshape(12).reshape(2, 6) * 2, a.t() + 1, a[1:2] + 1)

    found = work_of(fn, (3, 4))
    # two elementwise nodes and the transpose: 12 elements read, 12 written; the slice and its sum: 4 and 4
    assert found == {("other", 0, 96): 3, ("other", 0, 32): 2}


def test_groups_are_told_apart() -> None:
    def fn(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return (torch.nn.functional.conv2d(x, w, groups=4),)

    moved = 4 * (4 * 9 + 4 + 4 * 9)
    assert work_of(fn, (1, 4, 3, 3), (4, 1, 1, 1)) == {("grouped", 2 * 4 * 9, moved): 1}


def test_the_nodes_flops_are_the_program_s() -> None:
    def fn(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = torch.nn.functional.conv2d(x, w.requires_grad_(), padding=1).relu().sum()
        return torch.autograd.grad(y, [w])

    ports = (Port("x", "batch", (2, 3, 6, 6), "x"), Port("w", "state", (4, 3, 3, 3), "w"))
    traced = programs.trace(Program("p", 2, ports, (Port("g", "result", (4, 3, 3, 3)),), fn))
    assert totals(traffic.work(traced.graph))[0] == traced.flops > 0


def test_the_table_shows_the_bounds_and_what_is_published() -> None:
    row = {
        "name": "vit_ti", "side": 224, "batch": 16, "planned_peak_bytes": 5e6,
        "work": [["dense", 15_360_000_000, 1000, 10], ["other", 0, 17_000_000, 100]],
    }  # fmt: skip
    text = roofline.table([row]).splitlines()[-1]
    cells = [cell.strip() for cell in text.strip("|").split("|")]
    # 153.6 GFLOP: 1 s at the peak; 1.7 GB: 0.1 s; predicted 1/0.7 + 0.1 and 1/0.3 + 0.17
    assert cells[2:8] == ["154", "1.7", "5", "1", "0.1", "**1.5 to 3.5**"]
    assert cells[8:] == ["2.99", "51"]


def test_a_generated_part_replaces_what_stood_between_its_markers() -> None:
    document = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    new = marked.filled(document, "x", "one\ntwo\n")
    assert new == "a\n<!-- x:begin -->\none\ntwo\n<!-- x:end -->\nb\n"
    assert marked.filled(new, "x", "one\ntwo") == new
    for wrong in ("no markers", document * 2, "<!-- x:end --><!-- x:begin -->"):
        with pytest.raises(ValueError, match="once each"):
            marked.filled(wrong, "x", "")
