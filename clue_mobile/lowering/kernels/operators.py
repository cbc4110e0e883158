"""The kernel library's operators as PyTorch operators "clue::NAME": schema, reference, shapes, FLOPs.

The references spell each in PyTorch's own operators, channels last: what the kernels are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

aten = torch.ops.aten
_library = torch.library.Library("clue", "DEF")
_WINDOW = "int[] stride, int[] padding, int[] dilation, int groups"

Ints = Sequence[int]


def _define(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the function the operator `schema`, also for tensors that have only a shape."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        name = schema.partition("(")[0]
        _library.define(schema)
        _library.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"clue::{name}", function, lib=_library)
        return function

    return define


def last(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C], in memory too."""
    return x.permute(0, 2, 3, 1).contiguous()


def first(x: Tensor) -> Tensor:
    """[N, H, W, C] as [N, C, H, W]."""
    return x.permute(0, 3, 1, 2)


@_define(f"conv(Tensor x, Tensor w, Tensor? bias, {_WINDOW}) -> Tensor")
def conv(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """x [N, H, W, C], w [O, C / groups, kh, kw] -> [N, Ho, Wo, O]."""
    return last(aten.convolution(first(x), w, bias, stride, padding, dilation, False, [0, 0], groups))


@_define(f"conv_stats(Tensor x, Tensor w, Tensor? bias, {_WINDOW}) -> (Tensor, Tensor, Tensor)")
def conv_stats(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`conv`, and `stats` of its result."""
    y = conv(x, w, bias, stride, padding, dilation, groups)
    return (y, *stats(y))


def _gradients(
    g: Tensor, x: Tensor, w: Tensor, window: tuple[Ints, Ints, Ints, int], wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    stride, padding, dilation, groups = window
    made = aten.convolution_backward(
        first(g), first(x), w, None, stride, padding, dilation, False, [0, 0], groups, [*wanted, False]
    )
    return made[0], made[1]


@_define(f"conv_grad(Tensor g, Tensor x, Tensor w, {_WINDOW}) -> (Tensor, Tensor)")
def conv_grad(
    g: Tensor, x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> tuple[Tensor, Tensor]:
    """Gradients of x [N, H, W, C] and w [O, C / groups, kh, kw] from that of the result."""
    gx, gw = _gradients(g, x, w, (stride, padding, dilation, groups), [True, True])
    return last(gx), gw.contiguous()


@_define(f"conv_input_grad(Tensor g, Tensor w, int[] size, {_WINDOW}) -> Tensor")
def conv_input_grad(
    g: Tensor, w: Tensor, size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The gradient of x alone; size: x's height and width."""
    x = g.new_empty((g.shape[0], *size, w.shape[1] * groups))
    return last(_gradients(g, x, w, (stride, padding, dilation, groups), [True, False])[0])


@_define(f"conv_weight_grad(Tensor g, Tensor x, int[] kernel, {_WINDOW}) -> Tensor")
def conv_weight_grad(
    g: Tensor, x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The gradient of w alone; kernel: its height and width."""
    w = g.new_empty((g.shape[3], x.shape[3] // groups, *kernel))
    return _gradients(g, x, w, (stride, padding, dilation, groups), [False, True])[1].contiguous()


@_define("max_pool(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation) -> Tensor")
def max_pool(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    """x [N, H, W, C] -> [N, Ho, Wo, C]."""
    return last(aten.max_pool2d(first(x), kernel, stride, padding, dilation))


@_define(
    "max_pool_grad(Tensor g, Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation) -> Tensor"
)
def max_pool_grad(g: Tensor, x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    """The gradient of x: each of g's goes to the first of its window's largest values (row-major)."""
    window = (kernel, stride, padding, dilation, False)
    _, indices = aten.max_pool2d_with_indices(first(x), *window)
    return last(aten.max_pool2d_with_indices_backward(first(g), first(x), *window, indices))


@_define("stats(Tensor x) -> (Tensor, Tensor)")
def stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (the population's) of each channel of x [N, ..., C]."""
    mean = x.mean(list(range(x.dim() - 1)))
    centred = x - mean
    return mean, (centred * centred).mean(list(range(x.dim() - 1)))


@_define(
    "norm(Tensor x, Tensor mean, Tensor invstd, Tensor? weight, Tensor? bias, Tensor? residual, float low, "
    "float high, Tensor? after=None) -> Tensor"
)
def norm(
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    low: float,
    high: float,
    after: Tensor | None = None,
) -> Tensor:
    """(x - mean) * invstd * weight + bias + residual, clamped; x [N, ..., C], the rest but residual [C].

    Limits of -inf and inf clamp nothing. after: what a runtime must have computed first (see `again`).
    """
    out = (x - mean) * (invstd if weight is None else invstd * weight)
    out = out if bias is None else out + bias
    out = out if residual is None else out + residual
    return torch.clamp(out, low, high)


@_define(
    "norm_grad(Tensor g, Tensor x, Tensor mean, Tensor invstd, Tensor? weight, Tensor? bias, Tensor? out, "
    "Tensor? more, bool train, float low, float high) -> (Tensor, Tensor, Tensor, Tensor)"
)
def norm_grad(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    out: Tensor | None,
    more: Tensor | None,
    train: bool,
    low: float,
    high: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (x, weight, bias) of `norm`, and the masked gradient, which is the residual's.

    The result's gradient is g + more, and zero where `out`, the clamped result, is not strictly between the
    limits; without `out` the norm of x without residual takes its place. train: mean and invstd are x's own,
    so that it has a gradient through them (Ioffe and Szegedy 2015, part 3).
    """
    g = g.clone() if more is None else g + more
    if math.isfinite(low) or math.isfinite(high):
        g = clamp_grad(
            g, norm(x, mean, invstd, weight, bias, None, low, high) if out is None else out, low, high
        )
    axes = list(range(x.dim() - 1))
    centred, total = x - mean, g.sum(axes)
    along = (g * centred).sum(axes) * invstd
    gx, count = g, x.numel() // x.shape[-1]
    if train:
        gx = g - total / count - centred * (along * invstd / count)
    return gx * (invstd if weight is None else invstd * weight), along, total, g


@_define("clamp_grad(Tensor g, Tensor out, float low, float high) -> Tensor")
def clamp_grad(g: Tensor, out: Tensor, low: float, high: float) -> Tensor:
    """g where `out`, what was or will be clamped, is strictly between the limits, else 0."""
    return torch.where((out > low) & (out < high), g, torch.zeros_like(g))


@_define(
    "layer_norm(Tensor x, Tensor? weight, Tensor? bias, float eps, Tensor? after=None) "
    "-> (Tensor, Tensor, Tensor)"
)
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, after: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x [..., C] normalised over its last axis, and mean and 1/std [..., 1] (Ba et al. 2016)."""
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    invstd = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)
    out = centred * invstd
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, invstd


@_define(
    "layer_norm_grad(Tensor g, Tensor x, Tensor mean, Tensor invstd, Tensor? weight) "
    "-> (Tensor, Tensor, Tensor)"
)
def layer_norm_grad(
    g: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (x, weight, bias) of `layer_norm`."""
    normalised = (x - mean) * invstd
    scaled = g if weight is None else g * weight
    along = (scaled * normalised).mean(-1, keepdim=True)
    gx = (scaled - scaled.mean(-1, keepdim=True) - normalised * along) * invstd
    rest = list(range(x.dim() - 1))
    return gx, (g * normalised).sum(rest), g.sum(rest)


@_define("image(Tensor x, Tensor mean, Tensor std, Tensor? after=None) -> Tensor")
def image(x: Tensor, mean: Tensor, std: Tensor, after: Tensor | None = None) -> Tensor:
    """(x - mean) / std of x [N, C, H, W], mean and std [1, C, 1, 1] -> [N, H, W, C]."""
    return last((x - mean) / std)


@_define("part(Tensor vector, int start, int stop, Tensor? after=None) -> Tensor")
def part(vector: Tensor, start: int, stop: int, after: Tensor | None = None) -> Tensor:
    """The elements from start to stop, copied."""
    return vector[start:stop].clone()


@_define("gelu(Tensor x, Tensor? after=None) -> Tensor")
def gelu(x: Tensor, after: Tensor | None = None) -> Tensor:
    """x Phi(x) (Hendrycks and Gimpel 2016)."""
    return x * (0.5 * (1 + torch.erf(x * math.sqrt(0.5))))


@_define("gelu_grad(Tensor g, Tensor x) -> Tensor")
def gelu_grad(g: Tensor, x: Tensor) -> Tensor:
    """g times the derivative of `gelu`."""
    cdf = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    return g * (cdf + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


@_define("sgd(Tensor w, Tensor v, Tensor lr, Tensor? mask, Tensor[] g, float momentum) -> (Tensor, Tensor)")
def sgd(
    w: Tensor, v: Tensor, lr: Tensor, mask: Tensor | None, g: Sequence[Tensor], momentum: float
) -> tuple[Tensor, Tensor]:
    """`optimizer.sgd`, with a gradient that comes in pieces and is masked.

    v' = momentum v + g mask; w' = w - lr v'.
    """
    whole = torch.cat([piece.reshape(-1) for piece in g])
    moved = momentum * v + (whole if mask is None else whole * mask)
    return w - lr * moved, moved


def _conv_flops(x: Ints, w: Ints, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    y = out_shape[0] if isinstance(out_shape[0], (tuple, list, torch.Size)) else out_shape
    return 2 * torch.Size(y).numel() * w[1] * w[2] * w[3]


def _grad_flops(g: Ints, x: Ints, w: Ints, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    return 4 * torch.Size(g).numel() * w[1] * w[2] * w[3]


def _input_grad_flops(g: Ints, w: Ints, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * torch.Size(g).numel() * w[1] * w[2] * w[3]


def _weight_grad_flops(g: Ints, x: Ints, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * torch.Size(g).numel() * out_shape[1] * out_shape[2] * out_shape[3]


for _name, _formula in (
    ("conv", _conv_flops),
    ("conv_stats", _conv_flops),
    ("conv_grad", _grad_flops),
    ("conv_input_grad", _input_grad_flops),
    ("conv_weight_grad", _weight_grad_flops),
):
    register_flop_formula(getattr(torch.ops.clue, _name))(_formula)
