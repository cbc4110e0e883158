"""Micro-batches: a step's gradient summed over small batches, then one update; for frozen batch norm, whose
samples do not see each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from clue_mobile import plan
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.lowering.optimizer import sgd
from clue_mobile.plan import Loss, Node, Port, Program, Recipe, Value

GRADIENT = "gradient"


def check(recipe: Recipe, model: FlatModel, method: str, batch: int, micro: int) -> Loss:
    """What the method minimises. Raises ClueError where its step is no sum over micro-batches."""
    if batch % micro or not 1 <= micro < batch:
        able = ", ".join(str(size) for size in range(1, batch) if batch % size == 0)
        raise ClueError(f"--micro-batch {micro} must divide --batch {batch}: choose from {able}")
    loss = recipe.loss
    if loss is None:
        raise ClueError(
            f"--micro-batch: the steps of the method {method} are no plain SGD on a mean over the batch; "
            "leave it out, or take a smaller --batch"
        )
    if loss.batch_norm != "frozen" and model.has_batch_norm:
        raise ClueError(
            f"--micro-batch: batch_norm is {loss.batch_norm!r}, and statistics of small batches are not "
            "those of the large one; add --set batch_norm=frozen, or leave --micro-batch out"
        )
    return loss


def accumulated(recipe: Recipe, model: FlatModel, method: str, batch: int, micro: int) -> Recipe:
    """`recipe`, built for batches of `micro`, with steps that take the mean gradient of `batch` samples.

    The program `step` becomes `gradient` (adds this micro-batch's share) and `update` (SGD, once a batch);
    the plan's loop over batches gets a loop over micro-batches inside. Raises ClueError as `check` does.
    """
    loss = check(recipe, model, method, batch, micro)
    step = next(program for program in recipe.programs if program.name == "step")
    gradient, update = _gradient(model, loss, batch, micro), _update(model, loss, step, batch)
    programs = [p for p in recipe.programs if p is not step] + [gradient, update]
    size = model.sizes["params"]
    values = {**recipe.values, GRADIENT: Value("carry", (size,), {"zeros": True})}
    nodes, found = _replaced(recipe.plan, batch, micro)
    if not found:
        raise ClueError(f"--micro-batch: the plan of the method {method} has no loop over batches of steps")
    return dataclasses.replace(recipe, values=values, programs=programs, plan=nodes)


def _carried(model: FlatModel, name: str, suffix: str = "") -> Port:
    return Port(f"{name}{suffix}", "carry", (model.sizes["params"],), name)


def _gradient(model: FlatModel, loss: Loss, batch: int, micro: int) -> Program:
    share = micro / batch

    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (total, x, *targets) = model.unflatten(inputs)
        leaves = model.leaves(state)
        logits, _ = model.forward(leaves, state, x, "frozen")
        value, *metrics = loss.fn(logits, *targets)
        return total + share * model.gradient(value, leaves), *metrics

    x = Port("x", "batch", (micro, *model.spec.input_shape), "x")
    targets = [dataclasses.replace(port, shape=(micro, *port.shape[1:])) for port in loss.targets]
    inputs = (*model.state_ports(), _carried(model, GRADIENT), x, *targets)
    metrics = tuple(Port(name, "metric", ()) for name in loss.metrics)
    return Program(GRADIENT, micro, inputs, (_carried(model, GRADIENT, "_next"), *metrics), fn)


def _update(model: FlatModel, loss: Loss, step: Program, batch: int) -> Program:
    masked = loss.mask is not None

    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        params, momentum, *rest, gradient, lr = inputs
        if masked:
            gradient = gradient * rest[0]
        return sgd(params, momentum, gradient, lr, loss.momentum)

    params = Port("params", "state", (model.sizes["params"],), "params")
    mask = () if loss.mask is None else (loss.mask,)
    lr = next(port for port in step.inputs if port.role == "scalar" and port.binds == loss.lr)
    inputs = (params, _carried(model, "momentum"), *mask, _carried(model, GRADIENT), lr)
    outputs = (dataclasses.replace(params, name="params_next"), _carried(model, "momentum", "_next"))
    return Program("update", batch, inputs, outputs, fn)


def _replaced(nodes: Sequence[Node], batch: int, micro: int) -> tuple[list[Node], bool]:
    """The plan with each loop over batches that runs the step made two, and whether there was one."""
    made: list[Node] = []
    found = False
    for node in nodes:
        body = node.get("body")
        if node.get("loop") == "batches" and any(_steps(child) for child in node["body"]):
            made.append(_two_loops(node, batch, micro))
            found = True
        elif body is not None:
            inner, inside = _replaced(body, batch, micro)
            made.append({**node, "body": inner})
            found = found or inside
        else:
            made.append(node)
    return made, found


def _steps(node: Node) -> bool:
    return node.get("run") == "step"


def _two_loops(node: Node, batch: int, micro: int) -> Node:
    body: list[Any] = []
    for child in node["body"]:
        if not _steps(child):
            body.append(child)
            continue
        body.append(plan.reset(GRADIENT))
        body.append(plan.batches(micro, {**child, "run": GRADIENT}))
        body.append(plan.run("update"))
    return {**node, "size": batch, "body": body}
