"""ExecuTorch's own training: the method's loss with its gradients as one program for TrainingModule and SGD.

Not a program of the plan: an application drives it, with the mask and the teacher's logits from the bundle's
other programs. It is there for those who build on ExecuTorch's training extension already; its limits
(`_notes`) are why the plan's programs are the product.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.exported_program import ExportedProgram
from torch.fx import GraphModule, Node

from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import DEFAULT
from clue_mobile.memory.flops import count_flops
from clue_mobile.memory.rules import GRAPH
from clue_mobile.plan import Loss, Port
from clue_mobile.programs import Traced
from exporters.base import Converted, Source, Tell

try:
    from executorch import exir
except ImportError as error:
    raise ClueError(
        "the ExecuTorch exporter needs the package executorch: pip install 'clue-mobile[executorch]'"
    ) from error

OVERRIDES: dict[Any, Any] = {}
MEMORY = GRAPH
PASSES = DEFAULT
FLOAT16 = False
NAME = "executorch-joint"
METHOD = "forward"
# Portable kernels do about 0.5 GFLOP/s on x86-64: what is above this is not run at export to compare losses.
MOST_CHECKED = 2e10
# Of the scale of a loss, or of a parameter's gradient: ExecuTorch's long sums are naive float32.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-2

aten = torch.ops.aten


def versions() -> dict[str, str]:
    """Versions of the packages that wrote the file."""
    return {"executorch": version("executorch")}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """joint.pte (the program), joint.ptd (the trained parameters) and joint.json (how to call it).

    `programs` is not looked at. Raises ClueError where the method states no loss, for batch norm in training
    mode, for operators that ExecuTorch has no kernel for, and where the losses differ from PyTorch's.
    """
    tell("joint")
    loss = source.recipe.loss
    if loss is None:
        raise ClueError(
            f"--runtime {NAME}: this method's steps are no SGD on one loss, which is all that ExecuTorch's "
            "training knows; its programs for the other runtimes do not need that"
        )
    joint = Joint(source.model, loss)
    ports = input_ports(source.model, loss, batch=source.recipe.programs[0].batch)
    example = tuple(torch.full(port.shape, 0.5) for port in ports)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels whose unused results have no memory
        exported = torch.export.export(joint, example)
        _refuse_training_mode(exported)
        exported = _with_gradients(exported)
        file = _lowered(exported)
    _refuse_missing_kernels(file)
    flops = count_flops(exported.graph_module)
    data = _data(file)
    if flops <= MOST_CHECKED:
        _check(joint, ports, source, file.buffer, data)
    notes = _notes(checked=flops <= MOST_CHECKED)
    description = _description(joint, loss, ports, source.recipe.scalars[loss.lr], flops, notes)
    files = {
        "joint.pte": file.buffer,
        "joint.ptd": data,
        "joint.json": (json.dumps(description, indent=1) + "\n").encode(),
    }
    return Converted(files, {}, notes=notes)


class Joint(nn.Module):
    """(frozen state, x, targets, mask) -> (loss, metrics), with the model's parameters as its own.

    A parameter's gradient is multiplied by its part of the mask: w m + (w (1 - m)).detach() is w for a mask
    of 0 and 1, to the bit, and only the first term has a gradient.
    """

    def __init__(self, model: FlatModel, loss: Loss) -> None:
        super().__init__()
        self._flat, self._loss = model, loss
        for name, tensor in model.named("params", model.pack()["params"]).items():
            *path, leaf = name.split(".")  # a module for each dot, so that parameters keep their names
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            place.register_parameter(leaf, nn.Parameter(tensor.clone()))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs in the order of `input_ports`."""
        others = [name for name in self._flat.sizes if name != "params"]
        state = dict(zip(others, inputs, strict=False))
        x, *targets = inputs[len(others) :]
        leaves: dict[str, Tensor] = dict(self.named_parameters())
        if self._loss.mask is not None:
            masks = self._flat.named("params", targets.pop())
            leaves = {n: w * masks[n] + (w * (1 - masks[n])).detach() for n, w in leaves.items()}
        logits, _ = self._flat.forward(leaves, state, x, self._loss.batch_norm)
        return self._loss.fn(logits, *targets)


