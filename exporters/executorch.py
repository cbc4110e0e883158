"""ExecuTorch: all programs as methods of one .pte, lowered to the XNNPACK delegate nearly whole."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch.export.exported_program import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from clue_mobile.errors import ClueError
from clue_mobile.programs import Traced
from exporters.base import Converted, Source, Tell

try:
    from executorch import exir
    from executorch.exir.delegate import executorch_call_delegate
    from executorch.exir.lowered_backend_module import LoweredBackendModule
    from executorch.exir.verification.verifier import EXIREdgeDialectVerifier

    from exporters import executorch_pieces as pieces
except ImportError as error:
    raise ClueError(
        "the ExecuTorch exporter needs the package executorch: pip install 'clue-mobile[executorch]'"
    ) from error

from exporters.executorch_forms import OVERRIDES

__all__ = ["OVERRIDES", "convert", "versions"]
FILE = "programs.pte"
MOST_PORTABLE = 0.05  # share of a program's FLOPs on portable kernels above which the user is warned
_CONFIG = exir.EdgeCompileConfig(_check_ir_validity=False)


def versions() -> dict[str, str]:
    """Versions of the packages that wrote the file."""
    return {"executorch": version("executorch")}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """One file with a method a program; see `Exporter.convert`."""
    exported, shares = {}, {}
    for traced in programs:
        name = traced.program.name
        tell(name)
        graph_module = pieces.prepared(traced.graph)
        made = [pieces.piece(graph_module, nodes) for nodes in pieces.split(graph_module)]
        shares[name], _ = pieces.portable_work(graph_module.graph, made)
        exported[name] = _with_delegates(graph_module, made)
    file = exir.to_edge(exported, compile_config=_CONFIG).to_executorch()
    reports = {}
    for plan in file.executorch_program.execution_plan:
        reports[plan.name] = {"delegated_flops": round(shares[plan.name], 4), **_left_over(plan)}
    return Converted(
        {FILE: file.buffer},
        {traced.program.name: FILE for traced in programs},
        {traced.program.name: reports[traced.program.name] for traced in programs},
        tuple(_notes(reports)),
    )


def _left_over(plan: Any) -> dict[str, Any]:
    """How many calls of the delegate and of each portable kernel a method makes."""
    partitions, portable = 0, Counter()
    for instruction in plan.chains[0].instructions:
        call = instruction.instr_args
        if type(call).__name__ == "DelegateCall":
            partitions += 1
        elif type(call).__name__ == "KernelCall":
            kernel = plan.operators[call.op_index]
            portable[f"{kernel.name}.{kernel.overload}".removesuffix(".")] += 1
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


# a graph as an exported program


def _with_delegates(graph_module: GraphModule, made: Sequence[pieces.Piece]) -> ExportedProgram:
    """The program with each piece as one call of the delegate."""
    graph, copies = Graph(), dict[Node, Node]()
    root = torch.nn.Module()
    todo = list(made)
    inside = {node for each in made for node in each.nodes}
    waiting = [n for n in graph_module.graph.nodes if n not in inside]
    outputs: list[Node] = []
    while waiting or todo:
        # a piece as soon as its arguments are there
        ready = next((p for p in todo if all(n in copies for n in p.arguments)), None)
        if ready is not None:
            todo.remove(ready)
            _call(graph, root, ready, copies)
            continue
        node = next(n for n in waiting if all(i in copies for i in n.all_input_nodes))
        waiting.remove(node)
        if node.op == "output":
            outputs = [copies[n] for n in node.args[0]]
        elif node.op == "get_attr":
            if all(user in inside for user in node.users):
                continue
            root.register_buffer(str(node.target), getattr(graph_module, str(node.target)))
            copies[node] = graph.node_copy(node, copies.__getitem__)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return _exported(root, graph, outputs)


def _call(graph: Graph, root: torch.nn.Module, piece: pieces.Piece, copies: dict[Node, Node]) -> None:
    name = f"lowered_module_{sum(1 for _ in root.children())}"
    values = tuple(node.meta["val"] for node in piece.results)
    module = LoweredBackendModule(_stand_in(piece), "XnnpackBackend", piece.blob, [], piece.data)
    root.add_module(name, module)
    called = graph.call_function(
        executorch_call_delegate,
        (graph.get_attr(name), *(copies[node] for node in piece.arguments)),
    )
    called.meta["val"] = values
    for index, node in enumerate(piece.results):
        copies[node] = graph.call_function(operator.getitem, (called, index))
        copies[node].meta["val"] = values[index]


def _stand_in(piece: pieces.Piece) -> ExportedProgram:
    """What ExecuTorch runs in place of a delegate to learn its results' shapes: a graph of empty tensors."""
    graph = Graph()
    for number, node in enumerate(piece.arguments):
        graph.placeholder(f"argument_{number}").meta["val"] = node.meta["val"]
    outputs = []
    for node in piece.results:
        made = graph.call_function(torch.ops.aten.full.default, (list(node.meta["val"].shape), 0.0))
        made.meta["val"] = node.meta["val"]
        outputs.append(made)
    return _exported(torch.nn.Module(), graph, outputs)


def _exported(root: torch.nn.Module, graph: Graph, outputs: Sequence[Node]) -> ExportedProgram:
    """A graph of ATen operators as torch.export would return it, without tracing it again."""
    first = next((n for n in graph.nodes if n.op == "placeholder"), None)
    constants: dict[str, torch.Tensor] = {}
    specs = []
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        tensor = getattr(root, str(node.target))
        if not isinstance(tensor, torch.Tensor):
            continue
        with graph.inserting_before(first):
            lifted = graph.placeholder(f"c_{node.target}")
        lifted.meta = node.meta
        node.replace_all_uses_with(lifted)
        graph.erase_node(node)
        constants[str(node.target)] = tensor
        argument = TensorArgument(lifted.name)
        specs.append(InputSpec(InputKind.CONSTANT_TENSOR, argument, str(node.target)))
    users = [n for n in graph.nodes if n.op == "placeholder"][len(specs) :]
    specs += [InputSpec(InputKind.USER_INPUT, TensorArgument(n.name), None) for n in users]
    graph.output(tuple(outputs))
    signature = ModuleCallSignature(
        inputs=[],
        outputs=[],
        in_spec=pytree.tree_flatten((tuple(users), {}))[1],
        out_spec=pytree.tree_flatten(tuple(outputs))[1],
    )
    graph_module = GraphModule(root, graph)
    return ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=ExportGraphSignature(
            specs, [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(n.name), None) for n in outputs]
        ),
        state_dict={},
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", signature)],
        example_inputs=None,
        constants=constants,
        verifiers=[EXIREdgeDialectVerifier(edge_compile_config=_CONFIG, class_only=True)],
    )
