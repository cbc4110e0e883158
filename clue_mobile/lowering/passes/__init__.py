"""Graph passes: what a traced program becomes before an exporter sees it, one file each.

A pass changes the graph in place, computes the same within rounding, and says whether it changed anything;
views, constants and common subexpressions are cleaned up behind it. Every exporter's cost grows with the
nodes, so none is kept for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch.fx import GraphModule

from clue_mobile.lowering import gather, ranks
from clue_mobile.lowering.graft import Table, spell
from clue_mobile.lowering.passes import (
    channel_scales,
    concats,
    constants,
    equal,
    frozen_norm,
    joins,
    masks,
    pools,
    products,
    views,
)

__all__ = ["DEFAULT", "LATER", "PASSES", "clean"]

aten = torch.ops.aten

_NORMS = (aten._native_batch_norm_legit_no_training.default, aten.native_batch_norm_backward.default)
_CONVOLUTIONS = (aten.convolution_backward.default, aten.convolution.default)
# operators of the lowering's table that the passes look at before they are spelled
LATER = frozenset((*_NORMS, *_CONVOLUTIONS))

Pass = Callable[[GraphModule, Table], bool]


def _spell_norms(graph_module: GraphModule, table: Table) -> bool:
    return spell(graph_module, _NORMS, table)


def _spell_convolutions(graph_module: GraphModule, table: Table) -> bool:
    return spell(graph_module, _CONVOLUTIONS, table)


# those that an exporter may leave out or add, in the order in which they run
PASSES: dict[str, Pass] = {
    "frozen_norm": frozen_norm.into_convolutions,
    "channel_scales": channel_scales.behind_convolutions,
    "products": products.join,
    "joins": joins.of_pads,
    "concats": concats.sink,
    "masks": masks.of_nonnegatives,
}
DEFAULT = ("frozen_norm", "channel_scales", "products", "joins", "concats")

# these always run: without them operators are left that no runtime has
_NEEDED: dict[str, Pass] = {
    "norms": _spell_norms,
    "convolutions": _spell_convolutions,
    "gather": gather.spell,
    "ranks": lambda graph_module, _: ranks.lower_permutes(graph_module),
    "pools": pools.values_only,
}
_ORDER = (
    "frozen_norm", "norms", "channel_scales", "convolutions", "products", "gather", "joins", "ranks", "pools",
    "concats", "masks",
)  # fmt: skip


def clean(
    graph_module: GraphModule, table: Table | None = None, passes: Collection[str] = DEFAULT
) -> GraphModule:
    """Run the passes named, and those that always run. `table`: lowerings of what the passes write, and of
    `LATER`."""
    _shrink(graph_module)
    for name in _ORDER:
        if name in PASSES and name not in passes:
            continue
        if (PASSES | _NEEDED)[name](graph_module, table or {}):
            _shrink(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _shrink(graph_module: GraphModule) -> None:
    size = -1
    while size != len(graph_module.graph.nodes):
        size = len(graph_module.graph.nodes)
        views.fold(graph_module)
        constants.fold(graph_module)
        equal.share(graph_module)
        graph_module.graph.eliminate_dead_code()
