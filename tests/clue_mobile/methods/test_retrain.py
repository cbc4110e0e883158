from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from server_case import LINEAR, RECORDING, SEEN, digits_accuracy, linear, numbered, recorder, same, state

from clue_mobile import methods, models, training
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, retrain
from clue_mobile.methods.retrain import Config
from clue_mobile.spec import ModelSpec

QUICK = Config(epochs=3, batch=4, augment="none", precision="float32")


@pytest.fixture(autouse=True)
def _forget_what_was_seen() -> None:
    SEEN.clear()


def split(n: int, forgotten: list[int]) -> tuple[Samples, Samples]:
    images, labels = numbered(n)
    gone = np.isin(np.arange(n), forgotten)
    return Samples(images[gone], labels[gone]), Samples(images[~gone], labels[~gone])


def test_no_forgotten_image_is_trained_on_and_every_other_is() -> None:
    forgotten = [0, 3, 4, 17, 298]  # of three classes, so that it is no class that is left out
    forget, rest = split(300, forgotten)
    log = retrain.unlearn(recorder(), RECORDING, *forget, QUICK, retain=rest)
    assert set(SEEN) <= set(range(300)) - set(forgotten)
    assert len(set(SEEN)) > 290  # an epoch drops its last incomplete batch
    assert len(SEEN) == 3 * (295 // 4) * 4
    assert [row["epoch"] for row in log] == [0, 1, 2]
    assert log[0]["step"] == 73


def test_it_is_a_training_from_scratch_on_the_retain_set() -> None:
    forget, rest = split(40, [1, 2])
    module = recorder()
    before = torch.get_rng_state()
    retrain.unlearn(module, RECORDING, *forget, QUICK, retain=rest, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    fresh = models.load(RECORDING, None, seed=5)
    config = training.TrainConfig(epochs=3, batch=4, augment="none", precision="float32", seed=5)
    assert config.weight_decay == 5e-4
    training.train(fresh, RECORDING, *rest, config)
    assert same(state(module), state(fresh))
    assert not module.training


def test_what_a_module_had_learnt_does_not_matter() -> None:
    forget, rest = split(40, [1, 2])
    one, other = recorder(), recorder()
    other.fc.weight.data.fill_(9)
    other.norm.running_mean.fill_(3)
    for module in (one, other):
        retrain.unlearn(module, RECORDING, *forget, QUICK, retain=rest)
    assert same(state(one), state(other))


def test_frozen_parameters_stay() -> None:
    forget, rest = split(40, [1, 2])
    module = recorder()
    module.fc.bias.requires_grad_(False).fill_(0.25)
    retrain.unlearn(module, RECORDING, *forget, QUICK, retain=rest)
    assert module.fc.bias.tolist() == [0.25] * 3


def test_watch_sees_each_epoch_and_stops() -> None:
    forget, rest = split(40, [1, 2])
    module, seen = recorder(), []

    def watch(model: FlatModel, values: Mapping[str, Any], row: dict[str, float]) -> bool:
        seen.append(model.state_dict(values))
        return len(seen) == 2

    log = retrain.unlearn(module, RECORDING, *forget, QUICK, retain=rest, watch=watch)
    assert len(log) == len(seen) == 2
    assert all(torch.equal(tensor, state(module)[name]) for name, tensor in seen[-1].items())
    assert not module.training


def test_what_cannot_be_retrained() -> None:
    forget, rest = split(40, [1])
    with pytest.raises(
        ClueError, match="retrain needs all training images but the forget set, and no retain"
    ):
        retrain.unlearn(recorder(), RECORDING, *forget, QUICK)
    other = ModelSpec("server_case:recorder", LINEAR.classes, (1, 2, 2), (0.0,), (1.0,))
    with pytest.raises(ClueError, match="cannot be trained anew: the module given has other weights"):
        retrain.unlearn(linear(np.zeros((3, 2))), other, *forget, QUICK, retain=rest)
    with pytest.raises(ClueError, match="cannot run on a device, since it needs all training images"):
        methods.build("retrain", None, None, 32)


@pytest.mark.parametrize(("given", "message"), [
    ({"epochs": 0}, "epochs must be at least 1"),
    ({"batch": 1}, "batch must be at least 2"),
    ({"lr": 0}, "lr must be greater than 0"),
    ({"lr": "fast"}, "lr must be a finite number"),
    ({"augment": "mixup"}, "augment must be one of crop_flip, none"),
    ({"seed": 1}, "unknown hyperparameter of retrain 'seed'"),
])  # fmt: skip
def test_hyperparameters_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        methods.configure("retrain", given)


def test_digits_without_a_class(digits_weights: Path, digits_data: Dataset) -> None:
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, digits_weights)
    forget, rest = digits_data.train.of_class(3), digits_data.train.without_class(3)
    config = Config(epochs=3, batch=64, augment="none", precision="float32")
    retrain.unlearn(
        module, spec, forget.images, forget.labels, config, retain=Samples(rest.images, rest.labels)
    )
    assert digits_accuracy(module, forget) == 0
    assert digits_accuracy(module, digits_data.test.without_class(3)) > 85
