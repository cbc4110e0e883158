"""Lowering: a phase of an unlearning method becomes a graph of forward operators for any inference runtime.

`lower` traces the function with its backward pass inside, replaces each backward operator by the functions
of this folder, turns in-place writes into values and folds what is left over. An operator's backward is
added as one function in one file's `TABLE`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from clue_mobile.errors import ClueError
from clue_mobile.lowering import activation, conv, norm, passes, pool, reduce, resize, shape
from clue_mobile.lowering.graft import Table

TABLE: Table = {
    op: function
    for part in (conv, norm, pool, activation, shape, resize, reduce)
    for op, function in part.TABLE.items()
}


@cache
def _stock() -> Table:
    """PyTorch's own decompositions for the backward operators that this folder does not spell."""
    from torch._decomp import core_aten_decompositions

    return {op: fn for op, fn in core_aten_decompositions().items() if "backward" in str(op)}


def lower(
    fn: Callable[..., Any],
    example: Sequence[Tensor],
    *,
    overrides: Table | None = None,
    name: str = "program",
) -> GraphModule:
    """Trace `fn(*example)` into a pure graph of forward operators.

    `example` fixes shapes and dtypes (values do not matter); `fn` returns a tuple of tensors and may call
    `torch.autograd.grad`. `overrides` replace entries of `TABLE` for a runtime that is faster with another
    form. Raises ClueError, naming the operator or the source line, for what cannot be traced or has no
    forward form.
    """
    table = {**_stock(), **TABLE, **(overrides or {})}
    # without symbolic shapes, so that reading a value is an error where it happens
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # nn.MultiheadAttention's fused inference kernel has no forward form
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            graph_module = make_fx(
                dispatch_functionalize(fn, FunctionalTensorMode()),
                decomposition_table=table,
                tracing_mode="fake",
                _allow_non_fake_inputs=True,
            )(*(fake.from_tensor(torch.empty_like(t)) for t in example))  # equal tensors must stay two inputs
    except ClueError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ClueError(f"the program {name!r} cannot be traced: {_reason(error)}{_place(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    passes.clean(graph_module, table)
    _refuse_leftovers(graph_module, name)
    return graph_module


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)) or "numpy()" in first:
        return (
            "its control flow or a shape depends on the data, and a program is one fixed sequence of "
            "operators: use tensor operations instead of branches on values, .item() and boolean indexing"
        )
    if first.startswith("Expected more than 1 value per channel"):
        return f"{first}: use a larger --batch, or frozen statistics"
    return first


def _place(error: Exception) -> str:
    """The innermost line of the traceback that is the model's own, as " (FILE, line N: SOURCE)", or ""."""
    package, framework = Path(__file__).parents[1], Path(torch.__file__).parent
    library = Path(traceback.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        ours = package in path.parents and package / "models" not in path.parents
        standard = library in path.parents and "site-packages" not in path.parts
        if not (ours or standard or framework in path.parents) and path.is_file():
            return f" ({path}, line {frame.lineno}: {frame.line})"
    return ""


def _refuse_leftovers(graph_module: GraphModule, name: str) -> None:
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        operator = str(node.target).removeprefix("aten.")
        if "backward" in operator:
            raise ClueError(
                f"the program {name!r} needs the backward of {operator!r}, which has no forward form yet: "
                "add a function for it in clue_mobile/lowering/, or freeze the layers in front of it"
            )
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise ClueError(
                f"the program {name!r} draws random numbers ({operator}), which a runtime cannot repeat: "
                "switch it off in the model's eval mode (F.dropout needs training=self.training)"
            )
        if "as_strided" in operator:
            raise ClueError(
                f"the program {name!r} reads memory by strides ({operator}), and a runtime's memory may lie "
                "otherwise: use reshape, permute and slices"
            )
        if node.target._schema.is_mutable:
            raise ClueError(
                f"the program {name!r} writes into a tensor ({operator}) that the tracer cannot follow"
            )
