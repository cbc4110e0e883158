"""Activations and softmax, element-wise.

Masks are made by `sign` and `clamp`: mobile delegates refuse booleans, and a select costs twice as much as a
product. An activation that few runtimes have as one operator is spelled in the forward pass too, in terms
that its backward pass shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def threshold_backward(grad: Tensor, x: Tensor, threshold: float) -> Tensor:
    """ReLU's backward: at threshold 0 autograd passes the output, which its own relu leaves alone."""
    if threshold == 0:
        return grad * torch.sign(torch.relu(x))
    return torch.where(x <= threshold, torch.zeros_like(grad), grad)


def hardtanh(x: Tensor, low: float = -1, high: float = 1) -> Tensor:
    """ReLU6 with the limits 0 and 6."""
    return torch.clamp(x, low, high)


def hardtanh_backward(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """1 strictly between the limits, else 0."""
    clamped = torch.clamp(x, low, high)
    return grad * torch.sign((clamped - low) * (high - clamped))


def hardsigmoid(x: Tensor) -> Tensor:
    """clamp(x + 3, 0, 6) / 6 (Howard et al. 2019)."""
    return torch.clamp(x + 3, 0, 6) / 6


def hardsigmoid_backward(grad: Tensor, x: Tensor) -> Tensor:
    """1/6 strictly between -3 and 3, else 0."""
    return hardtanh_backward(grad, x + 3, 0, 6) / 6


def hardswish(x: Tensor) -> Tensor:
    """x * hardsigmoid(x) (Howard et al. 2019)."""
    return x * torch.clamp(x + 3, 0, 6) / 6


def hardswish_backward(grad: Tensor, x: Tensor) -> Tensor:
    """(2x + 3) / 6 strictly between -3 and 3, 0 below, 1 above."""
    clamped = torch.clamp(x + 3, 0, 6)
    inside = torch.sign(clamped * (6 - clamped))
    return grad * (clamped + (clamped - 3) * inside) / 6


def _leak(x: Tensor, slope: float) -> Tensor:
    return slope + (1 - slope) * torch.sign(torch.relu(x))


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x above zero, else slope * x."""
    return x * _leak(x, slope)


def leaky_relu_backward(grad: Tensor, x: Tensor, slope: float, self_is_result: bool) -> Tensor:
    """1 above zero, else `slope`."""
    return grad * _leak(x, slope)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return x * torch.sigmoid(x)


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """s * (1 + x * (1 - s)) of s = sigmoid(x)."""
    s = torch.sigmoid(x)
    return grad * s * (1 + x * (1 - s))


def gelu_backward(grad: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    """d/dx of x * Phi(x), or of its tanh approximation (Hendrycks and Gimpel 2016)."""
    if approximate == "tanh":
        slope = math.sqrt(2 / math.pi)
        square = x * x
        inner = torch.tanh(slope * (x + 0.044715 * square * x))
        derivative = slope * (1 + 3 * 0.044715 * square)
        return grad * (0.5 * (1 + inner) + 0.5 * x * (1 - inner * inner) * derivative)
    cdf = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    pdf = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return grad * (cdf + x * pdf)


def softmax_backward(grad: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    """y * (g - sum(g * y))."""
    return output * (grad - (grad * output).sum(dim, keepdim=True))


def log_softmax_backward(grad: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    """g - softmax * sum(g)."""
    return grad - torch.exp(output) * grad.sum(dim, keepdim=True)


def safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Attention's softmax. The plain one differs where a mask hides a whole row, which no classifier has."""
    return torch.softmax(x, dim, dtype)


TABLE: dict[Any, Callable[..., Any]] = {
    aten.threshold_backward.default: threshold_backward,
    aten.hardtanh.default: hardtanh,
    aten.hardtanh_backward.default: hardtanh_backward,
    aten.hardsigmoid.default: hardsigmoid,
    aten.hardsigmoid_backward.default: hardsigmoid_backward,
    aten.hardswish.default: hardswish,
    aten.hardswish_backward.default: hardswish_backward,
    aten.leaky_relu.default: leaky_relu,
    aten.leaky_relu_backward.default: leaky_relu_backward,
    aten.silu.default: silu,
    aten.silu_backward.default: silu_backward,
    aten.gelu_backward.default: gelu_backward,
    aten._softmax_backward_data.default: softmax_backward,
    aten._log_softmax_backward_data.default: log_softmax_backward,
    aten._safe_softmax.default: safe_softmax,
}
