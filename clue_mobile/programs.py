"""A method's programs, traced: graphs of forward operators with their cost, ready for any exporter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from clue_mobile import cuts, methods, mixed
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import DEFAULT, Table, lower
from clue_mobile.plan import Port, Program, Recipe


@dataclass(frozen=True)
class Traced:
    """A program as a graph. flops: of matrix products and convolutions, 2 per multiply-add. peak_bytes: see
    `planned_peak`."""

    program: Program
    graph: GraphModule
    flops: int
    peak_bytes: int

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
    cut_points: int = 0,
    halved: Sequence[str] = (),
) -> Recipe:
    """The method's recipe with the serving programs added, `float16`: also `predict_float16`; train: the
    training set, for a method whose bundle ships what it found there; cut_points: so many variants of the
    step (`cuts`); halved: programs that compute in float16 (`mixed`).

    Raises ClueError as the method does.
    """
    recipe = cuts.add(methods.build(method, model, config, batch, train), model, cut_points)
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
) -> Traced:
    """Lower one program; overrides, passes: see `lower`. Raises ClueError where the model has no forward
    form."""
    inputs = example_inputs(program, dtype)
    graph = lower(program.fn, inputs, overrides=overrides, passes=passes, name=program.name)
    return Traced(program, graph, count_flops(graph), planned_peak(graph))


def trace_all(
    programs: Sequence[Program],
    *,
    overrides: Table | None = None,
    passes: Collection[str] = DEFAULT,
    progress: Callable[[str], None] | None = None,
) -> list[Traced]:
    """Lower every program, telling `progress` the name of each first."""
    traced = []
    for program in programs:
        if progress:
            progress(program.name)
        traced.append(trace(program, overrides=overrides, passes=passes))
    return traced


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, (tuple, list)) else []


def count_flops(graph: GraphModule) -> int:
    """FLOPs of the graph's matrix products and convolutions, by PyTorch's own formulas on the traced
    shapes."""
    from torch.utils.flop_counter import flop_registry

    total = 0
    for node in graph.graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet in flop_registry and node.op == "call_function":
            args = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
            total += int(flop_registry[packet](*args, **node.kwargs, out_val=node.meta["val"]))
    return total


# of a tensor, or of an operator's several results
_VIEWS = {torch.ops.aten.reshape.default, operator.getitem}


def planned_peak(graph: GraphModule) -> int:
    """Bytes alive at the worst moment of a run in graph order: inputs, outputs and the intermediates still
    needed (views are free)."""
    nodes = list(graph.graph.nodes)
    owner: dict[Node, Node] = {}
    last_use: dict[Node, int] = {}
    for index, node in enumerate(nodes):
        source = node.args[0] if node.target in _VIEWS else None
        owner[node] = owner[source] if isinstance(source, Node) else node
        for used in node.all_input_nodes:
            last_use[owner[used]] = index

    def size(node: Node) -> int:
        if node.op == "get_attr":
            return 0  # constants are part of the program's file
        return sum(t.numel() * t.element_size() for t in _tensors(node.meta.get("val")))

    alive = sum(size(n) for n in nodes if n.op == "placeholder")
    peak = alive
    for index, node in enumerate(nodes):
        if node.op == "call_function" and owner[node] is node:
            alive += size(node)
        peak = max(peak, alive)
        for done in {owner[u] for u in node.all_input_nodes}:
            if done.op == "call_function" and last_use[done] == index:
                alive -= size(done)
    return peak
