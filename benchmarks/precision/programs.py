"""Writes predict and step of digits_cnn as ONNX, computed in float16 between float32 ports, for kernels.py.

    python benchmarks/precision/programs.py FOLDER

The step is in float16 throughout (no master copy, no loss scale): it shows kernels, and is not for use.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from torch import Tensor

from clue_mobile import methods, models, programs
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Program
from exporters import onnx


def halved(program: Program) -> Program:
    """The program with everything inside in float16."""

    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.float() for out in program.fn(*(tensor.half() for tensor in inputs)))

    return dataclasses.replace(program, name=f"{program.name}_float16", fn=fn, float16=True)


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
spec = models.resolve_spec("digits_cnn")
model = FlatModel(models.load(spec, None, seed=0), spec)
recipe = programs.build(model, "clue", methods.configure("clue", {"batch_norm": "frozen"}), 8)
for program in recipe.programs:
    if program.name in ("predict", "step"):
        for each in (program, halved(program)):
            name = f"{each.name}.onnx"
            (folder / name).write_bytes(onnx.convert_program(programs.trace(each), name)[name])
            print(folder / name)
