"""ONNX: standard operators of one opset, for stock ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from clue_mobile.errors import ClueError
from clue_mobile.lowering import DEFAULT
from clue_mobile.memory.barrier import after
from clue_mobile.programs import Traced
from exporters.base import Converted, Source, Tell, tensor_names

try:
    import onnx
    import onnx_ir
    import onnxscript
    from onnx_ir.passes import common

    from exporters import onnx_external, onnx_forms, onnx_graph, onnx_in_place, onnx_memory, onnx_ops
except ImportError as error:
    raise ClueError(
        "the ONNX exporter needs the packages onnx and onnxscript: pip install 'clue-mobile[export]'"
    ) from error

OVERRIDES: dict[Any, Any] = onnx_forms.OVERRIDES
PASSES: tuple[str, ...] = (*DEFAULT, "masks")
FLOAT16 = True
MEMORY = onnx_memory.RULES
OPSET = 20


def versions() -> dict[str, str]:
    """Versions of the packages that wrote the file."""
    return {"onnx": onnx.__version__, "onnxscript": onnxscript.__version__, "opset": str(OPSET)}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """One file a program, and NAME.onnx.data with its constants above 2 GiB; see `Exporter.convert`."""
    files: dict[str, bytes] = {}
    for traced in programs:
        name = f"{traced.program.name}.onnx"
        tell(traced.program.name)
        files |= convert_program(traced, name)
    return Converted(files, {t.program.name: f"{t.program.name}.onnx" for t in programs})


class Library(Protocol):
    """Operators besides the standard's: their domain, its version, and how they are translated."""

    DOMAIN: str
    VERSION: int
    TABLE: dict[Any, Callable[[onnx_graph.Call], onnx_graph.Result]]


def convert_program(
    traced: Traced, name: str = "model.onnx", library: Library | None = None
) -> dict[str, bytes]:
    """A checked ModelProto as the file `name`, with NAME.data beside it if its constants are too large.

    library: operators of another domain that the program may use.
    Raises ClueError, naming the operator, where there is no ONNX form.
    """
    try:
        if library is None:
            proto = onnx_ops.translate(traced.graph, OPSET)
        else:
            domains = {"": OPSET, library.DOMAIN: library.VERSION}
            proto = onnx_ops.translate(traced.graph, domains, library.TABLE)
    except onnx_graph.UnsupportedError as error:
        if library is not None:
            raise ClueError(f"program {traced.program.name!r} cannot become ONNX: {error}") from error
        if any(node.target is after for node in traced.graph.graph.nodes):
            raise ClueError(
                f"program {traced.program.name!r} has the operator {error}, which only PyTorch's exporter "
                "knows, and that one cannot keep recomputed values apart: leave --memory-budget out"
            ) from error
        proto = _by_pytorch(traced)
    proto = onnx_ir.to_proto(_tidy(onnx_ir.from_proto(proto)))
    _begin_late(proto.graph)
    _name_values(proto.graph, *tensor_names(traced))
    onnx_in_place.write(proto, traced.program)
    proto.producer_name = "clue-mobile"
    data = onnx_external.split(proto, f"{name}.data")
    if data is None:
        onnx.checker.check_model(proto, full_check=True)
    else:
        onnx_external.check(proto, f"{name}.data", data)
    foreign = ({node.domain for node in proto.graph.node} | {i.domain for i in proto.opset_import}) - {
        "",
        library.DOMAIN if library else "",
    }
    if foreign or proto.functions:
        raise ClueError(
            f"program {traced.program.name!r} came out with operators outside the ONNX standard: "
            f"{sorted(foreign)}"
        )
    files = {name: bytes(proto.SerializeToString(deterministic=True))}
    return files if data is None else {**files, f"{name}.data": data}


def _by_pytorch(traced: Traced) -> onnx.ModelProto:
    """PyTorch's own exporter: slower, and knows more operators than onnx_ops."""
    import torch

    from clue_mobile.programs import example_inputs

    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.export.export(traced.graph, example_inputs(traced.program))
            # optimize=False: its rewriter takes minutes on graphs of this size; _tidy does what matters
            made = torch.onnx.export(
                exported,
                (),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise ClueError(f"program {traced.program.name!r} cannot become ONNX: {reason}") from error
    finally:
        log.setLevel(level)
    assert made is not None
    return made.model_proto


def _begin_late(graph: onnx.GraphProto) -> None:
    """Put the nodes that read nothing computed in front: of the nodes that one waits for, ONNX Runtime runs
    the earliest in the file last, and what such a node makes is so held for no longer than it must. At the
    end of the file, where it is written, the product of momentum and its factor runs first of all and is
    held through the whole step: as many bytes as the parameters have."""
    given = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    parts: tuple[list[onnx.NodeProto], list[onnx.NodeProto]] = [], []
    for node in graph.node:
        parts[not given.issuperset(node.input)].append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend([*parts[0], *parts[1]])


def _tidy(model: onnx_ir.Model) -> onnx_ir.Model:
    """Drop identities, repeated and unused nodes, store equal constants once; forget where each node came
    from."""
    model = onnx_ir.passes.Sequential(
        common.InlinePass(),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    )(model).model
    for node in model.graph:
        node.metadata_props.clear()  # stack traces: they name files of the machine that exported
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    return model


def _name_values(graph: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> None:
    """Give inputs and outputs their ports' names and all inner values numbers: no two are called the same.

    An output that is an input, a constant or the value of another output needs a node of its own.
    """
    names = {"": ""}  # an optional input left out
    constants = {tensor.name for tensor in graph.initializer}
    computed = {
        name
        for node in graph.node
        if node.domain or (node.op_type == "Reshape" and node.input[1] not in constants)
        for name in node.output
    }
    for value, port in zip(graph.input, inputs, strict=True):
        names[value.name] = value.name = port
    made = [name for node in graph.node for name in node.output if name]
    ports: dict[str, str] = {}
    for value, port in zip(graph.output, outputs, strict=True):
        if value.name in made:
            ports.setdefault(value.name, port)
    for number, name in enumerate([*(tensor.name for tensor in graph.initializer), *made]):
        names[name] = ports.get(name, f"_{number}")
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for value, port in zip(graph.output, outputs, strict=True):
        if names[value.name] != port:
            graph.node.append(onnx.helper.make_node("Identity", [names[value.name]], [port]))
        value.name = port
    known = [info for info in graph.value_info if info.name in computed]  # their shapes cannot be inferred
    del graph.value_info[:]
    for info in known:
        info.name = names[info.name]
    graph.value_info.extend(known)
