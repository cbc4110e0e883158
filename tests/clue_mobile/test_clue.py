from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clue_mobile import methods, models, training
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import clue
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.clue import Config
from clue_mobile.spec import ModelSpec
from clue_mobile.study.demo import HYPERPARAMETERS

FORGET = 3


# the losses, by hand


def test_energy_with_a_fixed_temperature() -> None:
    logits = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    first = math.exp(1.5) + math.exp(2)
    second = math.exp(0) + math.exp(1)
    assert clue.energy_loss(logits, 2.0).item() == pytest.approx((first + second) / 2, rel=1e-12)


def test_energy_with_the_norm_as_temperature() -> None:
    logits = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)  # of norm 5
    loss = clue.energy_loss(logits, "norm")
    a, b = math.exp(0.6), math.exp(0.8)
    assert loss.item() == pytest.approx(a + b, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    # d/dz_i of exp(z_y / n) is exp(z_y / n) (delta_iy / n - z_y z_i / n^3)
    assert gradient[0].tolist() == pytest.approx([(16 * a - 12 * b) / 125, (9 * b - 12 * a) / 125], rel=1e-12)


def test_the_size_of_the_logits_does_not_matter_to_the_norm() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    loss = clue.energy_loss(logits, "norm")
    assert clue.energy_loss(100 * logits, "norm").item() == pytest.approx(loss.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient * logits).sum().item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() > 0.05


def test_zero_logits_are_finite() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = clue.energy_loss(logits, "norm")
    assert loss.item() == 3
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("direction", "expected"), [
    ("student_teacher", 0.25 * math.log(0.5) + 0.75 * math.log(1.5)),
    ("teacher_student", 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
])  # fmt: skip
def test_kl_in_both_directions(direction: str, expected: float) -> None:
    student = torch.tensor([[0, math.log(3)], [1, 1]], dtype=torch.float64)  # (1/4, 3/4) and (1/2, 1/2)
    teacher = torch.tensor([[5, 5], [2, 2]], dtype=torch.float64)  # (1/2, 1/2) twice
    assert clue.kl_loss(student, teacher, direction).item() == pytest.approx(expected / 2, rel=1e-12)
    assert clue.kl_loss(student, student, direction).item() == pytest.approx(0, abs=1e-15)


def test_losses_are_weighted() -> None:
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]])
    config = Config(energy_weight=0.5, kl_weight=3.0, temperature=1.0)
    energy, kl, total = clue.losses(student, teacher, config)
    assert energy.item() == pytest.approx(math.exp(3) + math.exp(4))
    assert kl.item() == pytest.approx(0, abs=1e-6)  # the softmax of both is the same
    _, kl, total = clue.losses(student, 2 * teacher, config)
    assert total.item() == pytest.approx(0.5 * energy.item() + 3 * kl.item())
    assert kl.item() > 0.05
    without = clue.losses(student, None, Config(kl_weight=0.0, energy_weight=0.5, temperature=1.0))
    assert [t.item() for t in without] == pytest.approx([energy.item(), 0.0, 0.5 * energy.item()])


def test_saliency_is_the_weight_times_its_mean_gradient() -> None:
    params, grad_sum = torch.tensor([2.0, -3.0, 0.0]), torch.tensor([-8.0, 4.0, 16.0])
    assert clue.saliency(params, grad_sum, 8).tolist() == [2.0, 1.5, 0.0]


def test_the_teachers_input_is_clipped() -> None:
    x = torch.full((2, 1, 1, 3), 0.5)
    noise = torch.tensor([-1.0, 0.25, 2.0]).expand(2, 1, 1, 3)
    found = clue.noisy(x, noise, torch.tensor([1.0, 0.5]))
    assert found[:, 0, 0].tolist() == [[0.0, 0.75, 1.0], [0.0, 0.625, 1.0]]


def test_cross_entropy_is_summed() -> None:
    logits = torch.tensor([[0, math.log(3)], [0, math.log(3)], [7, 7]], dtype=torch.float64)
    onehot = torch.tensor([[0, 1], [1, 0], [1, 0]], dtype=torch.float64)
    expected = -math.log(0.75) - math.log(0.25) - math.log(0.5)
    assert clue.cross_entropy_sum(logits, onehot).item() == pytest.approx(expected, rel=1e-12)


# hyperparameters


