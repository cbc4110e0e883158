"""ExecuTorch's own training extension: the joint graph as one program, TrainingModule and its SGD.

Traps: batch norm in training mode has no kernel for its functional form, and taking it apart after the joint
graph runs with wrong losses without a word, so it is spelled as primitives before (without running
statistics, which no loss of a step depends on); negative pads fail at run time and become slices.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

from work import MOMENTUM as MU
from work import Work

TITLE = "ExecuTorch training extension"
PACKAGES = ("executorch", "torch")
NOTE = "batch norm from primitives, running statistics not kept; portable kernels"


def export(work: Work) -> None:
    """The forward pass with its loss and gradients as a program and its parameters."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    import _torch
    import torch
    from torch import nn
    from torch.nn import functional

    from exporters import executorch_joint as joint

    class Norm(nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            self.weight, self.bias, self.eps = old.weight, old.bias, old.eps

        def forward(self, x: Any) -> Any:
            axes = [0, 2, 3]
            # times 1: a parameter itself, whose memory is the application's, can have no view
            weight, bias = ((part * 1.0).view(1, -1, 1, 1) for part in (self.weight, self.bias))
            centred = x - x.mean(axes, keepdim=True)
            variance = (centred * centred).mean(axes, keepdim=True)
            return centred * torch.rsqrt(variance + self.eps) * weight + bias

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _plain(_torch.module_of(work), nn.BatchNorm2d, Norm)
            for name, value in (("mean", work.mean), ("std", work.std)):
                self.register_buffer(name, torch.tensor(value).view(1, -1, 1, 1))

        def forward(self, x: Any, onehot: Any) -> Any:
            logits = self.net((x - self.mean) / self.std)
            return -(onehot * functional.log_softmax(logits, 1)).sum(1).mean()

    arrays = tuple(torch.from_numpy(work.array(name)) for name in ("x", "onehot"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(Loss(), arrays)
        file = joint._lowered(joint._with_gradients(exported))
    place = work.place("executorch_training")
    (place / "joint.pte").write_bytes(file.buffer)
    (place / "joint.ptd").write_bytes(joint._data(file))


def _plain(module: Any, kind: type, other: Callable[[Any], Any]) -> Any:
    for name, child in module.named_children():
        setattr(module, name, other(child) if isinstance(child, kind) else _plain(child, kind, other))
    return module


def setup(work: Work) -> Callable[[], float]:
    """forward_backward and the optimizer's step on the named gradients, as ExecuTorch's examples have it."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.extension.training import TrainingModule, get_sgd_optimizer

    torch.set_num_threads(work.threads)
    if portable_lib._threadpool_get_thread_count() != work.threads:
        portable_lib._unsafe_reset_threadpool(work.threads)
    place = work.place("executorch_training")
    # its own loader for training takes no file of parameters; the module reads these bytes while it lives
    files = [(place / name).read_bytes() for name in ("joint.pte", "joint.ptd")]
    module = TrainingModule(portable_lib._load_for_executorch_from_buffer(*files))
    inputs = tuple(torch.from_numpy(work.array(name)) for name in ("x", "onehot"))
    optimizer = None

    def step() -> float:
        nonlocal optimizer
        assert files
        (loss,) = module.forward_backward("forward", inputs)
        if optimizer is None:  # the parameters are known after the first pass
            optimizer = get_sgd_optimizer(module.named_parameters(), work.lr, MU, 0.0, 0.0, False)
        optimizer.step(module.named_gradients())
        return float(loss)

    return step


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"executorch": metadata.version("executorch")}