def input_ports(model: FlatModel, loss: Loss, batch: int) -> list[Port]:
    """The program's inputs: the state that training leaves alone, x, the loss's targets, the mask."""
    x = Port("x", "batch", (batch, *model.spec.input_shape), "x")
    state = [port for port in model.state_ports() if port.name != "params"]
    return [*state, x, *loss.targets, *([] if loss.mask is None else [loss.mask])]


def _refuse_training_mode(exported: ExportedProgram) -> None:
    for node in exported.graph.nodes:
        if node.target is aten.batch_norm.default and node.args[5]:  # its argument `training`
            raise ClueError(
                f"--runtime {NAME} has no batch norm in training mode (ExecuTorch has no kernel for it, and "
                "taking it apart after the joint graph gives wrong losses without a word): export with the "
                "running statistics, --set batch_norm=frozen, or for another runtime"
            )


def _with_gradients(exported: ExportedProgram) -> ExportedProgram:
    from torch.export.experimental import _export_forward_backward

    joint = _export_forward_backward(exported)
    joint = joint.run_decompositions({aten.max_pool2d_with_indices_backward.default: _max_pool_backward})
    for node in list(joint.graph.nodes):
        if node.target is aten.constant_pad_nd.default and min(node.args[1]) < 0:
            _cut_instead_of_pad(joint.graph_module, node)
    joint.graph_module.recompile()
    return joint


def _max_pool_backward(grad: Tensor, x: Tensor, *rest: Any) -> Tensor:
    """ExecuTorch 1.5's own kernel adds to memory that it does not set to zero (its issue 21686)."""
    indices: Tensor = rest[-1]
    planes = torch.zeros_like(x).flatten(-2)
    return planes.scatter_add(-1, indices.flatten(-2), grad.flatten(-2)).view(x.shape)


