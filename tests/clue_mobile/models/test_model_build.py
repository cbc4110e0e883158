"""Building modules: the user's factories, torchvision, timm, and what goes wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from clue_mobile.errors import ClueError
from clue_mobile.models.build import build
from clue_mobile.spec import ModelSpec

FILE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Sizes:
    hidden: int = 4

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, Sizes().hidden), nn.Linear(4, 3)).double()

def by_classes(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))

def by_both(num_classes, input_shape):
    channels, height, width = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))

def forwarding(**options):
    return by_classes(**options)

def two(num_classes=2):
    return by_classes(2)

def colour():
    return nn.Conv2d(4, 3, 1)

def number():
    return 3

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

def broken():
    raise RuntimeError("no disk")

constant = 5
"""


def spec(model: str = "net.py:make") -> ModelSpec:
    return ModelSpec(model, ("a", "b", "c"), (3, 2, 2), (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("factory", ["fixed", "by_classes", "by_both", "forwarding"])
def test_factory_in_a_file(file: Path, factory: str) -> None:
    module = build(f"{file}:{factory}", spec(), seed=0)

    assert module(torch.zeros(5, 3, 2, 2)).shape == (5, 3)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert not module.training


def test_factory_in_a_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(file.parent)

    assert build("net:by_classes", spec(), seed=0)(torch.zeros(1, 3, 2, 2)).shape == (1, 3)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("by_clases", r"unknown factory in .*net\.py 'by_clases': did you mean 'by_classes'"),
        ("constant", "is a int, not a function"),
        ("number", "returned a int, not a torch.nn.Module"),
        ("broken", "failed: RuntimeError: no disk"),
        ("two", r"returns \[1, 2\] for one image; 3 classes need \[1, 3\]"),
        ("colour", r"does not take an input of shape \[1, 3, 2, 2\]"),
        ("pair", "returns a tuple, not one tensor of logits"),
    ],
)
def test_factory_that_does_not_fit(file: Path, factory: str, message: str) -> None:
    with pytest.raises(ClueError, match=message):
        build(f"{file}:{factory}", spec(f"{file}:{factory}"), seed=0)


def test_file_that_does_not_import(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_that_name")
    with pytest.raises(
        ClueError, match=r"bad\.py: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    ):
        build(f"{tmp_path}/bad.py:make", spec(), seed=0)
    with pytest.raises(ClueError, match=r"no file .*none\.py"):
        build(f"{tmp_path}/none.py:make", spec(), seed=0)
    with pytest.raises(ClueError, match="cannot import nothing_of_that_name"):
        build("nothing_of_that_name:make", spec(), seed=0)


def test_seed_decides_the_weights_and_nothing_else(file: Path) -> None:
    before = torch.get_rng_state()
    first, again, other = (build(f"{file}:by_classes", spec(), seed)[1].weight for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_torchvision() -> None:
    pytest.importorskip("torchvision")
    wide = ModelSpec("torchvision:squeezenet1_1", ("a", "b", "c"), (3, 64, 64), (0.5,) * 3, (0.5,) * 3)

    assert build(wide.model, wide, seed=0)(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ClueError, match="did you mean 'squeezenet1_1'"):
        build("torchvision:squeezenet11", wide, seed=0)
    with pytest.raises(ClueError, match="unknown torchvision model"):
        build("torchvision:fasterrcnn_resnet50_fpn", wide, seed=0)


def test_timm() -> None:
    pytest.importorskip("timm")
    grey = ModelSpec("timm:mobilenetv3_small_050", ("a", "b", "c"), (1, 32, 32), (0.5,), (0.5,))

    assert build(grey.model, grey, seed=0)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(
        ClueError, match="unknown timm model 'mobilenetv3_smal': did you mean 'mobilenetv3_small"
    ):
        build("timm:mobilenetv3_smal", grey, seed=0)


@pytest.mark.parametrize(("package", "extra"), [("timm", "timm"), ("torchvision", "export")])
def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, package: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ClueError) as caught:
        build(f"{package}:resnet18", spec(), seed=0)

    assert (
        str(caught.value)
        == f"{package} is not installed; install it with: pip install 'clue-mobile[{extra}]'"
    )
