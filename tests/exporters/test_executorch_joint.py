"""The joint program for ExecuTorch's own training: PyTorch's losses and, by its SGD, PyTorch's weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clue_mobile import methods, models, programs
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.lowering.optimizer import sgd
from clue_mobile.methods import clue
from clue_mobile.spec import ModelSpec
from exporters.base import Converted, Source
from pi_runtime.bundle import Bundle

pytest.importorskip("executorch.exir", reason="executorch is not installed")
from exporters import executorch_joint as exporter

BATCH = 4
SHORT = {"kl_weight": 0.0, "temperature": 1.0}  # a loss of few operators: lowering takes seconds otherwise
SPEC = ModelSpec("tiny", ("a", "b", "c"), (1, 4, 4), (0.4,), (0.3,))


class Normed(nn.Module):
    """Batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(self.norm(x).flatten(1))


class Pooled(nn.Module):
    """A convolution before a max pooling whose windows overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(self.pool(self.conv(x)).flatten(1))


def made(module: Callable[[], nn.Module], spec: ModelSpec = SPEC, **hyperparameters: Any) -> Source:
    """CLUE on a seeded model whose running statistics are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = module().train()
        if any(isinstance(layer, nn.BatchNorm2d) for layer in classifier.modules()):
            classifier(torch.randn(8, *spec.input_shape))
    model = FlatModel(classifier, spec)
    config = methods.configure("clue", {"batch_norm": "frozen", "saliency_batch": 8, **hyperparameters})
    return Source(model, programs.build(model, "clue", config, BATCH))


def convert(source: Source) -> Converted:
    """The exporter's files."""
    return exporter.convert((), source, lambda name: None)


@pytest.fixture(scope="module")
def digits() -> tuple[Source, Converted]:
    """digits_cnn with frozen statistics."""
    spec = models.resolve_spec("digits_cnn")
    source = made(lambda: models.load(spec, None, seed=0), spec, lr=0.02, momentum=0.9)
    return source, convert(source)


def test_gradients_pass_a_max_pooling() -> None:
    """Files are compared with PyTorch's gradients when they are written: ExecuTorch 1.5's kernel fails."""
    assert "were compared" in convert(made(Pooled, **SHORT)).notes[-1]