@pytest.mark.parametrize(("given", "message"), [
    ({"kl": "both"}, "kl must be one of student_teacher, teacher_student, not 'both'"),
    ({"augment": True}, "augment must be one of crop_flip, none, not True"),
    ({"batch_norm": "train"}, "batch_norm must be one of batch, batch_keep_running, frozen"),
    ({"temperature": "Norm"}, 'temperature must be "norm" or a number above 0'),
    ({"temperature": 0}, 'temperature must be "norm" or a number above 0, not 0'),
    ({"temperature": math.inf}, "temperature must be"),
    ({"temperature": True}, "temperature must be"),
    ({"epochs": 0}, "epochs must be at least 1, not 0"),
    ({"epochs": 2.5}, "epochs must be a whole number, not 2.5"),
    ({"saliency_batch": 64.0}, "saliency_batch must be a whole number"),
    ({"stop_every": -1}, "stop_every must be at least 0"),
    ({"stop_samples": 0}, "stop_samples must be at least 1"),
    ({"refresh": -256}, "refresh must be at least 0"),
    ({"refresh": 300}, r"refresh must be 0 or a multiple of saliency_batch \(256\), not 300"),
    ({"mask_per": "step"}, "mask_per must be one of epoch, request, not 'step'"),
    ({"lr": -0.1}, "lr must be at least 0, not -0.1"),
    ({"lr": "fast"}, "lr must be a finite number, not 'fast'"),
    ({"lr": None}, "lr must be a finite number, not None"),
    ({"tau": math.nan}, "tau must be a finite number, not nan"),
    ({"kl_weight": [1]}, "kl_weight must be a finite number"),
    ({"momentum": 1.5}, "momentum must be at most 1, not 1.5"),
    ({"verify_accuracy": 200}, "verify_accuracy must be at most 100"),
    ({"sigma_low": 1.0, "sigma_high": 0.5}, r"sigma_high \(0.5\) must not be below sigma_low \(1.0\)"),
    ({"learning_rate": 0.1}, "unknown hyperparameter of clue 'learning_rate'"),
    ({"ephocs": 1}, "did you mean 'epochs'"),
])  # fmt: skip
def test_hyperparameters_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        methods.configure("clue", given)


def test_hyperparameters_that_are_fine() -> None:
    config = methods.configure("clue", {"temperature": "norm", "epochs": 1, "tau": 0, "sigma_low": 1})
    assert config == Config(temperature="norm", epochs=1, tau=0, sigma_low=1)
    assert methods.configure("clue", HYPERPARAMETERS).batch_norm == "frozen"


def test_an_unknown_method_lists_the_choices() -> None:
    with pytest.raises(ClueError, match="unknown method 'cleu': did you mean 'clue'"):
        methods.get("cleu")


@pytest.mark.parametrize(("batch", "saliency_batch", "message"), [
    (32, 48, "take a --batch of 3, 4, 6, 8, 12, 16, 24, 48,"),
    (2, 1, "take a --batch of none, or another saliency_batch"),
])  # fmt: skip
def test_a_batch_that_does_not_divide_the_saliency_batch(
    batch: int, saliency_batch: int, message: str
) -> None:
    model = FlatModel(tiny_module(torch.zeros(2, 2)), TINY)
    with pytest.raises(ClueError, match=message):
        clue.build(model, Config(saliency_batch=saliency_batch), batch)


# batches


def test_a_short_batch_is_filled_from_the_start_of_the_epochs_order() -> None:
    data = Batches(np.zeros((5, 1, 1, 1), np.uint8), np.zeros(5, np.int64), 2, 7, "none")
    first, second = data.cut(0, 3)
    assert sorted([*first, *second[:2]]) == [0, 1, 2, 3, 4]
    assert second[2] == first[0]
    (whole,) = data.cut(0, 12)
    assert whole.tolist() == [*first, *second[:2], *first, *second[:2], *first[:2]]


# the eager loop, step by step on a model that can be worked out by hand

TINY = ModelSpec("tiny", ("a", "b"), (1, 1, 2), (0.0,), (1.0,))
PIXELS = np.array([[[[255], [51]]]], np.uint8)  # x = (1, 0.2)


def tiny_module(weight: Tensor) -> nn.Sequential:
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    module[1].weight.data.copy_(weight)
    return module


