"""Mixed precision: a program's forward and backward pass in float16 between float32 ports.

The weights that a request changes stay float32, and so do the loss, the optimizer and everything on the flat
vectors: only what the model computes from the images is rounded. Gradients are those of the loss times
LOSS_SCALE, divided again in float32, so that small ones are not lost below float16's least number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from clue_mobile.errors import ClueError, unknown
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Program, Recipe

LOSS_SCALE = 1024.0  # a gradient may be up to 64: beyond it the weights become infinite and the request fails
CHOICES = ("step", "teacher")


def apply(recipe: Recipe, model: FlatModel, names: Sequence[str]) -> Recipe:
    """The recipe with these of its programs in float16; with a step also its variants (`cuts`).

    Raises ClueError for another name, or a step that moves running statistics, which float16 would round.
    """
    known = [name for name in CHOICES if any(each.name == name for each in recipe.programs)]
    for name in names:
        if name not in known:
            raise unknown("program for --float16", name, known)
    made = []
    for program in recipe.programs:
        if program.name.partition("_")[0] in names:
            if any(port.binds == "buffers" for port in program.outputs):
                raise ClueError(
                    "--float16 step would round the running statistics that it updates: set "
                    "batch_norm=frozen or batch_norm=batch_keep_running"
                )
            fn = _halved(model, program)
            program = dataclasses.replace(program, fn=fn, float16=True)
        made.append(program)
    return dataclasses.replace(recipe, programs=made)


def _halved(model: FlatModel, program: Program) -> Callable[..., tuple[Any, ...]]:
    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        with model.in_float16(LOSS_SCALE):
            return program.fn(*inputs)

    return fn