def _cut_instead_of_pad(graph_module: GraphModule, node: Node) -> None:
    """A negative pad, the backward of a pad, as slices: ExecuTorch's kernel refuses it at run time."""
    source: Node = node.args[0]  # type: ignore[assignment]
    pads: list[int] = list(node.args[1])  # type: ignore[arg-type]
    with graph_module.graph.inserting_before(node):
        for number in range(len(pads) // 2):
            before, after = pads[2 * number : 2 * number + 2]
            value = source.meta["val"]
            axis = value.dim() - 1 - number
            low, high = max(0, -before), value.shape[axis] + min(0, after)
            if (low, high) != (0, value.shape[axis]):
                source = graph_module.graph.call_function(aten.slice.Tensor, (source, axis, low, high))
                source.meta = {**node.meta, "val": value.narrow(axis, low, high - low)}
            pads[2 * number : 2 * number + 2] = max(0, before), max(0, after)
        if any(pads):
            padded = graph_module.graph.call_function(
                aten.constant_pad_nd.default, (source, pads, *node.args[2:])
            )
            padded.meta = dict(node.meta)
            source = padded
    node.replace_all_uses_with(source)
    graph_module.graph.erase_node(node)


def _lowered(exported: ExportedProgram) -> Any:
    """ExecuTorch's program, its parameters apart from it."""
    config = exir.ExecutorchBackendConfig(external_mutable_weights=True)
    try:
        edge = exir.to_edge(
            {METHOD: exported}, compile_config=exir.EdgeCompileConfig(_check_ir_validity=False)
        )
        return edge.to_executorch(config)
    except RuntimeError as error:  # its own sentence names the operators: "Missing out variants: {...}"
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ClueError(
            f"--runtime {NAME}: ExecuTorch cannot run this model's gradients: {reason}"
        ) from error


def _refuse_missing_kernels(file: Any) -> None:
    from executorch.extension.pybindings.portable_lib import _get_operator_names

    present = set(_get_operator_names())
    plan = file.executorch_program.execution_plan[0]
    missing = {f"{op.name}.{op.overload}".removesuffix(".") for op in plan.operators} - present
    if missing:
        raise ClueError(
            f"--runtime {NAME}: ExecuTorch has no kernel for {', '.join(sorted(missing))}, which this model "
            "or its gradients need: export for another runtime"
        )


def _data(file: Any) -> bytes:
    """The parameters in ExecuTorch's own format."""
    with tempfile.TemporaryDirectory() as folder:
        file.write_tensor_data_to_file(folder)
        (path,) = Path(folder).iterdir()
        return path.read_bytes()


# what is told


def _notes(checked: bool) -> tuple[str, ...]:
    return (
        f"{NAME}: joint.pte is for ExecuTorch's own TrainingModule and SGD in your application (joint.json "
        "says how to call it); no plan drives it, and the mask and the targets come from the bundle's other "
        "programs.",
        f"{NAME}: batch norm uses its running statistics and leaves them as they are; there is no training "
        "mode of it.",
        f"{NAME}: SGD only. Its momentum lives inside the optimizer (v = momentum v + g, w = w - lr v, v = 0 "
        "at the first step), where it can be neither saved nor restored: a request that is killed starts "
        "again. lr is fixed when the optimizer is made.",
        f"{NAME}: convolutions and their gradients run on ExecuTorch's naive portable kernels: a step of "
        "ResNet-20 at batch 32 took 14.8 s where eager PyTorch takes 0.16 s (x86-64, one thread).",
        f"{NAME}: joint.ptd holds the trained parameters, unlike the programs of the other runtimes: it is "
        "one more copy to deliver, to replace and to erase.",
        f"{NAME}: ExecuTorch's training has no iOS binding, and its Android binding does not save the "
        "weights: an application has to write the named parameters itself.",
        f"{NAME}: losses and gradients of the written file were compared with PyTorch's."
        if checked
        else f"{NAME}: too large to compare the written file's losses with PyTorch's at export.",
    )


def _description(
    joint: Joint, loss: Loss, ports: Sequence[Port], lr: float, flops: int, notes: Sequence[str]
) -> dict[str, Any]:
    """joint.json."""
    return {
        "program": "joint.pte",
        "data": "joint.ptd",
        "method": METHOD,
        "inputs": [port.to_json() for port in ports],
        "outputs": ["loss", *loss.metrics],
        "parameters": [
            {"name": name, "shape": list(parameter.shape)} for name, parameter in joint.named_parameters()
        ],
        "optimizer": {
            "kind": "SGD",
            "lr": lr,
            "momentum": loss.momentum,
            "dampening": 0,
            "weight_decay": 0,
            "nesterov": False,
        },
        "flops": flops,
        "notes": list(notes),
    }


# what is checked


def draw(ports: Sequence[Port], source: Source, seed: int = 0) -> list[Tensor]:
    """Inputs for a comparison: the state is the model's own, everything else is drawn."""
    generator = torch.Generator().manual_seed(seed)
    packed = source.model.pack()
    drawn = []
    for port in ports:
        if port.role == "state":
            drawn.append(packed[port.name])
        elif port.binds == "onehot":
            labels = torch.randint(port.shape[-1], port.shape[:-1], generator=generator)
            drawn.append(nn.functional.one_hot(labels, port.shape[-1]).float())
        elif port == (source.recipe.loss and source.recipe.loss.mask):
            drawn.append((torch.rand(port.shape, generator=generator) < 0.5).float())
        elif port.role == "batch":
            drawn.append(torch.rand(port.shape, generator=generator))
        else:
            drawn.append(torch.randn(port.shape, generator=generator))
    return drawn


def _check(joint: Joint, ports: Sequence[Port], source: Source, program: bytes, data: bytes) -> None:
    """Run the written file once and compare loss, metrics and gradients with PyTorch's own."""
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

    inputs = draw(ports, source)
    outputs = joint(*inputs)
    parameters = dict(joint.named_parameters())
    gradients = torch.autograd.grad(outputs[0], list(parameters.values()), allow_unused=True)
    found = _load_for_executorch_from_buffer(program, data).run_method(METHOD, inputs)
    names = ["the loss", *(source.recipe.loss.metrics if source.recipe.loss else ())]
    pairs = [(name, a, b, LOSS_TOLERANCE) for name, a, b in zip(names, found, outputs, strict=False)]
    for (name, parameter), gradient, got in zip(
        parameters.items(), gradients, found[len(outputs) :], strict=False
    ):
        wanted = torch.zeros_like(parameter) if gradient is None else gradient
        pairs.append((f"the gradient of {name}", got, wanted, GRADIENT_TOLERANCE))
    for name, got, wanted, tolerance in pairs:
        error = float((got - wanted).detach().abs().max() / wanted.detach().abs().max().clamp_min(1e-6))
        if not error <= tolerance:
            raise ClueError(
                f"--runtime {NAME}: in ExecuTorch {name} differs from PyTorch's by {error:.1e} of its scale, "
                "so nothing was written: export for another runtime"
            )
