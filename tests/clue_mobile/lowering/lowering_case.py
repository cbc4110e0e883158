"""What the tests share: a lowered function must equal torch.autograd and consist of forward operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from hypothesis import settings
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch.func import functional_call
from torch.fx import GraphModule

from clue_mobile.lowering import DEFAULT, lower

TOLERANCE = 1e-10  # of the largest element, in double

torch.set_num_threads(1)

examples = partial(settings, deadline=None, derandomize=True, database=None)
"""Decorator for property-based tests: `@examples(max_examples=20)`."""


def operators(graph: GraphModule) -> Counter[str]:
    """How often the graph calls each operator, by its name without "aten." and overload."""
    names = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    return Counter(name.removeprefix("aten.").split(".")[0] for name in names)


def assert_forward_only(graph: GraphModule) -> None:
    """No backward, in-place, copying or prims operator, rank above 5, negative pad or sum over no axes; all
    values of one fake mode, as ExecuTorch's ExportedProgram asks."""
    detect_fake_mode([n.meta["val"] for n in graph.graph.nodes if isinstance(n.meta.get("val"), Tensor)])
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        for tensor in value if isinstance(value, (tuple, list)) else [value]:
            assert not isinstance(tensor, Tensor) or tensor.dim() <= 5, f"{node}: rank {tensor.dim()}"
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = str(node.target)
        assert not node.target._schema.is_mutable, name
        assert "backward" not in name, name
        assert not name.startswith("prims"), name
        assert name.split(".")[1] not in {"copy", "alias", "detach", "clone", "view", "t", "transpose"}, name
        if name == "aten.constant_pad_nd.default":
            assert min(node.args[1]) >= 0, node.args
        if name in ("aten.sum.dim_IntList", "aten.mean.dim"):
            assert node.args[1], f"{node} reduces over no axes"


def assert_close(got: Sequence[Tensor], want: Sequence[Tensor], tolerance: float = TOLERANCE) -> None:
    """Each tensor within `tolerance` of the largest element."""
    assert len(got) == len(want)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, f"output {index}: {a.shape}, not {b.shape}"
        assert a.dtype == b.dtype
        if b.numel():
            scale = max(1.0, float(b.abs().max()))
            assert float((a - b).abs().max()) <= tolerance * scale, f"output {index}"


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal float64 values."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw_ties(*shape: int, seed: int = 0) -> Tensor:
    """Whole numbers from -2 to 2, so that many neighbours are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).double()


def gradient_function(module: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    """f(x, cotangent, *parameters, *buffers) -> output, gradients (and buffers in training mode)."""
    names = [name for name, _ in module.named_parameters()]
    buffer_names = [name for name, b in module.named_buffers() if b.is_floating_point()]

    def function(x: Tensor, cotangent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in (x, *state[: len(names)])]
        buffers = {name: t.clone() for name, t in zip(buffer_names, state[len(names) :], strict=True)}
        tensors = {**dict(zip(names, leaves[1:], strict=True)), **buffers}
        output = functional_call(module, tensors, (leaves[0],))
        grads = torch.autograd.grad(output, leaves, cotangent, allow_unused=True)
        moved = tuple(buffers.values()) if module.training else ()
        zeros = (torch.zeros_like(leaf) if g is None else g for g, leaf in zip(grads, leaves, strict=True))
        return output.detach(), *zeros, *moved

    return function


def check(
    module: nn.Module,
    *shape: int,
    training: bool = False,
    source: Callable[..., Tensor] = draw,
    tolerance: float = TOLERANCE,
    passes: Collection[str] = DEFAULT,
) -> GraphModule:
    """Lower forward and backward pass at an input of `shape`, compare with autograd; returns the graph."""
    torch.manual_seed(0)
    module = module.double().train(training)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            layer.num_batches_tracked = None
            layer.running_mean = draw(layer.num_features, seed=5)
            layer.running_var = draw(layer.num_features, seed=6) ** 2 + 0.1
    x = source(*shape)
    with torch.no_grad():
        output = module.eval()(x)
    module.train(training)
    state = [t.detach() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    inputs = [x, draw(*output.shape, seed=2), *state]
    function = gradient_function(module)
    graph = lower(function, [torch.zeros_like(t) for t in inputs], passes=passes)
    assert_forward_only(graph)
    before = [t.clone() for t in inputs]
    assert_close(graph(*inputs), function(*inputs), tolerance)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True)), "an input was written to"
    return graph


class Apply(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function's result."""
        return self.function(x)
