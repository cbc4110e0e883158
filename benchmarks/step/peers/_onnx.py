"""A model's forward pass as ONNX in training mode, for peers that bring their own gradients."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

from work import Work

OPSET = 15


def export(work: Work, path: Path, *, pooled_shortcut: bool = False) -> None:
    """x (pixels) -> logits, batch norm with training_mode=1, parameters under PyTorch's names.

    By PyTorch's older exporter: the newer one has no training mode. pooled_shortcut: ResNet-20's shortcuts as
    an average over 1x1 windows and a concatenation with zeros, the same values, for a peer that does not pass
    gradients through strided slices and pads.
    """
    import _torch
    import torch
    from torch import nn

    class Normalised(nn.Module):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.net = module
            self.mean, self.std = (torch.tensor(v).view(1, -1, 1, 1) for v in (work.mean, work.std))

        def forward(self, x: Any) -> Any:
            return self.net((x - self.mean) / self.std)

    module = _torch.module_of(work)
    if pooled_shortcut:
        for block in module.modules():
            if type(block).__name__ == "BasicBlock" and hasattr(block, "pad"):
                block.forward = partial(_pooled, block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Normalised(module).train(),
            (torch.from_numpy(work.array("x")),),
            str(path),
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["logits"],
        )


def _pooled(block: Any, x: Any) -> Any:
    """ResNet-20's block with the other spelling of its shortcut."""
    import torch
    from torch.nn import functional

    shortcut = x
    if block.stride > 1:
        shortcut = functional.avg_pool2d(x, 1, block.stride)
        zeros = torch.zeros(x.shape[0], block.pad, *shortcut.shape[2:])
        shortcut = torch.cat([zeros, shortcut, zeros], 1)
    x = functional.relu(block.bn1(block.conv1(x)))
    return functional.relu(block.bn2(block.conv2(x)) + shortcut)
