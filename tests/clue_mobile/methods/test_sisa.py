"""What is trained again, from where, and that the result is that of never having seen the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from server_case import RECORDING, SEEN, digits_accuracy, numbered, recorder, same, state
from torch import nn

from clue_mobile import methods, models
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.methods import sisa
from clue_mobile.methods.sisa import Config

N = 60
# batches of 2 divide every set here, so that an epoch drops no image
CONFIG = Config(shards=3, slices=2, epochs=3, batch=2, augment="none", precision="float32")


@pytest.fixture(autouse=True)
def _forget_what_was_seen() -> None:
    SEEN.clear()


def train(config: Config = CONFIG, without: np.ndarray | None = None) -> tuple[sisa.SisaModel, sisa.Cost]:
    return sisa.train(recorder(), RECORDING, *numbered(N), config, seed=7, without=without)


def masked(*positions: int) -> np.ndarray:
    mask = np.zeros(N, bool)
    mask[list(positions)] = True
    return mask


def test_shards_and_slices_are_a_partition() -> None:
    model, _ = train()
    assert [[len(part) for part in shard] for shard in model.slices] == [[10, 10]] * 3
    assert sorted(np.concatenate([np.concatenate(shard) for shard in model.slices])) == list(range(N))
    other, _ = sisa.train(recorder(), RECORDING, *numbered(N), CONFIG, seed=8)
    assert not np.array_equal(model.slices[0][0], other.slices[0][0])


@pytest.mark.parametrize(("epochs", "slices", "expected"), [
    (20, 1, [20]),
    (3, 2, [2, 2]),
    (20, 3, [10, 10, 10]),
    (5, 3, [2, 3, 2]),
    (1, 4, [0, 0, 1, 0]),
])  # fmt: skip
def test_epochs_are_spread_over_the_slices(epochs: int, slices: int, expected: list[int]) -> None:
    """2 epochs / (slices + 1) for each: slice k costs (k + 1) / slices of an epoch, which is `epochs` in
    all."""
    config = Config(epochs=epochs, slices=slices)
    assert [config.slice_epochs(number) for number in range(slices)] == expected


def test_each_model_sees_its_shard_alone_slice_by_slice() -> None:
    model, cost = train()
    expected = [2 * sorted(shard[0]) + 2 * sorted(np.concatenate(shard)) for shard in model.slices]
    cut = np.split(np.array(SEEN), 3)  # 2 epochs of 10 images, 2 of 20, for each of 3 shards
    for seen, (first, second) in zip(cut, model.slices, strict=True):
        assert sorted(seen[:20]) == sorted([*first, *first])
        assert sorted(seen[20:]) == sorted([*first, *second] * 2)
    assert cost.images == len(SEEN) == sum(map(len, expected)) == 180
    assert (cost.slices, cost.shards) == (6, 3)
    assert cost.seconds > 0


def test_only_what_saw_the_images_is_trained_again() -> None:
    """One image of the second slice of shard 1, two of the first slice of shard 2."""
    model, _ = train()
    before = state(model)
    gone = [int(model.slices[1][1][4]), int(model.slices[2][0][0]), int(model.slices[2][0][9])]
    SEEN.clear()
    after, cost = sisa.forget(model, RECORDING, *numbered(N), masked(*gone), seed=7)

    assert not set(SEEN) & set(gone)
    left = [set(np.concatenate(shard).tolist()) - set(gone) for shard in model.slices]
    assert set(SEEN[:36]) <= left[1]  # shard 1: slice 2 alone, 2 epochs of 19 images in batches of 2
    assert set(SEEN[36:]) <= left[2]  # shard 2: 2 epochs of 8 images, then 2 of 18
    assert len(SEEN) == 36 + 2 * 8 + 2 * 18
    assert (cost.images, cost.slices, cost.shards) == (2 * 19 + 2 * 8 + 2 * 18, 3, 2)

    assert same(state(after.models[0]), state(model.models[0]))
    assert not same(state(after.models[1]), state(model.models[1]))
    assert not same(state(after.models[2]), state(model.models[2]))
    assert same(after.checkpoints[1][0], model.checkpoints[1][0])  # from before the image
    assert not same(after.checkpoints[2][0], model.checkpoints[2][0])
    assert same(before, state(model))  # the original ensemble is still there


def test_forgetting_is_exact() -> None:
    model, _ = train()
    gone = masked(0, 13, 14, 40, 59)
    after, cost = sisa.forget(model, RECORDING, *numbered(N), gone, seed=7)
    never, whole = train(without=gone)
    assert same(state(after), state(never))
    for one, other in zip(after.checkpoints, never.checkpoints, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert cost.images <= whole.images


def test_requests_add_up() -> None:
    model, _ = train()
    first, _ = sisa.forget(model, RECORDING, *numbered(N), masked(3), seed=7)
    SEEN.clear()
    second, cost = sisa.forget(first, RECORDING, *numbered(N), masked(3, 50), seed=7)
    assert not {3, 50} & set(SEEN)
    assert cost.shards == 1  # the shard of image 3 has no new image to forget
    assert same(state(second), state(train(without=masked(3, 50))[0]))
    SEEN.clear()
    third, cost = sisa.forget(second, RECORDING, *numbered(N), masked(50), seed=7)
    assert (cost.images, cost.slices, cost.shards, SEEN) == (0, 0, 0, [])
    assert same(state(third), state(second))


def test_a_class_costs_a_whole_training() -> None:
    model, _ = train()
    labels = numbered(N).labels
    _, cost = sisa.forget(model, RECORDING, *numbered(N), labels == 0, seed=7)
    assert (cost.slices, cost.shards) == (6, 3)
    assert cost.images == train(without=labels == 0)[1].images


class Fixed(nn.Module):
    """Always the same logits."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, 3]."""
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize(("aggregate", "expected"), [
    ("vote", [2 / 3, 1 / 3, 0.0]),
    ("mean", [(0.5 + 0.4 + 0.0) / 3, (0.3 + 0.3 + 1.0) / 3, (0.2 + 0.3 + 0.0) / 3]),
])  # fmt: skip
def test_the_answers_are_aggregated(aggregate: str, expected: list[float]) -> None:
    config = methods.configure("retrain", {})
    model = sisa.SisaModel(nn.Identity(), [[]] * 3, np.ones(0, bool), Config(aggregate=aggregate))
    shares = ([0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.0, 1.0, 0.0])
    model.models = nn.ModuleList(Fixed([float(np.log(max(p, 1e-300))) for p in row]) for row in shares)
    logits = model(torch.zeros(2, 1, 2, 2))
    assert torch.isfinite(logits).all()
    np.testing.assert_allclose(logits.softmax(1).detach()[1], expected, atol=2e-6)
    assert config.epochs == Config().epochs  # the recipe is the one of retraining


