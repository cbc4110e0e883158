"""Core ML: ML programs for iOS 16 and later, one package a program, and one of all programs for iOS 18."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from clue_mobile.errors import ClueError
from clue_mobile.lowering import DEFAULT, lower
from clue_mobile.memory.rules import Rules
from clue_mobile.plan import Program
from clue_mobile.programs import Traced, example_inputs
from exporters import coreml_forms, coreml_layers, coreml_load, coreml_ops, coreml_package
from exporters.base import Converted, Source, Tell
from exporters.coreml_graph import MOST_AXES, Builder, Call, UnsupportedError, size_of

coremltools = coreml_load.coremltools()

OVERRIDES: dict[Any, Any] = coreml_forms.TABLE
MEMORY = Rules(recomputes=False)
PASSES = DEFAULT
FLOAT16 = False  # its packages bring float16 forms of predict themselves
TOGETHER = "programs_ios18.mlpackage"
_SERVING = ("predict", "predict_1")  # the programs that float16 is offered for


def versions() -> dict[str, str]:
    """Versions of the packages that wrote the files."""
    return {"coremltools": coremltools.__version__}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """NAME.mlpackage for each program (iOS 16), NAME_float16.mlpackage for those that serve, and
    `TOGETHER` with all programs as functions (iOS 18)."""
    files: dict[str, bytes] = {}
    reports: dict[str, dict[str, Any]] = {}
    graphs: dict[str, tuple[Program, GraphModule]] = {}
    for traced in programs:
        name = traced.program.name
        tell(name)
        graphs[name] = traced.program, spelled(traced)
        reports[name] = {"minimum_system": "iOS 16, macOS 13", "functions_ios18": TOGETHER}
        files |= package(f"{name}.mlpackage", {"main": graphs[name]})
        if name in _SERVING:
            reports[name]["float16"] = f"{name}_float16.mlpackage"
            files |= package(f"{name}_float16.mlpackage", {"main": graphs[name]}, half=True)
    files |= package(TOGETHER, graphs, minimum="iOS18")
    return Converted(files, {name: f"{name}.mlpackage" for name in graphs}, reports)


def spelled(traced: Traced) -> GraphModule:
    """The graph with operators that `coreml_ops.TABLE` lacks in PyTorch's own simpler terms, if any."""
    missing = {
        node.target
        for node in traced.graph.graph.nodes
        if node.op == "call_function" and node.target is not operator.getitem
    } - coreml_ops.TABLE.keys()
    if not missing:
        return traced.graph
    from torch._decomp import core_aten_decompositions

    known = core_aten_decompositions()
    table = {op: known[op] for op in missing if op in known}
    example = example_inputs(traced.program)
    return lower(
        lambda *inputs: tuple(traced.graph(*inputs)),
        example,
        overrides={**OVERRIDES, **table},
        name=traced.program.name,
    )


def package(
    folder: str,
    graphs: Mapping[str, tuple[Program, GraphModule]],
    minimum: str = "iOS16",
    half: bool = False,
) -> dict[str, bytes]:
    """The files of one package with a function for each graph.

    half: compute with float16 what depends on the images. Raises ClueError naming the program and the
    operator that Core ML lacks.
    """
    builder = coremltools.converters.mil.mil.Builder
    builder.name_count.clear()  # or names would depend on what was converted before
    functions = {}
    for name, (program, graph) in graphs.items():
        try:
            functions[name] = _function(builder, program, graph, minimum, half)
        except UnsupportedError as error:
            raise ClueError(f"program {program.name!r} cannot become Core ML: {error}") from error
        except (ValueError, NotImplementedError) as error:  # of the builder, which checks what it is given
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ClueError(f"program {program.name!r} cannot become Core ML: {reason}") from error
    return coreml_package.write(functions, minimum, folder)


def _function(mb: Any, program: Program, graph: GraphModule, minimum: str, half: bool) -> Any:
    mil = coremltools.converters.mil.mil
    names = [port.name for port in (*program.inputs, *program.outputs)]
    prefix = "v"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    for port in (*program.inputs, *program.outputs):
        if len(port.shape) > MOST_AXES:
            raise UnsupportedError(f"{port.name} has {len(port.shape)} axes, and {MOST_AXES} are the most")
    given = {
        port.name: mb.placeholder(size_of(port.shape), dtype=mil.types.fp32, name=port.name)
        for port in program.inputs
    }
    with mil.Function(given, opset_version=getattr(coremltools.target, minimum)) as function:
        build = Builder(mb, prefix)
        inputs = [function.inputs[port.name] for port in program.inputs]
        results = translate(build, program, graph, inputs, half)
        outputs: list[Any] = []
        for port, value in zip(program.outputs, results, strict=True):
            value = build.cast(value, "fp32")
            if value.op is None or value.op.op_type == "const" or any(value is made for made in outputs):
                value = build.add("identity", x=value)
            value.name = value.op.name = port.name
            outputs.append(value)
        for value in inputs:
            if not value.child_ops:  # a port stays, used or not
                build.add("identity", x=value)
        function.set_outputs(outputs)
    return function


def translate(
    build: Builder, program: Program, graph: GraphModule, inputs: Sequence[Any], half: bool
) -> list[Any]:
    """The program's results in port order, computed from `inputs`.

    half: what depends on a port of role `batch` is computed in float16. Raises UnsupportedError naming the
    first operator that the table lacks.
    """
    nodes = list(graph.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    values: dict[Node, Any] = dict(zip(placeholders, inputs, strict=True))
    halves = {
        node for node, port in zip(placeholders, program.inputs, strict=True) if half and port.role == "batch"
    }
    for node in nodes:
        if halves.intersection(node.all_input_nodes):
            halves.add(node)
        if node.op == "get_attr":
            values[node] = _constant(build, getattr(graph, str(node.target)))
        elif node.op == "call_function" and node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif node.op == "call_function" and coreml_layers.turned(node) is None:
            if node.target not in coreml_ops.TABLE:
                raise UnsupportedError(f"the operator {node.target} has no Core ML form")
            values[node] = coreml_ops.TABLE[node.target](Call(build, node, values, node in halves))
            _check(node, values[node])
    (results,) = next(node for node in nodes if node.op == "output").args
    return [values[node] for node in results]


def _constant(build: Builder, tensor: torch.Tensor) -> Any:
    array = tensor.detach().reshape(size_of(tensor.shape)).numpy()
    return build.constant(array.astype("int32") if array.dtype == "int64" else array)


def _check(node: Node, value: Any) -> None:
    """The builder infers shapes itself: they must be those that PyTorch gave."""
    expected, found = node.meta["val"], value
    if isinstance(expected, (tuple, list)):
        expected, found = expected[0], value[0]
    if len(expected.shape) <= MOST_AXES and list(found.shape) != size_of(expected.shape):
        shapes = f"{list(expected.shape)} in PyTorch and {list(found.shape)} in Core ML"
        raise UnsupportedError(f"the operator {node.target} gives {shapes}")
