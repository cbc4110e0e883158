"""Checks that a manifest's names, shapes and loops fit each other: no request is to fail on them half way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pi_runtime.plan import Batches, Loop, Node, Number, Phase, ResetNode, RunNode, StopNode, leaves

if TYPE_CHECKING:
    from pi_runtime.bundle import Bundle, Port, Program, Random, Shape, Value

RESERVED_PHASES = ("request", "verify")
_MOST_ELEMENTS = 1 << 31
_MOST_SIDE = 65_535
_INPUT_ROLES = ("state", "carry", "cache", "batch", "scalar", "random")
_OUTPUT_ROLES = ("state", "carry", "cache", "result", "metric")


def check_references(bundle: Bundle, raw: Mapping[str, Any]) -> None:
    """Raise ClueError for the first contradiction in the manifest; `raw` is its JSON."""
    _check_entries(bundle, raw)
    _check_sizes(bundle)
    _check_values(bundle)
    for random in bundle.randoms.values():
        _check_random(bundle, random)
    for name in ("predict", "predict_1"):
        _check_classifier(bundle, name)
    for program in bundle.programs.values():
        _check_program(bundle, program)
    if bundle.programs["predict_1"].batch != 1:
        bundle.fail("program predict_1 must have batch 1")
    for node in bundle.plan:
        _check_node(bundle, node, _Around())
    if raw["schema_version"] < 2 and any(
        isinstance(node, RunNode) and node.instead for _, node in leaves(bundle.plan)
    ):
        bundle.fail("the plan has programs to run instead, which a manifest of version 1 cannot have")


def _check_entries(bundle: Bundle, raw: Mapping[str, Any]) -> None:
    """Each file named anywhere is in the list of files, with the same hash."""
    named = [(bundle.weights.file, bundle.weights.sha256)]
    for name, program in bundle.programs.items():
        named += [(entry.file, entry.sha256) for entry in program.files.values()]
        named.append((program.golden.file, raw["programs"][name]["golden"]["sha256"]))
    for file, sha256 in named:
        bundle.file(file)
        if bundle.sha256_of(file) != sha256:
            bundle.fail(f"{file} has two different SHA-256 in the manifest")
    for entry in raw["state"]:
        value = bundle.values.get(entry["value"])
        if value is None or value.role != "state":
            bundle.fail(f"state entry {entry['name']} lies in {entry['value']}, which is no state value")
        if entry["offset"] + math.prod(entry["shape"]) > math.prod(value.shape):
            bundle.fail(f"state entry {entry['name']} ends behind {entry['value']}")


def _check_sizes(bundle: Bundle) -> None:
    """No array is larger than any device could hold."""
    ports = [port for each in bundle.programs.values() for port in (*each.inputs, *each.outputs)]
    arrays: list[Value | Random | Port] = [*bundle.values.values(), *bundle.randoms.values(), *ports]
    for named in arrays:
        if math.prod(named.shape) > _MOST_ELEMENTS:
            bundle.fail(
                f"{named.name} of shape {list(named.shape)} has more than {_MOST_ELEMENTS:,} elements"
            )
    if max(bundle.input_shape) > _MOST_SIDE or bundle.batch > _MOST_SIDE:
        bundle.fail(f"sides and batches are at most {_MOST_SIDE:,}")


def _check_values(bundle: Bundle) -> None:
    earlier: dict[str, Shape] = {}
    keys: set[str] = set()
    for value in bundle.values.values():
        ((kind, source),) = [item for item in value.init.items() if item[0] != "key"]
        if value.role == "state":
            if kind != "weights":
                bundle.fail(f"state value {value.name} does not start from the weights")
            if source in keys:
                bundle.fail(f"two state values start from {source}")
            keys.add(source)
        if value.role == "cache" and kind != "zeros":
            bundle.fail(f"cache {value.name} does not start from zeros")
        if kind == "file":
            bundle.file(source)
        if kind == "value" and earlier.get(source) != value.shape:
            bundle.fail(f"value {value.name} starts from {source}, which is no earlier value of its shape")
        if kind == "random" and (source not in bundle.randoms or bundle.randoms[source].shape != value.shape):
            bundle.fail(f"value {value.name} starts from {source}, which is no random stream of its shape")
        if value.role != "cache":
            earlier[value.name] = value.shape
    if not keys:
        bundle.fail("no value has the role state")


def _check_random(bundle: Bundle, random: Random) -> None:
    if random.distribution == "uniform" and not random.low <= random.high:
        bundle.fail(f"random stream {random.name} has low above high")
    if random.distribution == "onehot" and (not random.shape or random.shape[-1] != random.classes):
        bundle.fail(f"random stream {random.name}: the last axis of its shape must be its classes")


def _check_program(bundle: Bundle, program: Program) -> None:
    names = [port.name for port in (*program.inputs, *program.outputs)]
    if len(set(names)) != len(names):
        bundle.fail(f"program {program.name} has two ports of one name")
    for ports, roles in ((program.inputs, _INPUT_ROLES), (program.outputs, _OUTPUT_ROLES)):
        for port in ports:
            if port.role not in roles:
                bundle.fail(
                    f"program {program.name}, port {port.name}: role {port.role} is not possible here"
                )
            _check_port(bundle, program, port, port.binds)
    if {port.name for port in program.inputs} != set(program.golden.inputs):
        bundle.fail(f"program {program.name}: golden inputs are not its inputs")
    for port in program.inputs:
        length = sum(draw["length"] for draw in program.golden.inputs[port.name])
        if length != math.prod(port.shape):
            bundle.fail(f"program {program.name}: golden input {port.name} has {length:,} elements")
    if not set(program.golden.strides) <= {port.name for port in program.outputs}:
        bundle.fail(f"program {program.name}: golden outputs are not its outputs")


def _check_port(bundle: Bundle, program: Program, port: Port, binds: str) -> None:
    """The port's shape is that of what it is joined to."""
    expected: Shape | None = None
    batch = (program.batch,)
    match port.role:
        case "state" | "carry" | "cache" if binds in bundle.values:
            value = bundle.values[binds]
            if value.role == port.role:
                expected = batch + value.shape if value.role == "cache" else value.shape
        case "batch":
            known = {"x": batch + bundle.input_shape, "onehot": (*batch, len(bundle.classes))}
            expected = known.get(binds)
        case "random" if binds in bundle.randoms:
            expected = batch + bundle.randoms[binds].shape
        case "scalar" if binds in bundle.scalars:
            expected = ()
        case "metric":
            expected = ()
        case "result":
            expected = port.shape
    where = f"program {program.name}, port {port.name}"
    if expected is None:
        bundle.fail(f"{where}: there is no {port.role} {binds!r}")
    if port.shape != expected:
        bundle.fail(f"{where}: shape {list(port.shape)} does not fit {binds or port.role} {list(expected)}")


