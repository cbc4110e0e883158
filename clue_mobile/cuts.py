"""Cut points: variants of the step whose backward pass stops at a block boundary, for masks that are empty
below it.

The mask is made on the device, so only there is known from which weight on it has any. Where it has none in
front of a cut point, no gradient there could change anything, and the variant that does not compute it gives
what the whole step gives: running statistics move all the same, and so do weights in front of the cut that
are still coasting, since the optimizer runs over all of them with a gradient of zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Node, Program, Recipe

STEP = "step"


def boundaries(model: FlatModel) -> dict[int, float]:
    """Where a block's trainable parameters begin, as offsets in `params`, and the share of the forward pass's
    FLOPs that is done in front of it.

    A block is a module two levels below the model (layer2.0), or one where it has no parts of its own (fc).
    """
    counter = FlopCounterMode(display=False)
    image = torch.zeros(1, *model.spec.input_shape)
    with counter, torch.no_grad():
        model.predict(model.pack(), image)
    counts = {
        name.partition(".")[2]: sum(parts.values()) for name, parts in counter.get_flop_counts().items()
    }
    counts.pop("", None)  # the whole model's; a parameter of its own, such as a class token, has no layer
    blocks: dict[str, int] = {}
    for entry in model.entries:
        if entry.value == "params":
            blocks.setdefault(_block(entry.name), entry.offset)
    total = sum(counts.get(block, 0) for block in _all_blocks(model)) or 1
    shares, spent = {}, 0
    for block in _all_blocks(model):
        if block in blocks:
            shares[blocks[block]] = spent / total
        spent += counts.get(block, 0)
    return shares


def choose(model: FlatModel, count: int) -> list[int]:
    """`count` offsets in `params` that divide the forward pass most evenly, first to last.

    Raises ClueError where the model has fewer block boundaries.
    """
    shares = {offset: share for offset, share in boundaries(model).items() if offset > 0}
    if not 0 <= count <= len(shares):
        raise ClueError(
            f"--cut-points {count}: {model.spec.model} has {len(shares)} block boundaries among the weights "
            f"that may change, give 0 to {len(shares)}"
        )
    chosen: list[int] = []
    for i in range(count):
        wanted = (i + 1) / (count + 1)
        left = [offset for offset in shares if offset not in chosen]
        chosen.append(min(left, key=lambda offset: abs(shares[offset] - wanted)))
    return sorted(chosen)


def add(recipe: Recipe, model: FlatModel, count: int) -> Recipe:
    """The recipe with `count` variants of its step, which the plan runs instead where the mask allows it.

    Raises ClueError for a method without a mask, or too few boundaries.
    """
    if count == 0:
        return recipe
    mask = recipe.loss.mask if recipe.loss is not None else None
    step = next((program for program in recipe.programs if program.name == STEP), None)
    if mask is None or step is None:
        raise ClueError("--cut-points: this method has no mask that could be empty below one; leave it out")
    cuts = choose(model, count)
    programs, instead = [], []
    for offset in reversed(cuts):  # the cheapest first: the first that is allowed runs
        name = f"{STEP}_from_{cuts.index(offset) + 1}"
        programs.append(dataclasses.replace(step, name=name, fn=_stopped(model, step, offset)))
        instead.append({"run": name, "zeros": {mask.binds: offset}})
    plan = [_rewritten(node, instead) for node in recipe.plan]
    return dataclasses.replace(recipe, programs=[*recipe.programs, *programs], plan=plan)


def _stopped(model: FlatModel, step: Program, offset: int) -> Callable[..., tuple[Any, ...]]:
    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        with model.stopped_at(offset):
            return step.fn(*inputs)

    return fn


def _rewritten(node: Node, instead: Sequence[Node]) -> Node:
    if node.get("run") == STEP:
        return {**node, "instead": list(instead)}
    if "body" in node:
        return {**node, "body": [_rewritten(child, instead) for child in node["body"]]}
    return node


def _block(name: str) -> str:
    """layer2.0 of layer2.0.conv1.weight, fc of fc.weight."""
    return ".".join(name.split(".")[:-1][:2])


def _all_blocks(model: FlatModel) -> list[str]:
    """In the order of the parameters, each once."""
    parameters = (entry.name for entry in model.entries if entry.kind == "parameter")
    return list(dict.fromkeys(map(_block, parameters)))
