"""Lowering: a phase of an unlearning method becomes a graph of forward operators that any inference runtime can run.

`lower` traces the function with its backward pass inside, replaces each backward operator by the functions of this folder, removes
in-place writes and folds what is left over. An operator's backward is added as one function in one file's `TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from clue_mobile.errors import ClueError
from clue_mobile.lowering import activation, conv, norm, passes, pool, shape

Table = Mapping[Any, Callable[..., Any]]

TABLE: dict[Any, Callable[..., Any]] = {**conv.TABLE, **norm.TABLE, **pool.TABLE, **activation.TABLE, **shape.TABLE}


def _stock() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own decompositions for the backward operators that this folder does not spell."""
    from torch._decomp import core_aten_decompositions

    return {op: fn for op, fn in core_aten_decompositions().items() if "backward" in str(op)}


def lower(
    fn: Callable[..., Any], example: Sequence[Tensor], *, overrides: Table | None = None, name: str = "program"
) -> GraphModule:
    """Trace `fn(*example)` into a pure graph of forward operators.

    `example` fixes shapes and dtypes (values do not matter); `fn` returns a tuple of tensors and may call `torch.autograd.grad`.
    `overrides` replace entries of `TABLE` for a runtime that is faster with another form. Raises ClueError, naming the operator or
    the source line, for what cannot be traced or has no forward form.
    """
    table = {**_stock(), **TABLE, **(overrides or {})}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention's fused inference kernel has no forward form
    try:
        with sdpa_kernel(SDPBackend.MATH):
            traced = make_fx(fn, decomposition_table=table, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
        with torch.no_grad():
            pure = make_fx(
                torch.func.functionalize(traced, remove="mutations"),
                tracing_mode="fake",
                _allow_non_fake_inputs=True,
            )(*example)
    except ClueError:
        raise
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise ClueError(f"the program {name!r} cannot be traced: {_reason(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    passes.clean(pure)
    _refuse_leftovers(pure, name)
    return pure


def _reason(error: Exception) -> str:
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, GuardOnDataDependentSymNode) or "data-dependent" in str(error).lower() or "item()" in str(error):
        return f"its control flow depends on the data ({first}); use tensor operations instead of branches on values"
    return first


def _refuse_leftovers(graph_module: GraphModule, name: str) -> None:
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and "backward" in str(node.target):
            raise ClueError(
                f"the program {name!r} needs the backward of {str(node.target).replace('aten.', '')!r}, which has no forward form yet: "
                "add a function for it in clue_mobile/lowering/, or freeze the layers in front of it"
            )
