"""The operators that classifiers are made of: lowered, translated to ONNX and run there against eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from lowering_case import Apply, assert_forward_only, gradient_function
from torch import Tensor, nn

from clue_mobile.lowering import lower
from exporters import litert, litert_graph, litert_ops, onnx_ops
from exporters.onnx import OPSET


class Attention(nn.Module):
    """Multi-head attention of a sequence with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, tokens, 8]."""
        return self.attention(x, x, x, need_weights=False)[0]


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4]."""
        return self.second(self.first(x).tanh())


class Positions(nn.Module):
    """An embedding of positions, and a table read at constant indices."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.table = nn.Parameter(torch.zeros(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 4]."""
        return x * self.embedding(torch.tensor([5, 0, 5])) + self.table[torch.tensor([1, 4, 1])]


class WithoutDepth(nn.Module):
    """Stochastic depth and dropout, off outside of training, around an in-place residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv2d(4, 4, 1), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4, H, W]."""
        branch = self.drop(self.conv(x))
        if self.training:
            branch = branch * torch.bernoulli(torch.full((x.shape[0], 1, 1, 1), 0.5))
        branch += x
        return branch.relu_()


def _windows(x: Tensor) -> Tensor:
    """Swin's and MaxViT's: rolled, cut into windows, attended in each, put together again."""
    x = x.roll((-1, -1), (1, 2))
    cut = x.view(2, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4)
    grid = torch.softmax(cut @ cut.transpose(1, 2), -1) @ cut
    grid = grid.view(2, 2, 2, 2, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 4, 4)
    return grid.roll((1, 1), (1, 2))


def _attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x.sin(), x.cos())


IMAGE, VOLUME, SEQUENCE = (2, 4, 6, 5), (2, 4, 4, 5, 4), (2, 4, 7)

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "group norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "batch norm 1d": (lambda: nn.BatchNorm1d(4), SEQUENCE),
    "batch norm 3d": (lambda: nn.BatchNorm3d(4), VOLUME),
    "batch norm without running statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "dilated convolution": (lambda: nn.Conv2d(4, 3, 3, dilation=2, padding=2), IMAGE),
    "depthwise convolution": (lambda: nn.Conv2d(4, 8, 3, 2, 1, groups=4), IMAGE),
    "transposed convolution": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), IMAGE),
    "overlapping max pool": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "overlapping max pool 3d": (lambda: nn.MaxPool3d(3, 2, 1), VOLUME),
    "adaptive average pool": (lambda: nn.AdaptiveAvgPool2d((4, 2)), IMAGE),
    "adaptive average pool 1d": (lambda: nn.AdaptiveAvgPool1d(3), SEQUENCE),
    "adaptive average pool 3d": (lambda: nn.AdaptiveAvgPool3d((3, 2, 2)), VOLUME),
    "even adaptive average pool 3d": (lambda: nn.AdaptiveAvgPool3d((2, 5, 2)), VOLUME),
    "adaptive max pool": (lambda: nn.AdaptiveMaxPool2d((4, 2)), IMAGE),
    "adaptive max pool 1d": (lambda: nn.AdaptiveMaxPool1d(3), SEQUENCE),
    "adaptive max pool 3d": (lambda: nn.AdaptiveMaxPool3d(2), VOLUME),
    "prelu": (lambda: nn.PReLU(4), IMAGE),
    "silu": (nn.SiLU, IMAGE),
    "hardswish": (nn.Hardswish, IMAGE),
    "hardsigmoid": (nn.Hardsigmoid, IMAGE),
    "elu": (nn.ELU, IMAGE),
    "mish": (nn.Mish, IMAGE),
    "softplus": (nn.Softplus, IMAGE),
    "logsigmoid": (nn.LogSigmoid, IMAGE),
    "glu": (lambda: nn.GLU(1), IMAGE),
    "bilinear up": (lambda: nn.Upsample(scale_factor=1.5, mode="bilinear"), IMAGE),
    "bilinear down": (lambda: nn.Upsample(size=(3, 2), mode="bilinear", align_corners=True), IMAGE),
    "bicubic": (lambda: nn.Upsample(size=(7, 3), mode="bicubic"), IMAGE),
    "nearest": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "nearest to any size": (lambda: nn.Upsample(size=(4, 7)), IMAGE),
    "embedding": (Positions, (2, 3, 4)),
    "multi-head attention": (Attention, (2, 5, 8)),
    "fused attention": (lambda: Apply(_attend), (2, 2, 5, 4)),
    "weight tying": (Tied, (3, 4)),
    "weight norm": (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)), IMAGE),
    "in place, and stochastic depth off": (WithoutDepth, IMAGE),
    "windows": (lambda: Apply(_windows), (2, 4, 4, 4)),
    "channel shuffle": (lambda: nn.ChannelShuffle(2), IMAGE),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "local response norm": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "normalised": (lambda: Apply(lambda x: F.normalize(x, dim=1)), IMAGE),
    "maximum along an axis": (lambda: Apply(lambda x: x.max(1)[0] + x.std(1)), IMAGE),
    "reflected": (lambda: nn.ReflectionPad2d(1), IMAGE),
    "wrapped around": (lambda: nn.CircularPad2d(1), IMAGE),
}


def case(name: str) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """A module's outputs, gradients and new buffers as a function of the returned inputs."""
    make, shape = CASES[name]
    torch.manual_seed(0)
    module = make().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            layer.num_batches_tracked = None
            layer.train()
    x = torch.randn(shape)
    cotangent = torch.randn(module(x).shape)
    state = [t.detach() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    return gradient_function(module), [x, cotangent, *(t.clone() for t in state)]


def assert_close(name: str, got: Sequence[Any], want: Sequence[Tensor]) -> None:
    """Within 1e-5 of each output's scale, at least 1."""
    assert len(got) == len(want)
    for number, (one, other) in enumerate(zip(got, want, strict=True)):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(
            torch.from_numpy(one), other.detach(), rtol=0, atol=1e-5 * scale, msg=f"{name}: output {number}"
        )


@pytest.mark.parametrize("name", CASES)
def test_in_onnx_runtime(name: str) -> None:
    function, inputs = case(name)
    graph = lower(function, inputs)
    assert_forward_only(graph)
    proto = onnx_ops.translate(graph, OPSET)  # without PyTorch's own exporter

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    got = session.run(None, {f"i{number}": t.numpy() for number, t in enumerate(inputs)})
    assert_close(name, got, function(*inputs))


@pytest.mark.parametrize("name", CASES)
def test_in_litert(name: str) -> None:
    function, inputs = case(name)
    graph = lower(function, inputs, overrides=litert.OVERRIDES)
    want = function(*inputs)
    given, made = [f"i{n}" for n in range(len(inputs))], [f"o{n}" for n in range(len(want))]
    model = litert_graph.Model()
    litert_ops.translate(model, "p", graph, given, made)
    interpreter = Interpreter(model_content=model.to_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    arrays = {key: t.numpy() for key, t in zip(given, inputs, strict=True)}
    got = interpreter.get_signature_runner("p")(**arrays)
    assert_close(name, [got[key] for key in made], want)
