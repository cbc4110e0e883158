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


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x above zero, else weight * x; weight broadcasts over x (He et al. 2015)."""
    above = torch.relu(x)
    return above + weight * (x - above)


def prelu_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of (x, weight), the second not summed yet."""
    above = torch.relu(x)
    return grad * (weight + (1 - weight) * torch.sign(above)), grad * (x - above)


def _outside(x: Tensor, limit: float) -> Tensor:
    return torch.sign(torch.relu(torch.abs(x) - limit))


def hardshrink(x: Tensor, limit: float = 0.5) -> Tensor:
    """x outside of -limit .. limit, else 0."""
    return x * _outside(x, limit)


def softshrink(x: Tensor, limit: float = 0.5) -> Tensor:
    """x moved towards zero by at most `limit`."""
    return x - torch.clamp(x, -limit, limit)


def shrink_backward(grad: Tensor, x: Tensor, limit: float) -> Tensor:
    """1 outside of -limit .. limit, else 0."""
    return grad * _outside(x, limit)


def elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    """scale * (x above zero, else alpha * (exp(input_scale * x) - 1)); with other constants also selu."""
    above = torch.relu(x)
    return scale * (above + alpha * (torch.exp(input_scale * (x - above)) - 1))


def celu(x: Tensor, alpha: float = 1) -> Tensor:
    """elu whose slope is 1 at zero from both sides."""
    return elu(x, alpha, 1, 1 / alpha)


def elu_backward(
    grad: Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: Tensor
) -> Tensor:
    """scale above zero, else scale * alpha * input_scale * exp(input_scale * x); x is the result if
    is_result."""
    above = torch.relu(x)
    on = torch.sign(above)
    if is_result:
        below = (x - above) * input_scale + alpha * scale * input_scale
    else:
        below = scale * alpha * input_scale * torch.exp(input_scale * (x - above))
    return grad * (on * scale + (1 - on) * below)


def _log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(-|x|)), which never overflows."""
    return torch.log(1 + torch.exp(-torch.abs(x)))


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x exceeds the threshold."""
    scaled = x * beta
    soft = (torch.relu(scaled) + _log1p_exp(scaled)) / beta
    return torch.where(scaled > threshold, x, soft)


def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x)) (Misra 2019)."""
    return x * torch.tanh(torch.relu(x) + _log1p_exp(x))


def mish_backward(grad: Tensor, x: Tensor) -> Tensor:
    """t + x * sigmoid(x) * (1 - t * t) of t = tanh(softplus(x))."""
    t = torch.tanh(torch.relu(x) + _log1p_exp(x))
    return grad * (t + x * torch.sigmoid(x) * (1 - t * t))


def log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """(log(sigmoid(x)), a buffer that nothing needs)."""
    return x - torch.relu(x) - _log1p_exp(x), x.new_empty(0)


def log_sigmoid_backward(grad: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    """sigmoid(-x)."""
    return grad * torch.sigmoid(-x)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """The first half of an axis times the sigmoid of the second."""
    half = x.shape[dim] // 2
    return x.narrow(dim, 0, half) * torch.sigmoid(x.narrow(dim, half, half))


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
    aten._prelu_kernel.default: prelu,
    aten._prelu_kernel_backward.default: prelu_backward,
    aten.hardshrink.default: hardshrink,
    aten.hardshrink_backward.default: shrink_backward,
    aten.softshrink.default: softshrink,
    aten.softshrink_backward.default: shrink_backward,
    aten.elu.default: elu,
    aten.celu.default: celu,
    aten.elu_backward.default: elu_backward,
    aten.softplus.default: softplus,
    aten.mish.default: mish,
    aten.mish_backward.default: mish_backward,
    aten.log_sigmoid_forward.default: log_sigmoid,
    aten.log_sigmoid_backward.default: log_sigmoid_backward,
    aten.glu.default: glu,
    aten.silu.default: silu,
    aten.silu_backward.default: silu_backward,
    aten.gelu_backward.default: gelu_backward,
    aten._softmax_backward_data.default: softmax_backward,
    aten._log_softmax_backward_data.default: log_softmax_backward,
    aten._safe_softmax.default: safe_softmax,
}
