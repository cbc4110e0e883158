"""TensorFlow: the step as one tf.function, NHWC, with its fused batch norm."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata

from work import MOMENTUM as MU
from work import Work

TITLE = "TensorFlow tf.function, NHWC"
ENVIRONMENT = "tensorflow"
PACKAGES = ("tensorflow-cpu",)


def setup(work: Work) -> Callable[[], float]:
    """v = mu v + g, w = w - lr v, all inside the function."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(work.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import _tf

    net, logits = _tf.net_of(work)
    trained = net.trained()
    velocity = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in trained]
    x = tf.constant(work.array("x").transpose(0, 2, 3, 1))
    labels = tf.constant(work.array("labels"))
    mean, std = (tf.constant(value) for value in (work.mean, work.std))

    @tf.function
    def run(x, labels):  # type: ignore[no-untyped-def]
        with tf.GradientTape() as tape:
            found = logits((x - mean) / std)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, found))
        for variable, v, gradient in zip(trained, velocity, tape.gradient(loss, trained), strict=True):
            v.assign(MU * v + gradient)
            variable.assign_sub(work.lr * v)
        return loss

    return lambda: float(run(x, labels))


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"tensorflow-cpu": metadata.version("tensorflow-cpu")}
