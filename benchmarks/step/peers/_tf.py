"""The benchmark's models in TensorFlow, NHWC, from PyTorch's weights by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from work import UnavailableError, Work

BN_MOMENTUM, BN_EPSILON, LN_EPSILON = 0.1, 1e-5, 1e-6
MOVING = ("running_mean", "running_var")


class Net:
    """Variables by PyTorch's names, and the layers that use them. Convolutions' weights are HWIO (HWC1 where
    depthwise), dense layers' [in, out]."""

    def __init__(self, state: Mapping[str, Any], depthwise: Callable[[str], bool]) -> None:
        import tensorflow as tf

        self.tf = tf
        self.variables = {}
        for name, value in state.items():
            if value.ndim == 4:
                value = value.transpose((2, 3, 0, 1) if depthwise(name) else (2, 3, 1, 0))
            elif value.ndim == 2:
                value = value.T
            trainable = name.rpartition(".")[2] not in MOVING
            self.variables[name] = tf.Variable(np.ascontiguousarray(value), trainable=trainable)

    def trained(self) -> list[Any]:
        """The variables that SGD moves."""
        return [variable for variable in self.variables.values() if variable.trainable]

    def conv(self, x: Any, name: str, stride: int = 1, depthwise: bool = False) -> Any:
        """Padded as PyTorch does, by half the window on all sides."""
        tf, weight = self.tf, self.variables[f"{name}.weight"]
        pad = weight.shape[0] // 2
        padding = "SAME"
        if stride > 1 and pad:  # SAME would pad one side only
            x, padding = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]]), "VALID"
        do = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
        return do(x, weight, strides=[1, stride, stride, 1], padding=padding)

    def norm(self, x: Any, name: str) -> Any:
        """Batch norm in training mode by the fused operator; the running statistics move."""
        v = self.variables
        y, mean, variance = self.tf.compat.v1.nn.fused_batch_norm(
            x, v[f"{name}.weight"], v[f"{name}.bias"], epsilon=BN_EPSILON, is_training=True
        )
        for variable, value in zip((v[f"{name}.{key}"] for key in MOVING), (mean, variance), strict=True):
            variable.assign(variable + BN_MOMENTUM * (value - variable))
        return y

    def relu(self, x: Any) -> Any:
        """max(x, 0)."""
        return self.tf.nn.relu(x)

    def every_second(self, x: Any) -> Any:
        """Rows and columns 0, 2, 4, ..."""
        return x[:, ::2, ::2, :]

    def dense(self, x: Any, name: str) -> Any:
        """x W + b."""
        return self.tf.matmul(x, self.variables[f"{name}.weight"]) + self.variables[f"{name}.bias"]

    def layer_norm(self, x: Any, name: str) -> Any:
        """Over the last axis."""
        mean, variance = self.tf.nn.moments(x, axes=[-1], keepdims=True)
        scale, offset = self.variables[f"{name}.weight"], self.variables[f"{name}.bias"]
        return (x - mean) * self.tf.math.rsqrt(variance + LN_EPSILON) * scale + offset


def net_of(work: Work, kind: type[Net] = Net) -> tuple[Net, Callable[[Any], Any]]:
    """The variables and the function from normalised images [N, H, W, C] to logits."""
    makers = {
        "resnet20": resnet20,
        "resnet18": resnet18,
        "mobilenet_v2": mobilenet_v2,
        "vit_ti_16": vit,
        "vit_b_4": vit,
    }
    if work.model not in makers:
        raise UnavailableError(f"there is no TensorFlow version of {work.model} here")
    state = work.state()
    net = kind(state, lambda name: state[name].shape[1] == 1)
    return net, lambda x: makers[work.model](net, x, work)


def _block(net: Net, x: Any, name: str, stride: int, shortcut: Any) -> Any:
    y = net.relu(net.norm(net.conv(x, f"{name}.conv1", stride), f"{name}.bn1"))
    return net.relu(net.norm(net.conv(y, f"{name}.conv2"), f"{name}.bn2") + shortcut)


