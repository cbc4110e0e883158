"""ExecuTorch: all programs as methods of one .pte, lowered to the XNNPACK delegate nearly whole.

Inputs and outputs stand in the order of the ports; a .pte has no names for them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from clue_mobile.errors import ClueError
from clue_mobile.lowering import DEFAULT
from clue_mobile.memory.rules import GRAPH
from clue_mobile.programs import Traced
from exporters.base import Converted, Source, Tell

try:
    # a registration of a package that executorch imports is deprecated: nothing that a user could change
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    from executorch.runtime import Runtime

    from exporters import executorch_pieces as pieces
    from exporters.executorch_program import assemble
except ImportError as error:
    raise ClueError(
        "the ExecuTorch exporter needs the package executorch: pip install 'clue-mobile[executorch]'"
    ) from error

from exporters.executorch_forms import OVERRIDES

__all__ = ["OVERRIDES", "convert", "versions"]
FILE = "programs.pte"
MEMORY = GRAPH
PASSES = DEFAULT
FLOAT16 = False
MOST_PORTABLE = 0.05  # share of a program's FLOPs on portable kernels above which the user is warned


def versions() -> dict[str, str]:
    """Versions of the packages that wrote the file."""
    return {"executorch": version("executorch")}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """One file with a method a program; see `Exporter.convert`."""
    methods, shares = {}, {}
    for traced in programs:
        name = traced.program.name
        tell(name)
        graph_module = pieces.prepared(traced.graph)
        stages = pieces.split(graph_module)
        methods[name] = (graph_module, stages)
        shares[name] = pieces.delegated_share(graph_module.graph, stages)
    file = assemble(methods)
    plans = {plan.name: plan for plan in file.executorch_program.execution_plan}
    reports = {
        name: {"delegated_flops": round(shares[name], 4), **_calls(name, plans[name])} for name in methods
    }
    return Converted({FILE: file.buffer}, dict.fromkeys(methods, FILE), reports, tuple(_notes(reports)))


def _calls(name: str, plan: Any) -> dict[str, Any]:
    """How many calls of the delegate and of each portable kernel a method makes.

    Raises ClueError for a kernel that ExecuTorch does not have.
    """
    known = Runtime.get().operator_registry.operator_names
    partitions, portable = 0, Counter[str]()
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if type(call).__name__ == "DelegateCall":
                partitions += 1
            elif type(call).__name__ == "KernelCall":
                kernel = plan.operators[call.op_index]
                full = f"{kernel.name}.{kernel.overload}".removesuffix(".")
                if full not in known:
                    raise ClueError(
                        f"program {name!r} needs the operator {kernel.name.removeprefix('aten::')!r}, which "
                        "ExecuTorch has no kernel for"
                    )
                portable[full] += 1
    return {"partitions": partitions, "portable": dict(sorted(portable.items()))}


def _notes(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    for name, report in reports.items():
        share = 1 - report["delegated_flops"]
        if share > MOST_PORTABLE:
            names = ", ".join(f"{op} x {count}" for op, count in report["portable"].items())
            notes.append(
                f"executorch: {share:.0%} of the FLOPs of program {name!r} run on ExecuTorch's portable "
                f"kernels, which are slow ({names})"
            )
    return notes
