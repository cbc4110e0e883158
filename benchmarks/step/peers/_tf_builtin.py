"""Layers in TensorFlow whose gradients are written with operators that LiteRT has."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from _tf import BN_EPSILON, BN_MOMENTUM, MOVING, Net


class BuiltinNet(Net):
    """The layers of ResNet-20."""

    def conv(self, x: Any, name: str, stride: int = 1, depthwise: bool = False) -> Any:
        """Padded by half the window on all sides, by an operator of its own."""
        pad = self.variables[f"{name}.weight"].shape[0] // 2
        padded = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]]) if pad else x
        # a variable is no tensor that a custom gradient could be asked for
        return _conv(padded, tf.convert_to_tensor(self.variables[f"{name}.weight"]), stride)

    def norm(self, x: Any, name: str) -> Any:
        """Batch norm in training mode; the running statistics move."""
        v = self.variables
        scale, offset = (tf.convert_to_tensor(v[f"{name}.{key}"]) for key in ("weight", "bias"))
        y, mean, variance = _norm(x, scale, offset)
        count = x.shape[0] * x.shape[1] * x.shape[2]
        found = (mean, variance * (count / (count - 1)))  # PyTorch keeps the unbiased variance
        for variable, value in zip((v[f"{name}.{key}"] for key in MOVING), found, strict=True):
            variable.assign(variable + BN_MOMENTUM * (tf.stop_gradient(value) - variable))
        return y

    def relu(self, x: Any) -> Any:
        """max(x, 0), its gradient by the sign of its result."""
        return _relu(x)

    def every_second(self, x: Any) -> Any:
        """Rows and columns 0, 2, 4, ...; its gradient puts zeros between."""
        return _every_second(x)


@tf.custom_gradient  # type: ignore[misc]
def _relu(x: Any) -> Any:
    y = tf.nn.relu(x)
    return y, lambda g: g * tf.sign(y)


@tf.custom_gradient  # type: ignore[misc]
def _every_second(x: Any) -> Any:
    def gradient(g: Any) -> Any:
        batch, height, width, channels = g.shape
        second = [[0, 0], [0, 0], [0, 1], [0, 0]]  # LiteRT pads up to five axes: columns first, then rows
        columns = tf.pad(tf.reshape(g, [batch * height, width, 1, channels]), second)
        rows = tf.pad(tf.reshape(columns, [batch, height, 1, 2 * width * channels]), second)
        return tf.reshape(rows, [batch, 2 * height, 2 * width, channels])

    return x[:, ::2, ::2, :], gradient


def _conv(x: Any, weight: Any, stride: int) -> Any:
    @tf.custom_gradient  # type: ignore[misc]
    def conv(x: Any, weight: Any) -> Any:
        def gradient(g: Any) -> tuple[Any, Any]:
            back = tf.nn.conv2d_transpose(g, weight, x.shape, stride, "VALID")
            # the weights' gradient: images convolved with g, channels as samples, samples as channels
            places = tf.nn.conv2d(
                tf.transpose(x, [3, 1, 2, 0]), tf.transpose(g, [1, 2, 0, 3]), 1, "VALID", dilations=stride
            )
            height, width = weight.shape[:2]
            return back, tf.transpose(places[:, :height, :width], [1, 2, 0, 3])

        return tf.nn.conv2d(x, weight, stride, "VALID"), gradient

    return conv(x, weight)


@tf.custom_gradient  # type: ignore[misc]
def _norm(x: Any, scale: Any, offset: Any) -> Any:
    """Normalised x, mean and variance of its channels; the statistics have no gradient of their own."""
    mean = tf.reduce_mean(x, [0, 1, 2])
    centred = x - mean
    variance = tf.reduce_mean(centred * centred, [0, 1, 2])
    factor = tf.math.rsqrt(variance + BN_EPSILON)
    normal = centred * factor

    def gradient(g: Any, *_: Any) -> tuple[Any, Any, Any]:
        of_offset, of_scale = tf.reduce_sum(g, [0, 1, 2]), tf.reduce_sum(g * normal, [0, 1, 2])
        count = float(x.shape[0] * x.shape[1] * x.shape[2])
        back = scale * factor * (g - (of_offset + normal * of_scale) / count)
        return back, of_scale, of_offset

    return (normal * scale + offset, mean, variance), gradient
