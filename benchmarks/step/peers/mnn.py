"""MNN's training: its converter's form of the ONNX model, its gradients and its SGD with momentum.

Traps: without lazy evaluation the optimizer does nothing; gradients do not pass strided slices and pads (see
`_onnx.export`), and where an operator has none the step returns False and changes nothing; the loss has to be
read before the step, or it is that of the new parameters. The converter's command line sends a message to its
makers and installs packages by itself, so the function below it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from work import UnavailableError, Work

TITLE = "MNN 3.6.1 training"
ENVIRONMENT = "mnn"
PACKAGES = ("MNN",)
NOTE = "the loss is read each step"


def export(work: Work) -> None:
    """The forward pass as ONNX, by PyTorch."""
    import _onnx

    _onnx.export(work, work.place("mnn") / "forward.onnx", pooled_shortcut=True)


def build(work: Work) -> None:
    """MNN's form of it, with the normalisation layers kept."""
    import _tools

    place = work.place("mnn")
    files = ["--modelFile", str(place / "forward.onnx"), "--MNNModel", str(place / "model.mnn")]
    _tools.mnnconvert(["convert", "-f", "ONNX", *files, "--forTraining", "--bizCode", "step"])
    if not (place / "model.mnn").exists():
        raise RuntimeError("the converter wrote no file")


def setup(work: Work) -> Callable[[], float]:
    """A step as MNN's demos have it."""
    from MNN import expr, nn, optim

    expr.set_thread_number(work.threads)
    expr.lazy_eval(True)
    values = expr.load_as_dict(str(work.place("mnn") / "model.mnn"))
    module = nn.load_module([values["x"]], [values["logits"]], True)
    module.train(True)
    optimizer = optim.SGD(module, work.lr, 0.9, 0.0)
    shape = [work.batch, *work.input_shape]
    pixels, targets = work.array("x"), work.array("onehot")

    def step() -> float:
        x = expr.const(pixels, shape, expr.NCHW)
        onehot = expr.const(targets, [work.batch, work.classes], expr.NCHW)
        loss = nn.loss.cross_entropy(expr.softmax(module.forward(x), 1), onehot)
        value = float(loss.read())
        if not optimizer.step(loss):
            raise UnavailableError(
                "MNN has no gradient for an operator of this model: its step changes nothing"
            )
        return value

    return step


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"MNN": metadata.version("MNN")}