def _check_classifier(bundle: Bundle, name: str) -> None:
    """The program takes state and x and gives logits [B, K]."""
    program = bundle.programs.get(name)
    if program is None:
        bundle.fail(f"there is no program {name}")
    inputs_fit = sorted(port.binds for port in program.inputs if port.role != "state") == ["x"]
    logits = [port for port in program.outputs if port.name == "logits" and port.role == "result"]
    if not inputs_fit or len(logits) != 1 or len(program.outputs) != 1:
        bundle.fail(f"program {name} must take state and x and give logits")
    if logits[0].shape != (program.batch, len(bundle.classes)):
        bundle.fail(f"program {name}: logits must be [{program.batch}, {len(bundle.classes)}]")


@dataclass(frozen=True)
class _Around:
    """The loops that enclose a node."""

    batches: Batches | None = None
    size: int = 0
    epochs: bool = False


def _check_number(bundle: Bundle, number: Number) -> None:
    if isinstance(number, str) and number not in bundle.scalars:
        bundle.fail(f"the plan names the scalar {number!r}, which the method does not have")


def _check_node(bundle: Bundle, node: Node, around: _Around) -> None:
    match node:
        case Phase():
            if node.name in RESERVED_PHASES:
                bundle.fail(f"a phase of the plan is called {node.name}, a name of the runtime's own records")
            inside = around
        case Loop():
            _check_number(bundle, node.count)
            inside = _Around(around.batches, around.size, around.epochs or node.kind == "epochs")
        case Batches():
            outer = around.batches
            if outer is not None and (
                around.size % node.size
                or node.order not in (None, outer.order or "shuffled")
                or node.augment not in (None, outer.augment or "none")
            ):
                bundle.fail(f"the batches of {node.size} inside batches of {around.size} do not fit them")
            inside = _Around(outer or node, node.size, around.epochs)
        case ResetNode():
            for name in node.values:
                if name not in bundle.values:
                    bundle.fail(f"the plan resets {name!r}, which is no value")
            return
        case RunNode():
            _check_run(bundle, node, around)
            return
        case StopNode():
            _check_classifier(bundle, node.program)
            _check_number(bundle, node.every)
            _check_number(bundle, node.accuracy_at_most)
            if not around.epochs:
                bundle.fail("the plan has a stop outside of any epochs loop")
            return
    for child in node.body:
        _check_node(bundle, child, inside)


def _check_run(bundle: Bundle, node: RunNode, around: _Around) -> None:
    program = bundle.programs.get(node.program)
    if program is None:
        bundle.fail(f"the plan runs {node.program!r}, which is no program")
    ports = {port.name: port for port in (*program.inputs, *program.outputs)}
    for name, binds in node.bind.items():
        if name not in ports:
            bundle.fail(f"the plan binds {name!r}, which is no port of program {program.name}")
        _check_port(bundle, program, ports[name], binds)
    for variant in node.instead:
        other = bundle.programs.get(variant.program)
        if other is None:
            bundle.fail(f"the plan runs {variant.program!r}, which is no program")
        if (other.batch, other.inputs, other.outputs) != (program.batch, program.inputs, program.outputs):
            bundle.fail(f"program {other.name} has other ports than {program.name}, which it stands in for")
        if program.files.keys() - other.files.keys():
            bundle.fail(f"program {other.name} lacks a runtime that {program.name} has")
        for name, count in variant.zeros.items():
            value = bundle.values.get(name)
            if value is None or value.role == "cache" or count > math.prod(value.shape):
                bundle.fail(
                    f"program {other.name} asks for {count:,} zeros of {name!r}, which has not so many"
                )
    written = [
        node.bind.get(port.name, port.binds)
        for port in program.outputs
        if port.role in ("state", "carry", "cache")
    ]
    if len(set(written)) != len(written):
        bundle.fail(f"program {program.name} writes one value twice")
    needs_batch = any(port.role in ("batch", "cache", "random") for port in ports.values())
    if needs_batch and around.size != program.batch:
        place = f"in batches of {around.size}" if around.size else "outside of any batches"
        bundle.fail(f"program {program.name} takes batches of {program.batch} but the plan runs it {place}")
