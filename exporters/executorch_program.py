"""Lowered graphs as one ExecuTorch program: pieces as calls of the delegate, the rest as kernels."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from executorch import exir
from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.lowered_backend_module import LoweredBackendModule
from executorch.exir.verification.verifier import EXIREdgeDialectVerifier
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
from exporters.executorch_pieces import Piece, Stage, piece

_CONFIG = exir.EdgeCompileConfig(_check_ir_validity=False)


def assemble(methods: Mapping[str, tuple[GraphModule, Sequence[Stage]]]) -> Any:
    """The `ExecutorchProgramManager` of all methods; each is a graph and how it is split.

    Raises ClueError, naming the method and the reason, where ExecuTorch cannot take what is left over for its
    kernels.
    """
    edge = {}
    for name, (graph_module, stages) in methods.items():
        program = _with_delegates(graph_module, stages)
        if any(node.op == "call_function" for _, rest in stages for node in rest):
            try:  # in ExecuTorch's own dialect; a graph of delegate calls alone is that already
                program = exir.to_edge({name: program}, compile_config=_CONFIG).exported_program(name)
            except Exception as error:  # its passes raise what they come across
                raise _refusal(name, error) from error
        edge[name] = program
    targets = {name: {str(node.target) for node in program.graph.nodes} for name, program in edge.items()}
    try:
        return exir.EdgeProgramManager(edge, compile_config=_CONFIG).to_executorch()
    except Exception as error:
        text = str(error)
        named = [
            n
            for n, found in targets.items()
            if any(t.split(".")[-2:-1] and t.split(".")[-2] in text for t in found)
        ]
        raise _refusal(", ".join(named or methods), error) from error


def _refusal(name: str, error: Exception) -> ClueError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ClueError(f"program {name!r} cannot become ExecuTorch: {reason}")


def _with_delegates(graph_module: GraphModule, stages: Sequence[Stage]) -> ExportedProgram:
    """The program with each piece as one call of the delegate."""
    graph, root, copies = Graph(), torch.nn.Module(), dict[Node, Node]()
    outputs: list[Node] = []
    inside = {node for taken, _ in stages for node in taken}
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
    for taken, rest in stages:
        if taken:
            _call(graph, root, piece(graph_module, taken), copies)
        for node in rest:
            if node.op == "output":
                returned: Any = node.args[0]
                outputs = [copies[n] for n in returned]
            elif node.op == "get_attr" and not all(user in inside for user in node.users):
                root.register_buffer(str(node.target), getattr(graph_module, str(node.target)))
                copies[node] = graph.node_copy(node)
            elif node.op == "call_function":
                copies[node] = graph.node_copy(node, copies.__getitem__)
    return _exported(root, graph, outputs)


def _call(graph: Graph, root: torch.nn.Module, made: Piece, copies: dict[Node, Node]) -> None:
    name = f"lowered_module_{sum(1 for _ in root.children())}"
    values = tuple(node.meta["val"] for node in made.results)
    module = LoweredBackendModule(_stand_in(made), "XnnpackBackend", made.blob, [], made.data)
    root.add_module(name, module)
    called = graph.call_function(
        executorch_call_delegate,
        (graph.get_attr(name), *(copies[node] for node in made.arguments)),
    )
    called.meta["val"] = values
    for index, node in enumerate(made.results):
        copies[node] = graph.call_function(operator.getitem, (called, index))
        copies[node].meta["val"] = values[index]


def _stand_in(made: Piece) -> ExportedProgram:
    """What ExecuTorch runs in place of a delegate to learn its results' shapes: a graph of empty tensors."""
    graph = Graph()
    for number, node in enumerate(made.arguments):
        graph.placeholder(f"argument_{number}").meta["val"] = node.meta["val"]
    outputs = []
    for node in made.results:
        empty = graph.call_function(torch.ops.aten.full.default, (list(node.meta["val"].shape), 0.0))
        empty.meta["val"] = node.meta["val"]
        outputs.append(empty)
    return _exported(torch.nn.Module(), graph, outputs)


def _exported(root: torch.nn.Module, graph: Graph, outputs: Sequence[Node]) -> ExportedProgram:
    """A graph of ATen operators as torch.export would return it, without tracing it again."""
    first = next((n for n in graph.nodes if n.op == "placeholder"), None)
    constants: dict[str, Any] = {}
    specs, lifts, placed = [], dict[Node, Node](), dict[str, Node]()
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        tensor = getattr(root, str(node.target))
        if not isinstance(tensor, torch.Tensor):
            continue
        if str(node.target) not in constants:
            constants[str(node.target)] = tensor
            with graph.inserting_before(first):
                placed[str(node.target)] = graph.placeholder(f"c_{node.target}")
            argument = TensorArgument(placed[str(node.target)].name)
            specs.append(InputSpec(InputKind.CONSTANT_TENSOR, argument, str(node.target)))
        lifts[node] = lifted = placed[str(node.target)]
        lifted.meta = node.meta
        node.replace_all_uses_with(lifted)
        graph.erase_node(node)
    users = [n for n in graph.nodes if n.op == "placeholder"][len(specs) :]
    specs += [InputSpec(InputKind.USER_INPUT, TensorArgument(n.name), None) for n in users]
    outputs = [lifts.get(node, node) for node in outputs]
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
