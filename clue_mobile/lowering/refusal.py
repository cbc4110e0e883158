"""What cannot be lowered, in one sentence that names the line of the model."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.fx import GraphModule

from clue_mobile.errors import ClueError

_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n +(?P<source>\S.*)')


def reason(error: Exception) -> str:
    """Why a trace failed, and what would work."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "numpy()" in first:
        return (
            "it leaves PyTorch for NumPy, where no trace can follow, and where a custom autograd function "
            "does, its formula stays unseen: use tensor operations instead"
        )
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
        return (
            "its control flow or a shape depends on the data, and a program is one fixed sequence of "
            "operators: use tensor operations instead of branches on values, .item() and boolean indexing"
        )
    if first.startswith("Expected more than 1 value per channel"):
        return f"{first}: use a larger --batch, or frozen statistics"
    if first.startswith("You must implement either the backward"):
        return (
            "a custom autograd function has no formula for its gradient: give it a backward of tensor "
            "operations, or freeze the layers in front of it"
        )
    if found := re.search(r"Trying to backward through (\S+?)(\.default)? but no autograd", first):
        return (
            f"the custom operator {found[1]!r} has no formula for its gradient: register one made of tensor "
            "operations, or use tensor operations instead"
        )
    if isinstance(error, UnsupportedOperatorException):
        return (
            f"the custom operator {error.func} tells no tracer what it returns: use tensor operations instead"
        )
    return first


def _is_the_models(path: Path) -> bool:
    """Whether a source file is neither ours, PyTorch's nor Python's."""
    package, framework = Path(__file__).parents[1], Path(torch.__file__).parent
    library = Path(traceback.__file__).parent
    ours = package in path.parents and package / "models" not in path.parents
    standard = library in path.parents and "site-packages" not in path.parts
    return not (ours or standard or framework in path.parents) and path.is_file()


def _innermost(lines: Iterable[tuple[str, int | None, str | None]]) -> str:
    """The last of these lines that is the model's, as " (FILE, line N: SOURCE)", or ""."""
    for file, number, source in reversed(list(lines)):
        if _is_the_models(Path(file)):
            return f" ({file}, line {number}: {source})"
    return ""


def place(error: Exception) -> str:
    """The innermost line of the error's traceback that is the model's own, and was not left for the backward
    pass."""
    frames = traceback.extract_tb(error.__traceback__)
    engine = [number for number, f in enumerate(frames) if f.name == "_engine_run_backward"]
    return _innermost((f.filename, f.lineno, f.line) for f in frames[engine[-1] if engine else 0 :])


def _quoted(text: str) -> str:
    """The same of a traceback in print."""
    return _innermost((m["file"], int(m["line"]), m["source"].strip()) for m in _LINE.finditer(text))


def place_in_forward(trace: Callable[..., Any]) -> str:
    """For an error in the backward pass: the line of the forward pass that it is of, by tracing again."""
    anomaly = torch.autograd.set_detect_anomaly(True, check_nan=False)
    with warnings.catch_warnings(record=True) as told, anomaly:
        warnings.simplefilter("always")
        try:
            trace()
        except Exception:  # the same as before: only its warnings are of interest
            return next((line for w in told if (line := _quoted(str(w.message)))), "")
    return ""


def _place_of(target: torch._ops.OpOverload, trace: Callable[..., GraphModule]) -> str:
    """The line that calls an operator, or for a backward the forward that it belongs to, by tracing again."""
    forward = str(target._schema.name).split("::")[1].split("_backward")[0]
    packet = getattr(getattr(torch.ops, target.namespace), forward, None)
    lines: list[str] = []

    def listen(*args: Any, **kwargs: Any) -> Any:
        lines.append(_innermost((f.filename, f.lineno, f.line) for f in traceback.extract_stack()))
        return NotImplemented

    if packet is not None:
        trace({getattr(packet, overload): listen for overload in packet.overloads()})
    return lines[0] if lines else ""


def refuse_leftovers(graph_module: GraphModule, name: str, trace: Callable[..., GraphModule]) -> None:
    """Raises ClueError for an operator that no runtime has. `trace` makes the graph again, with more
    decompositions."""
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        operator = str(node.target).removeprefix("aten.")
        problem = _problem(node.target, operator)
        if problem:
            raise ClueError(f"the program {name!r} {problem}{_place_of(node.target, trace)}")


def _problem(target: torch._ops.OpOverload, operator: str) -> str | None:
    if "backward" in operator:
        return (
            f"needs the backward of {operator!r}, which has no forward form yet: "
            "add a function for it in clue_mobile/lowering/, or freeze the layers in front of it"
        )
    if torch.Tag.nondeterministic_seeded in target.tags:
        return (
            f"draws random numbers ({operator}), which a runtime cannot repeat: "
            "switch it off in the model's eval mode (F.dropout needs training=self.training)"
        )
    if "as_strided" in operator:
        return (
            f"reads memory by strides ({operator}), and a runtime's memory may lie "
            "otherwise: use reshape, permute and slices"
        )
    if target._schema.is_mutable:
        return f"writes into a tensor ({operator}) that the tracer cannot follow"
    if target.namespace not in ("aten", "prims", "clue"):  # the last: the kernel library's (lowering/kernels)
        return f"calls the operator {operator!r}, which no runtime has: use PyTorch's own operators"
    return None