def resnet20(net: Net, x: Any, work: Work) -> Any:
    """CIFAR's, with shortcuts that have no parameters."""
    x = net.relu(net.norm(net.conv(x, "conv1"), "bn1"))
    for stage in (1, 2, 3):
        for number in range(3):
            stride = 2 if stage > 1 and number == 0 else 1
            shortcut = x
            if stride == 2:
                pad = x.shape[-1] // 2
                shortcut = net.tf.pad(net.every_second(x), [[0, 0], [0, 0], [0, 0], [pad, pad]])
            x = _block(net, x, f"layer{stage}.{number}", stride, shortcut)
    return net.dense(net.tf.reduce_mean(x, [1, 2]), "fc")


def resnet18(net: Net, x: Any, work: Work) -> Any:
    """torchvision's."""
    tf = net.tf
    x = tf.nn.relu(net.norm(net.conv(x, "conv1", 2), "bn1"))
    x = tf.nn.max_pool2d(
        tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID"
    )  # behind a ReLU 0 is the least
    for stage in (1, 2, 3, 4):
        for number in range(2):
            name, stride, shortcut = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1, x
            if f"{name}.downsample.0.weight" in net.variables:
                shortcut = net.norm(net.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = _block(net, x, name, stride, shortcut)
    return net.dense(tf.reduce_mean(x, [1, 2]), "fc")


def mobilenet_v2(net: Net, x: Any, work: Work) -> Any:
    """torchvision's."""
    tf = net.tf
    x = tf.nn.relu6(net.norm(net.conv(x, "features.0.0", 2), "features.0.1"))
    number = 1
    for expand, repeat, first in (
        (1, 1, 1),
        (6, 2, 2),
        (6, 3, 2),
        (6, 4, 2),
        (6, 3, 1),
        (6, 3, 2),
        (6, 1, 1),
    ):
        for index in range(repeat):
            name, stride, y = f"features.{number}.conv", first if index == 0 else 1, x
            place = 0
            if expand != 1:
                y = tf.nn.relu6(net.norm(net.conv(y, f"{name}.0.0"), f"{name}.0.1"))
                place = 1
            y = net.conv(y, f"{name}.{place}.0", stride, depthwise=True)
            y = tf.nn.relu6(net.norm(y, f"{name}.{place}.1"))
            y = net.norm(net.conv(y, f"{name}.{place + 1}"), f"{name}.{place + 2}")
            x = x + y if stride == 1 and x.shape[-1] == y.shape[-1] else y
            number += 1
    x = tf.nn.relu6(net.norm(net.conv(x, f"features.{number}.0"), f"features.{number}.1"))
    return net.dense(tf.reduce_mean(x, [1, 2]), "classifier.1")


def vit(net: Net, x: Any, work: Work) -> Any:
    """torchvision's VisionTransformer; heads of 64."""
    tf, v = net.tf, net.variables
    patch = v["conv_proj.weight"].shape[0]
    x = tf.nn.conv2d(x, v["conv_proj.weight"], patch, "VALID") + v["conv_proj.bias"]
    width = x.shape[-1]
    x = tf.reshape(x, [work.batch, -1, width])
    x = tf.concat([tf.repeat(v["class_token"], work.batch, 0), x], 1) + v["encoder.pos_embedding"]
    heads, tokens = width // 64, x.shape[1]
    for number in range(12):
        name = f"encoder.layers.encoder_layer_{number}"
        y = net.layer_norm(x, f"{name}.ln_1")
        attention = f"{name}.self_attention"
        qkv = tf.matmul(y, v[f"{attention}.in_proj_weight"]) + v[f"{attention}.in_proj_bias"]
        qkv = tf.transpose(tf.reshape(qkv, [work.batch, tokens, 3, heads, 64]), [2, 0, 3, 1, 4])
        q, k, value = qkv[0], qkv[1], qkv[2]
        weights = tf.nn.softmax(tf.matmul(q * 64**-0.5, k, transpose_b=True))
        y = tf.reshape(tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3]), [work.batch, tokens, width])
        x = x + net.dense(y, f"{attention}.out_proj")
        y = net.layer_norm(x, f"{name}.ln_2")
        x = x + net.dense(tf.nn.gelu(net.dense(y, f"{name}.mlp.0")), f"{name}.mlp.3")
    return net.dense(net.layer_norm(x, "encoder.ln")[:, 0], "heads.head")
