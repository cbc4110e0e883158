"""onnxruntime-training 1.19.2, the last release: its gradient graph of an ONNX model, and its SGD.

Its package wants torch when it is imported, for parts that a device does not need; the parts used here are
reached past that, so that the row has the memory and the start of its runtime alone.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from work import Work

TITLE = "onnxruntime-training 1.19.2"
ENVIRONMENT = "ort_training"
PACKAGES = ("onnxruntime-training",)
MOMENTUM = False  # its SGD has none
NOTE = "SGD without momentum; batch norm with training_mode=1, opset 15"


def export(work: Work) -> None:
    """The forward pass as ONNX, by PyTorch."""
    import _onnx

    _onnx.export(work, work.place("ort_training") / "forward.onnx")


def build(work: Work) -> None:
    """Training, optimizer and checkpoint files, by onnxruntime's own generator."""
    _past_torch()
    import onnx
    from onnxruntime.training import artifacts

    place = work.place("ort_training")
    model = onnx.load(place / "forward.onnx")
    names = [tensor.name for tensor in model.graph.initializer]
    moving = {"running_mean", "running_var", "num_batches_tracked"}
    trained = set(work.state()) - {name for name in work.state() if name.rpartition(".")[2] in moving}
    trainable = [name for name in names if name.removeprefix("net.") in trained]
    missing = trained - {name.removeprefix("net.") for name in trainable}
    if missing:
        raise RuntimeError(f"the ONNX file has lost the parameters {sorted(missing)}")
    # the generator writes its temporary files where it stands
    os.chdir(place)
    artifacts.generate_artifacts(
        model,
        requires_grad=trainable,
        frozen_params=[name for name in names if name not in trainable],
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(place),
    )


def setup(work: Work) -> Callable[[], float]:
    """train_step, the optimizer's step, gradients to be reset: as its documentation has it."""
    _past_torch()
    from onnxruntime import SessionOptions
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    place = work.place("ort_training")
    options = SessionOptions()
    options.intra_op_num_threads = work.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    state = CheckpointState.load_checkpoint(str(place / "checkpoint"))
    module = Module(str(place / "training_model.onnx"), state, session_options=options)
    optimizer = Optimizer(str(place / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(work.lr)
    x, labels = work.array("x"), work.array("labels")
    module.train()

    def step() -> float:
        loss = module(x, labels)
        optimizer.step()
        module.lazy_reset_grad()
        return float(loss)

    return step


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"onnxruntime-training": metadata.version("onnxruntime-training")}


def _past_torch() -> None:
    spec = find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("onnxruntime-training is not installed")
    package = types.ModuleType("onnxruntime.training")
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "training")]
    sys.modules["onnxruntime.training"] = package