def test_mask_momentum_and_coasting_by_hand() -> None:
    """One sample of class a, one step an epoch, and no KL: the whole of CLUE in a few lines of numpy."""
    config = Config(
        epochs=3, lr=0.4, momentum=0.5, tau=0.08, kl_weight=0.0, temperature=1.0, saliency_batch=2
    )
    w, x, v = np.array([[1.0, 0.0], [0.5, -1.0]]), np.array([1.0, 0.2]), np.zeros((2, 2))
    expected = []
    for _ in range(config.epochs):
        z = w @ x
        p = np.exp(z) / np.exp(z).sum()
        mask = (np.abs(w * np.outer(p - [1, 0], x)) > config.tau).astype(float)
        v = config.momentum * v + np.outer(np.exp(z), x) * mask
        w = w - config.lr * v
        expected.append((w.copy(), v.copy(), mask))

    seen: list[tuple[Any, ...]] = []

    def watch(model: FlatModel, values: Mapping[str, Any], row: dict[str, float]) -> bool:
        seen.append(tuple(values[name].view(2, 2).numpy().copy() for name in ("params", "momentum", "mask")))
        return False

    module = tiny_module(torch.tensor([[1.0, 0.0], [0.5, -1.0]]))
    log = clue.unlearn(module, TINY, PIXELS, np.array([0]), config, batch=1, watch=watch)
    assert len(seen) == len(log) == 3
    for found, wanted in zip(seen, expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(module[1].weight.detach(), expected[-1][0], rtol=1e-5)
    # The numbers above do exercise what they are about: the mask of an epoch knows nothing of the last one's,
    # and a weight that left it goes on moving by what is left of its momentum.
    masks = [mask.tolist() for _, _, mask in expected]
    assert masks[:2] == [[[1, 0], [1, 0]], [[0, 0], [0, 1]]]
    assert seen[1][1][0, 0] == pytest.approx(0.5 * seen[0][1][0, 0])
    assert seen[0][0][0, 0] - seen[1][0][0, 0] == pytest.approx(0.4 * 0.5 * seen[0][1][0, 0], rel=1e-5)
    assert [row["density"] for row in log[:2]] == [0.5, 0.25]


# the eager loop on digits


@pytest.fixture
def digits(digits_weights: Path) -> nn.Module:
    """The trained network, of this test alone."""
    return models.load(models.resolve_spec("digits_cnn"), digits_weights)


def unlearn(module: nn.Module, data: Dataset, config: Config, **options: Any) -> list[dict[str, float]]:
    samples = data.train.of_class(FORGET)
    spec = models.resolve_spec("digits_cnn")
    return clue.unlearn(module, spec, samples.images, samples.labels, config, batch=32, **options)


def forget_accuracy(module: nn.Module, data: Dataset) -> float:
    samples = data.train.of_class(FORGET)
    return 100 * training.accuracy(module, models.resolve_spec("digits_cnn"), samples.images, samples.labels)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_demos_hyperparameters_forget(digits: nn.Module, digits_data: Dataset) -> None:
    assert forget_accuracy(digits, digits_data) > 80
    log = unlearn(digits, digits_data, Config(**HYPERPARAMETERS))
    assert forget_accuracy(digits, digits_data) < 20
    others = digits_data.test.without_class(FORGET)
    spec = models.resolve_spec("digits_cnn")
    assert training.accuracy(digits, spec, others.images, others.labels) > 0.6
    assert 0 < len(log) < 40  # stopped early, before ten epochs of four steps
    assert all(math.isfinite(row["energy"]) and 0 < row["density"] < 1 for row in log)


def test_a_seed_decides_everything(digits_weights: Path, digits_data: Dataset) -> None:
    results = []
    for seed in (5, 5, 6):
        module = models.load(models.resolve_spec("digits_cnn"), digits_weights)
        log = unlearn(module, digits_data, Config(epochs=1, tau=1e-4, augment="crop_flip"), seed=seed)
        results.append((state(module), log))
    (one, log_one), (again, log_again), (other, log_other) = results
    assert log_one == log_again
    assert not changed(one, again)
    assert log_one != log_other
    assert changed(one, other)


def test_watch_sees_every_step_and_stops(digits: nn.Module, digits_data: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    states: list[Mapping[str, Any]] = []

    def watch(model: FlatModel, values: Mapping[str, Any], row: dict[str, float]) -> bool:
        seen.append((int(row["epoch"]), int(row["step"])))
        states.append(model.state_dict(values))
        return len(seen) == 6

    log = unlearn(digits, digits_data, Config(epochs=5), watch=watch)
    assert len(log) == 6
    assert seen == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]
    assert not changed(dict(states[-1]), state(digits))  # the module is left as it was when watch said stop


@pytest.mark.parametrize(("every", "accuracy", "steps"), [(0, 100.0, 8), (1, 100.0, 1), (3, 100.0, 3)])
def test_the_early_stop(
    digits: nn.Module, digits_data: Dataset, every: int, accuracy: float, steps: int
) -> None:
    config = Config(epochs=2, lr=0.0, stop_every=every, stop_accuracy=accuracy)
    assert len(unlearn(digits, digits_data, config)) == steps


def test_the_count_of_the_early_stop_begins_anew_in_each_epoch(
    digits: nn.Module, digits_data: Dataset
) -> None:
    # four steps an epoch: counted on, the sixth would be the second of epoch 1
    assert len(unlearn(digits, digits_data, Config(epochs=2, lr=0.0, stop_every=6, stop_accuracy=100))) == 8


def test_a_refresh_makes_mask_and_teacher_anew_within_the_epoch(
    digits: nn.Module, digits_data: Dataset
) -> None:
    seen: list[tuple[int, Tensor, Tensor]] = []

    def watch(model: FlatModel, values: Mapping[str, Any], row: dict[str, float]) -> bool:
        seen.append((int(row["step"]), values["mask"].clone(), values["teacher"].clone()))
        return False

    config = Config(epochs=1, saliency_batch=32, refresh=64, lr=1e-3, tau=1e-4)
    unlearn(digits, digits_data, config, watch=watch)
    assert [step for step, _, _ in seen] == [1, 2, 3, 4]  # counted on, for the stop
    masks, teachers = [mask for _, mask, _ in seen], [teacher for _, _, teacher in seen]
    for part in (masks, teachers):
        assert torch.equal(part[0], part[1])
        assert torch.equal(part[2], part[3])
        assert not torch.equal(part[1], part[2])
    rows = [int((teacher != 0).any(1).sum()) for teacher in teachers]
    assert rows == [64, 64, 111, 111]  # what is not stepped on is not looked at


def test_what_batch_norm_does_to_the_running_statistics(digits_weights: Path, digits_data: Dataset) -> None:
    spec = models.resolve_spec("digits_cnn")
    samples = digits_data.train.of_class(FORGET)
    images, labels = samples.images[:32], samples.labels[:32]
    before = models.load(spec, digits_weights)
    buffers = {name for name, _ in before.named_buffers() if "running" in name}
    first: dict[str, dict[str, float]] = {}
    moved: dict[str, set[str]] = {}
    running: dict[str, Tensor] = {}
    for mode in ("batch", "batch_keep_running", "frozen"):
        module = models.load(spec, digits_weights)
        # no early stop, tau 0: all weights with a gradient move
        config = Config(epochs=1, tau=0.0, batch_norm=mode)
        (first[mode],) = clue.unlearn(module, spec, images, labels, config, batch=32)
        moved[mode] = changed(state(before), state(module))
        running[mode] = module.bn1.running_mean.clone()
    assert moved["batch"] >= buffers
    assert not moved["batch_keep_running"] & buffers
    assert not moved["frozen"] & buffers
    assert all("conv1.weight" in names for names in moved.values())
    # Both batch modes normalise by the batch, frozen by the running statistics.
    assert first["batch"]["energy"] == first["batch_keep_running"]["energy"]
    assert first["batch"]["energy"] != first["frozen"]["energy"]
    # One step moves the mean by a tenth of the way to the batch's.
    x = training.to_input(torch.from_numpy(images), spec)
    mean = before.conv1(x).mean((0, 2, 3))
    torch.testing.assert_close(running["batch"], 0.9 * before.bn1.running_mean + 0.1 * mean)


def test_nothing_but_the_module_is_changed(digits: nn.Module, digits_data: Dataset) -> None:
    images, labels = digits_data.train.images.copy(), digits_data.train.labels.copy()
    config = Config(epochs=1)
    before = torch.get_rng_state()
    unlearn(digits, digits_data, config)
    assert np.array_equal(images, digits_data.train.images)
    assert np.array_equal(labels, digits_data.train.labels)
    assert torch.equal(before, torch.get_rng_state())
