"""Lowering: a phase of an unlearning method becomes a graph of forward operators for any inference runtime.

`lower` traces the function with its backward pass inside, replaces each backward operator by the functions
of this folder, turns in-place writes into values and folds what is left over. An operator's backward is
added as one function in one file's `TABLE`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from clue_mobile.errors import ClueError
from clue_mobile.lowering import activation, conv, norm, pool, reduce, refusal, resize, shape
from clue_mobile.lowering.graft import Table
from clue_mobile.lowering.passes import DEFAULT, LATER, clean

__all__ = ["DEFAULT", "TABLE", "Table", "lower"]

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
    passes: Collection[str] = DEFAULT,
    name: str = "program",
) -> GraphModule:
    """Trace `fn(*example)` into a pure graph of forward operators.

    `example` fixes shapes and dtypes (values do not matter); `fn` returns a tuple of tensors and may call
    `torch.autograd.grad`. `overrides` replace entries of `TABLE` for a runtime that is faster with another
    form; `passes` are names of `passes.PASSES`. Raises ClueError, naming the operator or the source line, for
    what cannot be traced or has no forward form.
    """
    table = {**_stock(), **TABLE, **(overrides or {})}
    first = {op: function for op, function in table.items() if op not in LATER}
    # without symbolic shapes, so that reading a value is an error where it happens
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def trace(more: Table | None = None) -> GraphModule:
        with sdpa_kernel(SDPBackend.MATH):
            return make_fx(
                dispatch_functionalize(fn, FunctionalTensorMode()),
                decomposition_table={**first, **(more or {})},
                tracing_mode="fake",
                _allow_non_fake_inputs=True,
            )(*(fake.from_tensor(torch.empty_like(t)) for t in example))  # equal tensors must stay two inputs

    collects = gc.isenabled()
    gc.disable()  # a trace keeps most of what it makes: looking for garbage takes a third of its time
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # nn.MultiheadAttention's fused inference kernel has no forward form
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with tracing(TracingContext(fake)):  # one mode for whatever the passes trace: two do not mix
            graph_module = trace()
            clean(graph_module, table, passes)
        refusal.refuse_leftovers(graph_module, name, trace)
    except ClueError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        where = refusal.place(error) or refusal.place_in_forward(trace)
        raise ClueError(f"the program {name!r} cannot be traced: {refusal.reason(error)}{where}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        if collects:
            gc.enable()
    return graph_module
