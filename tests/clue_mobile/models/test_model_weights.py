"""Reading, fitting and writing weights; a damaged or foreign file is one sentence, never code that runs."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clue_mobile.errors import ClueError
from clue_mobile.models.weights import load_weights, read_metadata, read_state_dict, save_weights

SHARED = Path(__file__).parents[4] / "shared" / "models" / "resnet20_cifar10.safetensors"


class Net(nn.Module):
    """A small network with every kind of state: weights, running statistics, an integer buffer."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)
        self.register_buffer("index", torch.arange(3))


def equal(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"state_dict": {"model": state}},
        lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_pickled_weights_with_wrappers_and_prefixes(tmp_path: Path, suffix: str, wrap: Any) -> None:
    saved, module = Net(), Net()
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(saved.state_dict()), path)

    load_weights(module, path)

    assert equal(module, saved)
    assert read_metadata(path) == {}


def test_safetensors_round_trip(tmp_path: Path) -> None:
    saved, module = Net(), Net()
    path = tmp_path / "weights.safetensors"
    save_weights(saved.to(memory_format=torch.channels_last), path, {"classes": "a,b,c"})

    load_weights(module, path)

    assert equal(module, saved)
    assert read_metadata(path) == {"format": "pt", "classes": "a,b,c"}
    assert list(tmp_path.iterdir()) == [path]


def test_tied_weights_round_trip(tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    saved[1].weight = saved[0].weight
    save_weights(saved, tmp_path / "w.safetensors", {})
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    load_weights(module, tmp_path / "w.safetensors")

    assert equal(module, saved)


def test_own_submodule_called_module_keeps_its_name(tmp_path: Path) -> None:
    saved, loaded = (nn.ModuleDict({"module": Net()}) for _ in range(2))
    save_weights(saved, tmp_path / "w.safetensors", {})

    load_weights(loaded, tmp_path / "w.safetensors")

    assert equal(loaded, saved)


def test_half_precision_becomes_the_modules(tmp_path: Path) -> None:
    module = Net()
    torch.save(Net().half().state_dict(), tmp_path / "w.pt")

    load_weights(module, tmp_path / "w.pt")

    assert module.fc.weight.dtype == torch.float32


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = {name: value for name, value in Net().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "w.pt")

    load_weights(Net(), tmp_path / "w.pt")


def test_misfit_lists_names_shapes_and_the_closest(tmp_path: Path) -> None:
    state = Net(classes=7).state_dict()
    state["conv1.weight"] = state.pop("conv.weight")
    state.update({f"extra{i}": torch.zeros(1) for i in range(6)})
    torch.save(state, tmp_path / "w.pt")
    module = Net()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    with pytest.raises(ClueError) as caught:
        load_weights(module, tmp_path / "w.pt")

    message = str(caught.value)
    assert "missing 'conv.weight' (closest in the file: 'conv1.weight');" in message
    assert "unexpected 'conv1.weight' (closest in the model: 'conv.weight'), 'extra0', " in message
    assert "'extra3' and 2 more" in message
    assert "'fc.weight' is [7, 4] in the file and [3, 4] in the model" in message
    assert "extra4" not in message
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_integers_for_floats_are_refused(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["fc.weight"] = torch.ones(3, 4, dtype=torch.int8)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ClueError, match=r"'fc.weight' is torch.int8 in the file and torch.float32"):
        load_weights(Net(), tmp_path / "w.pt")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    path, mark = tmp_path / "w.pt", tmp_path / "ran"
    content = {"state_dict": Net().state_dict(), "args": Touch(mark)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))

    with pytest.raises(ClueError, match=r"could run code; save model.state_dict\(\) alone"):
        read_state_dict(path)
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ClueError, match="is a TorchScript archive"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no state dict but a dict"),
        ([torch.zeros(1)], "holds no state dict but a list"),
        ({"a": torch.zeros(1), "epoch": 3}, "no tensors: 'epoch'; expected model.state_dict"),
    ],
)
def test_content_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ClueError, match=message):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.99])
def test_truncated_file_is_one_sentence(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(Net().state_dict(), path)
    else:
        save_weights(Net(), path, {})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(ClueError, match=r"w\.(pt|safetensors) is damaged or ") as caught:
        load_weights(Net(), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_state_dict, read_metadata])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.pt", "no weights file at .*none.pt"),
        ("folder.safetensors", "no weights file at .*folder.safetensors"),
        ("w.onnx", "must be a .safetensors, .pt or .pth file, not .*w.onnx"),
        ("junk.safetensors", "is damaged or not a .safetensors file"),
    ],
)
def test_file_that_cannot_be_weights(tmp_path: Path, read: Any, name: str, message: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "junk.safetensors").write_bytes(b"hello world" * 9)
    with pytest.raises(ClueError, match=message):
        read(tmp_path / name)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(Net(), path, {"generation": "1"})
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClueError, match=r"cannot write .*w\.safetensors: No space left on device"):
        save_weights(Net(), path, {"generation": "2"})

    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_write_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ClueError, match=r"cannot write .*: No such file or directory"):
        save_weights(Net(), tmp_path / "none" / "w.safetensors", {})
    with pytest.raises(ClueError, match=r"written as .safetensors, not .pt"):
        save_weights(Net(), tmp_path / "w.pt", {})


@pytest.mark.skipif(not SHARED.exists(), reason=f"no trained weights at {SHARED}")
def test_trained_file() -> None:
    assert read_metadata(SHARED)["architecture"] == "resnet20"
    assert read_state_dict(SHARED)["fc.weight"].shape == (10, 64)
