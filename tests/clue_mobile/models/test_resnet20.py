"""ResNet-20: its shortcut, its names, and the accuracy of trained weights on real images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clue_mobile.models import BUILTIN, load
from clue_mobile.models.resnet20 import BasicBlock, resnet20
from clue_mobile.training import accuracy

SHARED = Path(__file__).parents[4] / "shared"


def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    block = BasicBlock(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)

    y = block(x)

    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()


def test_parameters_have_the_published_names_and_number() -> None:
    module = resnet20()
    names = {name.rpartition(".")[0] for name, _ in module.named_parameters()}
    blocks = {f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)}

    inside = {f"{block}.{part}" for block in blocks for part in ("conv1", "bn1", "conv2", "bn2")}
    assert names == {"conv1", "bn1", "fc"} | inside
    assert sum(parameter.numel() for parameter in module.parameters()) == 269_722


@pytest.mark.parametrize(
    ("file", "without", "per_class"),
    [
        ("resnet20_cifar10.safetensors", None, 50),
        ("resnet20_cifar10_without_airplane.safetensors", 0, 20),
    ],
)
def test_trained_weights_classify_real_images(file: str, without: int | None, per_class: int) -> None:
    weights, archive = SHARED / "models" / file, SHARED / "data" / "cifar10_images.zip"
    for needed in (weights, archive):
        if not needed.exists():
            pytest.skip(f"no {needed}")
    spec = BUILTIN["resnet20"].spec
    with zipfile.ZipFile(archive) as stored:
        names = [
            [f"cifar10/test/{name}/{number:04}.jpg" for number in range(per_class)] for name in spec.classes
        ]
        images = np.stack(
            [np.asarray(Image.open(stored.open(name))) for of_class in names for name in of_class]
        )
    labels = np.arange(spec.num_classes).repeat(per_class)
    module = load(spec, weights)

    kept = labels != (-1 if without is None else without)
    assert accuracy(module, spec, images[kept], labels[kept]) > 0.8
    if without is not None:
        assert accuracy(module, spec, images[~kept], labels[~kept]) == 0
