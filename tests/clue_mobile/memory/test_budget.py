"""Recomputation within a budget: the same results bit for bit, and copies that stay copies."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from memory_case import step

import exporters
from clue_mobile.errors import ClueError
from clue_mobile.memory import liveness
from clue_mobile.memory.barrier import after
from clue_mobile.memory.budget import fit
from clue_mobile.memory.rules import GRAPH
from clue_mobile.programs import Traced, trace

MIB = 2**20


@pytest.fixture(scope="module")
def traced() -> Traced:
    return trace(step())


def budget(traced: Traced, share: float) -> int:
    """Inputs and outputs, and this share of what else the program needs."""
    found = liveness.plan(traced.graph)
    return int(found.ports_bytes + share * (found.peak_bytes - found.ports_bytes))


def inputs(traced: Traced) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(port.shape, generator=generator) for port in traced.program.inputs]


@pytest.mark.parametrize("share", [0.9, 0.8])
@pytest.mark.parametrize("ties", [False, True])
def test_it_fits_and_every_result_is_the_same_bit_for_bit(traced: Traced, share: float, ties: bool) -> None:
    allowed = budget(traced, share)
    fitted = fit(traced.graph, allowed, replace(GRAPH, ties=ties))
    assert liveness.plan(fitted.graph).peak_bytes == fitted.peak_bytes <= allowed < traced.peak_bytes
    assert fitted.recomputed > 0
    given = inputs(traced)
    for found, expected in zip(fitted.graph(*given), traced.graph(*given), strict=True):
        assert torch.equal(found, expected)
    assert any(node.target is after for node in fitted.graph.graph.nodes) == ties


def test_what_fits_is_left_alone(traced: Traced) -> None:
    fitted = fit(traced.graph, traced.peak_bytes)
    assert fitted.graph is traced.graph
    assert fitted.recomputed == fitted.flops == 0


def test_less_memory_costs_more_flops(traced: Traced) -> None:
    flops = [fit(traced.graph, budget(traced, share)).flops for share in (0.95, 0.8)]
    assert flops[0] < flops[1] < traced.flops


def test_a_budget_out_of_reach_says_what_can_be_reached(traced: Traced) -> None:
    with pytest.raises(ClueError, match=r"'step' needs .* at least [\d.]+MiB") as error:
        fit(traced.graph, 1000, name="step")
    found = re.search(r"at least ([\d.]+)MiB", str(error.value))
    assert found is not None
    least = int(float(found[1]) * MIB)
    assert fit(traced.graph, least).peak_bytes <= least


def test_a_runtime_that_merges_by_itself_is_refused(traced: Traced) -> None:
    rules = exporters.get("onnx").MEMORY
    with pytest.raises(ClueError, match="nothing can be recomputed"):
        fit(traced.graph, budget(traced, 0.8), replace(rules, recomputes=False))


def test_onnx_keeps_the_copies_and_gives_the_same(traced: Traced, tmp_path: Path) -> None:
    """In the file and behind ONNX Runtime's own optimisers, which merge what is equal."""
    import onnxruntime

    exporter = exporters.get("onnx")
    fitted = fit(traced.graph, budget(traced, 0.8), exporter.MEMORY)
    outputs, nodes = [], []
    given = dict(zip([p.name for p in traced.program.inputs], inputs(traced), strict=True))
    for number, graph in enumerate((traced.graph, fitted.graph)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(exporter.convert_program(replace(traced, graph=graph), path.name)[path.name])
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"optimised{number}.onnx")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {name: tensor.numpy() for name, tensor in given.items()}))
        nodes.append(onnx.load(options.optimized_model_filepath).graph.node)
    for found, expected in zip(*outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    relus = [sum(node.op_type == "Relu" for node in graph) for graph in nodes]
    assert relus[1] > relus[0]
