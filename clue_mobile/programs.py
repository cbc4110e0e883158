"""A method's programs, traced: graphs of forward operators with their cost, ready for any exporter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from clue_mobile import cuts, methods, mixed
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import DEFAULT, Table, lower
from clue_mobile.memory import liveness
from clue_mobile.memory.budget import fit
from clue_mobile.memory.flops import count_flops
from clue_mobile.memory.micro import accumulated
from clue_mobile.memory.rules import GRAPH, Rules
from clue_mobile.plan import Port, Program, Recipe


@dataclass(frozen=True)
class Traced:
    """A program as a graph. flops: of matrix products and convolutions, 2 per multiply-add. peak_bytes: see
    `memory.liveness.plan`. recomputed_flops: the share of `flops` that is spent twice to save memory."""

    program: Program
    graph: GraphModule
    flops: int
    peak_bytes: int
    recomputed_flops: int = 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph in eager PyTorch with the program's own arguments."""
        return tuple(self.graph(*inputs))


def predict_programs(model: FlatModel, batch: int) -> list[Program]:
    """`predict` (this batch) and `predict_1`, which every bundle has: they serve."""
    programs = []
    for name, size in (("predict", batch), ("predict_1", 1)):
        x = Port("x", "batch", (size, *model.spec.input_shape), "x")
        logits = Port("logits", "result", (size, model.spec.num_classes))

        def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
            state, (images,) = model.unflatten(inputs)
            return (model.predict(state, images),)

        programs.append(Program(name, size, (*model.state_ports(), x), (logits,), fn))
    return programs


def float16_predict(model: FlatModel, batch: int) -> Program:
    """`predict_float16`: as `predict`, computed in float16 from the float32 state."""
    x = Port("x", "batch", (batch, *model.spec.input_shape), "x")
    logits = Port("logits", "result", (batch, model.spec.num_classes))

    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (images,) = model.unflatten(tuple(tensor.half() for tensor in inputs))
        return (model.predict(state, images).float(),)

    return Program("predict_float16", batch, (*model.state_ports(), x), (logits,), fn, float16=True)


def build(
    model: FlatModel,
    method: str,
    config: Any,
    batch: int,
    *,
    float16: bool = False,
    train: methods.Samples | None = None,
    micro: int | None = None,
    cut_points: int = 0,
    halved: Sequence[str] = (),
) -> Recipe:
    """The method's recipe with the serving programs added, `float16`: also `predict_float16`; train: the
    training set, for a method whose bundle ships what it found there; micro: every program is for batches of
    this size, and a step takes the mean gradient of `batch` samples; cut_points: so many variants of the step
    (`cuts`); halved: programs that compute in float16 (`mixed`).

    Raises ClueError as the method does, and as `memory.micro.check`.
    """
    recipe = methods.build(method, model, config, micro or batch, train)
    if micro is not None and micro != batch:
        recipe = accumulated(recipe, model, method, batch, micro)
        batch = micro
    recipe = cuts.add(recipe, model, cut_points)
    recipe = mixed.apply(recipe, model, halved)
    serving = [*predict_programs(model, batch), *([float16_predict(model, batch)] if float16 else [])]
    return replace(recipe, programs=[*serving, *recipe.programs])


def example_inputs(program: Program, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Tensors of the right shapes to trace with; their values do not matter."""
    return tuple(torch.full(port.shape, 0.5, dtype=dtype) for port in program.inputs)


def trace(
    program: Program,
    *,
    overrides: Table | None = None,
    passes: Collection[str] = DEFAULT,
    dtype: torch.dtype = torch.float32,
    rules: Rules = GRAPH,
    budget: int | None = None,
) -> Traced:
    """Lower one program; overrides, passes: see `lower`. rules: of the runtime that it is for. budget: the
    most bytes that its planned peak may have; what must be is then recomputed. Raises ClueError where the
    model has no forward form, or the budget is below what can be reached."""
    inputs = example_inputs(program, dtype)
    graph = lower(program.fn, inputs, overrides=overrides, passes=passes, name=program.name)
    flops = count_flops(graph)
    graph = rules.rewritten(graph)
    if budget is None:
        return Traced(program, graph, flops, liveness.plan(graph, rules).peak_bytes)
    fitted = fit(graph, budget, rules, program.name)
    return Traced(program, fitted.graph, flops + fitted.flops, fitted.peak_bytes, fitted.flops)


def trace_all(
    programs: Sequence[Program],
    *,
    overrides: Table | None = None,
    passes: Collection[str] = DEFAULT,
    progress: Callable[[str], None] | None = None,
    rules: Rules = GRAPH,
    budget: int | None = None,
) -> list[Traced]:
    """Lower every program, telling `progress` the name of each first."""
    traced = []
    for program in programs:
        if progress:
            progress(program.name)
        traced.append(trace(program, overrides=overrides, passes=passes, rules=rules, budget=budget))
    return traced