def test_what_does_not_fit() -> None:
    with pytest.raises(ClueError, match="60 images are too few for 10 shards of 7 slices"):
        train(Config(shards=10, slices=7))
    with pytest.raises(ClueError, match="shards must be at least 1"):
        Config(shards=0)
    with pytest.raises(ClueError, match="aggregate must be one of vote, mean"):
        Config(aggregate="sum")
    with pytest.raises(ClueError, match=r"bool array of shape \[60\], one for each .*, not int64"):
        sisa.forget(train()[0], RECORDING, *numbered(N), np.array([3]))


def test_the_three_ensembles_of_a_table(digits_data: Dataset) -> None:
    spec = models.resolve_spec("digits_cnn")
    train_set = digits_data.train
    gone = train_set.labels == 3
    config = Config(shards=2, slices=2, epochs=3, batch=64, augment="none", precision="float32")
    told: list[tuple[int, int]] = []
    module = models.load(spec, None)
    before = torch.get_rng_state()
    data = spec, train_set.images, train_set.labels

    def tell(done: int, todo: int) -> None:
        told.append((done, todo))

    original, trained = sisa.train(module, *data, config, seed=0, progress=tell)
    forgotten, retrained = sisa.forget(original, *data, gone, seed=0, progress=tell)
    reference, _ = sisa.train(module, *data, config, seed=1, without=gone, progress=tell)
    assert torch.equal(before, torch.get_rng_state())
    test = digits_data.test
    assert digits_accuracy(original, test) > 60
    assert digits_accuracy(original, test.of_class(3)) > 30
    for model in (forgotten, reference):
        assert digits_accuracy(model, train_set.of_class(3)) == 0
        assert digits_accuracy(model, test.without_class(3)) > 60
    assert not same(state(forgotten), state(reference))
    assert 0 < retrained.images < trained.images
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)] * 3