@pytest.mark.filterwarnings("ignore::executorch.exir._warnings.ExperimentalWarning")
def test_training_module_and_sgd_give_pytorchs_losses_and_weights(digits: tuple[Source, Converted]) -> None:
    """Golden: without it a change of ExecuTorch's could train on wrong losses and say nothing."""
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
    from executorch.extension.training import TrainingModule, get_sgd_optimizer

    source, converted = digits
    model, description = source.model, json.loads(converted.files["joint.json"])
    training = TrainingModule(
        _load_for_executorch_from_buffer(converted.files["joint.pte"], converted.files["joint.ptd"])
    )
    loss = source.recipe.loss
    assert loss is not None
    ports = exporter.input_ports(model, loss, BATCH)
    assert [port["name"] for port in description["inputs"]] == ["buffers", "x", "teacher", "mask"]
    settings = {k: v for k, v in description["optimizer"].items() if k != "kind"}
    config = methods.configure("clue", {"batch_norm": "frozen"})
    state, optimizer = model.pack(), None
    velocity = torch.zeros_like(state["params"])
    masks = [exporter.draw(ports, source, seed)[-1] for seed in (1, 2)]
    for step in range(5):
        # the mask changes, as at an epoch's end: what leaves it still coasts
        _, x, teacher, _ = inputs = exporter.draw(ports, source, step)
        mask = inputs[-1] = masks[step // 3]
        found = training.forward_backward("forward", inputs)

        leaves = model.leaves(state)
        logits, moved = model.forward(leaves, state, x, "frozen")
        energy, kl, total = clue.losses(logits, teacher, config)
        assert not moved
        for name, got, wanted in zip(["loss", "energy", "kl"], found, (total, energy, kl), strict=True):
            assert float(got) == pytest.approx(wanted.item(), rel=1e-5), (step, name)
        gradient = model.gradient(total, leaves) * mask
        got = torch.cat([training.named_gradients()[name].reshape(-1) for name in leaves])
        assert not got[mask == 0].any()
        assert (got - gradient).abs().max() <= 1e-4 * gradient.abs().max()

        if optimizer is None:
            optimizer = get_sgd_optimizer(training.named_parameters(), **settings)
        optimizer.step(training.named_gradients())
        state["params"], velocity = sgd(
            state["params"], velocity, gradient, torch.tensor(settings["lr"]), settings["momentum"]
        )
    trained = torch.cat([p.reshape(-1) for p in training.named_parameters().values()])
    start = model.pack()["params"]
    change = (state["params"] - start).abs().max()
    assert change > 1e-2
    assert (trained - state["params"]).abs().max() <= 1e-4 * change
    outside = (masks[0] + masks[1]) == 0
    assert 0.1 < outside.float().mean() < 0.9
    assert torch.equal(trained[outside], start[outside])
    assert (trained != start)[~outside].float().mean() > 0.5  # some units are dead


def test_what_the_application_is_told(digits: tuple[Source, Converted]) -> None:
    source, converted = digits
    description = json.loads(converted.files["joint.json"])
    names = [entry.name for entry in source.model.entries if entry.trainable]
    assert [parameter["name"] for parameter in description["parameters"]] == names
    assert description["outputs"] == ["loss", "energy", "kl"]
    assert description["optimizer"]["lr"] == 0.02
    assert description["optimizer"]["momentum"] == 0.9
    assert description["flops"] > 1e6
    assert description["notes"] == list(converted.notes)
    said = " ".join(converted.notes)
    for point in (
        "no training mode",
        "SGD only",
        "neither saved nor restored",
        "naive portable kernels",
        "holds the trained parameters",
        "no iOS binding",
        "does not save the weights",
        "were compared with PyTorch's",
    ):
        assert point in said


def test_the_weights_are_in_the_data_file_only(digits: tuple[Source, Converted]) -> None:
    source, converted = digits
    for name, vector in source.model.pack().items():
        # windows of four elements, at every fourth place
        pieces = {
            w.tobytes() for w in vector.numpy()[: len(vector) // 4 * 4].reshape(-1, 4) if len(set(w)) > 1
        }
        assert len(pieces) > 10
        assert not [piece for piece in pieces if piece in converted.files["joint.pte"]]
        assert (name == "params") == any(piece in converted.files["joint.ptd"] for piece in pieces)


@pytest.mark.parametrize("mode", ["batch", "batch_keep_running"])
def test_training_mode_of_batch_norm_is_refused(mode: str) -> None:
    with pytest.raises(ClueError, match=r"no batch norm in training mode .* --set batch_norm=frozen"):
        convert(made(Normed, batch_norm=mode))


def test_a_method_without_one_loss_is_refused() -> None:
    source = made(Normed)
    without = dataclasses.replace(source, recipe=dataclasses.replace(source.recipe, loss=None))
    with pytest.raises(ClueError, match="this method's steps are no SGD on one loss"):
        convert(without)


class Padded(nn.Module):
    """A channel pad between layers, whose backward is a pad by negative widths, and a crop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 1), nn.Linear(4 * 2 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(F.pad(F.relu(self.conv(x)), (0, 1, -1, -1, 1, 1)).flatten(1))


def test_the_backward_of_a_pad_runs() -> None:
    """`convert` runs the file and compares every gradient."""
    assert "were compared" in convert(made(Padded, **SHORT)).notes[-1]


def test_wrong_losses_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = made(Padded, **SHORT)
    real = exporter._with_gradients

    def wrong(exported: Any) -> Any:
        result = real(exported)
        (node,) = (n for n in result.graph.nodes if n.target is torch.ops.aten.relu.default)
        node.target = torch.ops.aten.neg.default
        result.graph_module.recompile()
        return result

    monkeypatch.setattr(exporter, "_with_gradients", wrong)
    with pytest.raises(ClueError, match="in ExecuTorch the loss differs from PyTorch's by"):
        convert(other)


def test_an_operator_without_kernel_is_named() -> None:
    class Unusual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.special.bessel_j0(x).flatten(1))

    with pytest.raises(ClueError, match=r"no kernel for aten::special_bessel_j0\.out, which this model"):
        convert(made(Unusual, **SHORT))


def test_it_comes_on_top_of_a_bundles_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without batch norm any mode of it will do; a program that would take long is not run at export."""

    def never(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(exporter, "MOST_CHECKED", -1)
    monkeypatch.setattr(exporter, "_check", never)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    settings = {"saliency_batch": 8, "batch_norm": "batch", **SHORT}
    recipe = ExportRecipe("host", batch=BATCH, hyperparameters=settings, runtimes=(exporter.NAME,))
    told: list[tuple[int, int]] = []
    path = export(
        module,
        SPEC,
        tmp_path / "t.clue",
        recipe,
        progress=lambda stage, done, total: told.append((done, total)),
    )
    assert told == [(i, len(told)) for i in range(len(told))]
    bundle = Bundle.open(path)
    assert all(set(program.files) == {"onnx"} for program in bundle.programs.values())
    files = {name for name in bundle.files if exporter.NAME in name}
    assert files == {f"programs/{exporter.NAME}/joint.{ending}" for ending in ("json", "pte", "ptd")}
    assert any("SGD only" in notice for notice in bundle.notices)
    assert any("too large to compare" in notice for notice in bundle.notices)
    assert bundle.programs["step"].flops > 0
    description = json.loads(bundle.file(f"programs/{exporter.NAME}/joint.json").read_text())
    # no running statistics, and no teacher where the KL weighs nothing
    assert [port["name"] for port in description["inputs"]] == ["x", "mask"]
