"""Backward of activations and softmax, element-wise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

aten = torch.ops.aten


def threshold_backward(grad: Tensor, x: Tensor, threshold: float) -> Tensor:
    """ReLU's backward: at threshold 0 autograd passes the output, so its sign is the 0/1 mask (a select costs twice as much)."""
    if threshold == 0:
        return grad * torch.sign(torch.relu(x))
    return torch.where(x <= threshold, torch.zeros_like(grad), grad)


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


TABLE = {
    aten.threshold_backward.default: threshold_backward,
    aten.gelu_backward.default: gelu_backward,
    aten._softmax_backward_data.default: softmax_backward,
    aten._log_softmax_backward_data.default: log_softmax_backward,
}
