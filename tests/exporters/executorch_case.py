"""What the tests of the ExecuTorch exporter share: functions as methods of one file, and their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clue_mobile.plan import Port, Program
from clue_mobile.programs import Traced, trace
from exporters.base import Converted

Function = Callable[..., tuple[Tensor, ...]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def traced(fn: Function, *shapes: Sequence[int], name: str = "p") -> Traced:
    """`fn` as a program of carries, lowered as the exporter asks."""
    from exporters.executorch import OVERRIDES

    examples = [torch.full(tuple(shape), 0.5) for shape in shapes]
    inputs = tuple(Port(f"in{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(examples))
    outputs = tuple(Port(f"out{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(fn(*examples)))
    return trace(Program(name, 1, inputs, outputs, fn), overrides=OVERRIDES)


def convert(*programs: Traced) -> Converted:
    from exporters import executorch

    return executorch.convert(programs, None, lambda name: None)  # type: ignore[arg-type]


def run(converted: Converted, name: str, *inputs: Tensor) -> list[Tensor]:
    from executorch.runtime import Runtime

    (data,) = converted.files.values()
    program = Runtime.get().load_program(data)
    return list(program.load_method(name).execute(inputs))


def close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-5) -> None:
    """Every tensor within `tolerance` of its largest element."""
    assert len(found) == len(expected)
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == torch.float32
        scale = max(float(b.abs().max()), 1e-3)
        assert float((a - b).abs().max()) <= tolerance * scale, f"output {index}"


def step_of(module: nn.Module, *shape: int, training: bool = False) -> tuple[Function, list[Tensor]]:
    """(f, inputs): f(x, cotangent, *parameters, *buffers) gives output, gradients and moved buffers."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            layer.num_batches_tracked = None
            layer.running_mean = draw(layer.num_features, seed=5)
            layer.running_var = draw(layer.num_features, seed=6) ** 2 + 0.1
    names = [name for name, _ in module.named_parameters()]
    buffers = {name: b for name, b in module.named_buffers() if b.is_floating_point()}
    x = draw(*shape)
    with torch.no_grad():
        out = module.eval()(x)
    module.train(training)

    def function(x: Tensor, cotangent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in (x, *state[: len(names)])]
        moved: dict[str, Any] = {
            name: t.clone() for name, t in zip(buffers, state[len(names) :], strict=True)
        }
        tensors = {**dict(zip(names, leaves[1:], strict=True)), **moved}
        output = functional_call(module, tensors, (leaves[0],))
        gradients = torch.autograd.grad(output, leaves, cotangent)
        return output.detach(), *gradients, *(moved.values() if training else ())

    state = [t.detach().clone() for t in (*module.parameters(), *buffers.values())]
    return function, [x, draw(*out.shape, seed=2), *state]
