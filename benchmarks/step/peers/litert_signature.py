"""LiteRT: a training signature written by hand in TensorFlow, with LiteRT's own operators only.

The makers' example of training on a device differentiates with TensorFlow's own gradients, which become Flex
operators (ReluGrad, Conv2DBackpropFilter, StridedSliceGrad, FusedBatchNormGradV3, RsqrtGrad); LiteRT's Python
package has none of these. So the gradients are written out here. State: LiteRT's resource variables.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata

from work import MOMENTUM as MU
from work import UnavailableError, Work

TITLE = "LiteRT, a signature written in TensorFlow"
ENVIRONMENT = "tensorflow"
PACKAGES = ("ai-edge-litert", "numpy")


def build(work: Work) -> None:
    """The step as a signature: pixels [N, H, W, C] and one-hot labels in, the loss out."""
    if work.model != "resnet20":
        raise UnavailableError(f"no signature of {work.model} was written by hand, only resnet20's")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import _tf
    import _tf_builtin
    import tensorflow as tf

    net, logits = _tf.net_of(work, _tf_builtin.BuiltinNet)
    trained = net.trained()
    velocity = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in trained]
    channels, height, width = work.input_shape
    shapes = [[work.batch, height, width, channels], [work.batch, work.classes]]

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kept = [*net.variables.values(), *velocity]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes])
        def step(self, x, onehot):  # type: ignore[no-untyped-def]
            with tf.GradientTape() as tape:
                found = tf.nn.log_softmax(logits((x - list(work.mean)) / list(work.std)))
                loss = -tf.reduce_mean(tf.reduce_sum(onehot * found, 1))
            for variable, v, gradient in zip(trained, velocity, tape.gradient(loss, trained), strict=True):
                moved = MU * v + gradient
                v.assign(moved)
                variable.assign(variable - work.lr * moved)
            return {"loss": loss}

    module, place = Module(), work.place("litert_signature")
    tf.saved_model.save(module, str(place / "saved"), signatures={"step": module.step})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(place / "saved"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.experimental_enable_resource_variables = True
    (place / "step.tflite").write_bytes(converter.convert())


def setup(work: Work) -> Callable[[], float]:
    """The signature's runner; the state stays inside the interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    path = str(work.place("litert_signature") / "step.tflite")
    interpreter = Interpreter(model_path=path, num_threads=work.threads)
    run = interpreter.get_signature_runner("step")
    x, onehot = work.array("x").transpose(0, 2, 3, 1).copy(), work.array("onehot")
    return lambda: float(run(x=x, onehot=onehot)["loss"])


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"ai-edge-litert": metadata.version("ai-edge-litert")}
