"""The trainer: the same weights however often it is stopped, no other run's checkpoint, no excluded image."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clue_mobile.errors import ClueError
from clue_mobile.models import load
from clue_mobile.spec import ModelSpec
from clue_mobile.training import TrainConfig, accuracy, crop_flip, one_cycle, to_input, train

SPEC = ModelSpec("test", ("a", "b", "c"), (2, 6, 6), mean=(0.4, 0.6), std=(0.2, 0.3))
CONFIG = TrainConfig(epochs=3, lr=0.05, batch=8, seed=5)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 6, 6, 2), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 30)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(seed: int = 0) -> nn.Module:
    """A network with all that a resumed run could get wrong: running statistics, momentum, dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(8 * 36, 3),
        )


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def without_seconds(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def interrupt_after(module: nn.Module, batches: int) -> None:
    """Make `module` receive a real Ctrl-C in its `batches`-th forward pass."""
    seen = 0

    def hook(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == batches:
            signal.raise_signal(signal.SIGINT)

    module.register_forward_hook(hook)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interrupted_run_ends_bit_identical(tmp_path: Path, precision: Any) -> None:
    config = TrainConfig(epochs=4, lr=0.05, batch=8, precision=precision)
    undisturbed = make()
    expected = train(undisturbed, SPEC, IMAGES, LABELS, config, validation=(IMAGES, LABELS))
    path = tmp_path / "run.pt"

    interrupted = make()
    interrupt_after(interrupted, batches=8)  # 3 batches an epoch: in the middle of the third
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, SPEC, IMAGES, LABELS, config, checkpoint=path)
    assert len(torch.load(path, weights_only=True)["history"]) == 2

    resumed, rows = make(), []
    torch.manual_seed(99)  # the global random state must not matter
    history = train(resumed, SPEC, IMAGES, LABELS, config, checkpoint=path, progress=rows.append)

    assert same(resumed, undisturbed)
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]
    assert [row["epoch"] for row in rows] == [3, 4]
    assert not resumed.training
    assert resumed[0].weight.is_contiguous()


def test_interrupted_write_leaves_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    saved: list[bytes] = []

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    def progress(row: dict[str, Any]) -> None:
        saved.append(path.read_bytes())
        monkeypatch.setattr(os, "fsync", interrupt)

    with pytest.raises(KeyboardInterrupt):
        train(make(), SPEC, IMAGES, LABELS, CONFIG, checkpoint=path, progress=progress)

    assert [path.read_bytes()] == saved
    assert list(tmp_path.iterdir()) == [path]


def test_finished_run_is_returned_as_it_was(tmp_path: Path) -> None:
    path, first, again = tmp_path / "run.pt", make(), make()
    history = train(first, SPEC, IMAGES, LABELS, CONFIG, checkpoint=path, validation=(IMAGES, LABELS))

    assert train(again, SPEC, IMAGES, LABELS, CONFIG, checkpoint=path) == history
    assert same(first, again)


def test_checkpoint_loads_as_weights(tmp_path: Path) -> None:
    spec = ModelSpec("digits_cnn", ("a", "b", "c"), (2, 6, 6), SPEC.mean, SPEC.std)
    module = load(spec, None)
    train(module, spec, IMAGES, LABELS, CONFIG, checkpoint=tmp_path / "run.pt")

    assert same(load(spec, tmp_path / "run.pt", seed=1), module)


def test_one_cycle_spans_the_whole_run() -> None:
    history = train(make(), SPEC, IMAGES, LABELS, CONFIG)

    assert [row["lr"] for row in history] == [one_cycle(step, 9, 0.05) for step in (2, 5, 8)]


def test_other_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    train(make(), SPEC, IMAGES, LABELS, CONFIG, checkpoint=path)
    content = path.read_bytes()
    other_images = IMAGES.copy()
    other_images[29, 5, 5, 1] ^= 1
    other_labels = LABELS.copy()
    other_labels[0] = (LABELS[0] + 1) % 3
    longer = TrainConfig(epochs=5, lr=0.05, batch=8, seed=5)
    shifted = ModelSpec("test", SPEC.classes, SPEC.input_shape, mean=(0.5, 0.6), std=SPEC.std)

    for arguments, message in (
        ((make(), SPEC, IMAGES, LABELS, longer), r"another run: epochs \(3 there, 5 here\); delete it"),
        ((make(), SPEC, other_images, LABELS, CONFIG), r"another run: data \("),
        ((make(), SPEC, IMAGES, other_labels, CONFIG), r"another run: data \("),
        ((make(), shifted, IMAGES, LABELS, CONFIG), r"another run: mean \("),
        ((make(seed=1), SPEC, IMAGES, LABELS, CONFIG), r"another run: initial weights \("),
    ):
        with pytest.raises(ClueError, match=message):
            train(*arguments, checkpoint=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"hello world" * 30, {"model": 1}, [1]])
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "run.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ClueError, match="not a training checkpoint"):
        train(make(), SPEC, IMAGES, LABELS, CONFIG, checkpoint=path)


def test_excluded_class_has_no_influence() -> None:
    config = TrainConfig(epochs=2, lr=0.05, batch=8, exclude_class=1)
    noise = IMAGES.copy()
    noise[LABELS == 1] = 255 - noise[LABELS == 1]
    modules = [make(), make()]
    histories = [
        train(module, SPEC, images, LABELS, config, validation=(images, LABELS))
        for module, images in zip(modules, (IMAGES, noise), strict=True)
    ]

    assert same(*modules)
    assert without_seconds(histories[0]) == without_seconds(histories[1])
    kept = LABELS != 1
    assert histories[0][-1]["validation_accuracy"] == accuracy(modules[0], SPEC, IMAGES[kept], LABELS[kept])


@pytest.mark.parametrize(("batch", "sizes"), [(8, [8, 8, 8]), (30, [30]), (64, [30])])
def test_last_incomplete_batch_is_dropped(batch: int, sizes: list[int]) -> None:
    module, seen = make(), []
    module.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))

    train(module, SPEC, IMAGES, LABELS, TrainConfig(epochs=1, lr=0.05, batch=batch))

    assert seen == sizes


def test_one_step_is_sgd_with_nesterov_momentum_and_weight_decay() -> None:
    config = TrainConfig(
        epochs=1, lr=0.1, batch=30, weight_decay=0.5, label_smoothing=0.1, augment="none", precision="float32"
    )
    module, reference = (nn.Sequential(nn.Flatten(), nn.Linear(72, 3, bias=False)) for _ in range(2))
    reference.load_state_dict(module.state_dict())
    x = (torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255 - torch.tensor([[[0.4]], [[0.6]]])) / torch.tensor(
        [[[0.2]], [[0.3]]]
    )
    smooth = torch.eye(3)[torch.tensor(LABELS)] * 0.9 + 0.1 / 3
    loss = -(reference(x).log_softmax(1) * smooth).sum(1).mean()
    loss.backward()
    weight = reference[1].weight
    gradient = weight.grad + 0.5 * weight
    expected = weight - one_cycle(0, 1, 0.1) * 1.9 * gradient  # the first nesterov step: g + 0.9 g

    history = train(module, SPEC, IMAGES, LABELS, config)

    torch.testing.assert_close(module[1].weight, expected)
    assert history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert history[0]["validation_accuracy"] is None


def test_one_step_of_adamw_moves_each_weight_by_lr_and_decays_it_apart() -> None:
    config = TrainConfig(
        epochs=1, lr=0.1, batch=30, weight_decay=0.5, augment="none", precision="float32", optimizer="adamw"
    )
    module, reference = (nn.Sequential(nn.Flatten(), nn.Linear(72, 3, bias=False)) for _ in range(2))
    reference.load_state_dict(module.state_dict())
    x = to_input(torch.tensor(IMAGES), SPEC)
    nn.functional.cross_entropy(reference(x), torch.tensor(LABELS)).backward()
    weight, lr = reference[1].weight, one_cycle(0, 1, 0.1)
    expected = weight * (1 - 0.5 * lr) - lr * weight.grad.sign()  # both moments' first estimates: g and g^2

    train(module, SPEC, IMAGES, LABELS, config)

    torch.testing.assert_close(module[1].weight, expected, rtol=1e-3, atol=1e-4)


def test_crop_flip_moves_each_image_by_itself() -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (200, 5, 5, 2), dtype=torch.uint8)

    drawn = set()
    for image, moved in zip(images, crop_flip(images), strict=True):
        padded = torch.zeros(13, 13, 2, dtype=torch.uint8)
        padded[4:9, 4:9] = image
        windows = {
            (top, left): padded[top : top + 5, left : left + 5] for top in range(9) for left in range(9)
        }
        found = [(*at, False) for at, window in windows.items() if torch.equal(moved, window)]
        found += [(*at, True) for at, window in windows.items() if torch.equal(moved, window.flip(1))]
        assert found, "not a window of the padded image"
        drawn.update(found)

    assert {flip for _, _, flip in drawn} == {False, True}
    assert {top for top, _, _ in drawn} == {left for _, left, _ in drawn} == set(range(9))


def test_to_input_scales_and_normalises() -> None:
    x = to_input(torch.tensor(IMAGES[:4]), SPEC)

    assert x.shape == (4, 2, 6, 6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x[3, 1, 2, 5].item() == pytest.approx((IMAGES[3, 2, 5, 1] / 255 - 0.6) / 0.3, rel=1e-5)


def test_one_cycle_rises_and_falls() -> None:
    rates = [one_cycle(step, 100, 0.2) for step in range(100)]

    assert rates[0] == pytest.approx(0.008)
    assert max(rates) == rates[25] == pytest.approx(0.2)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("auto", {"avx2": True, "avx512_bf16": False}, torch.float32),
        ("auto", {"avx512_bf16": True}, torch.bfloat16),
        ("auto", {"amx_bf16": True}, torch.bfloat16),
        ("float32", {"avx512_bf16": True}, torch.float32),
        ("bfloat16", {}, torch.bfloat16),
    ],
)
def test_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, precision: Any, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    module, seen = make(), []
    module.register_forward_hook(lambda _, __, output: seen.append(output.dtype))

    train(module, SPEC, IMAGES, LABELS, TrainConfig(epochs=1, lr=0.05, batch=30, precision=precision))

    assert seen == [expected]
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    train(make(), SPEC, IMAGES, LABELS, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


def test_diverging_loss_is_reported() -> None:
    with pytest.raises(ClueError, match=r"the loss became (nan|inf) in epoch \d; try a smaller lr"):
        train(make(), SPEC, IMAGES, LABELS, TrainConfig(epochs=3, lr=1e30, batch=8))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, r"uint8 of shape \[N, 6, 6, 2\] for test, not float32"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, r"not uint8 \[30, 2, 6, 6\]"),
        (IMAGES, LABELS[:29], r"labels must be int64 of shape \[30\], one per image, not int64 \[29\]"),
        (IMAGES, LABELS.astype(np.int32), "labels must be int64"),
        (IMAGES, LABELS + 1, "labels must lie in 0 to 2, not 1 to 3"),
        (IMAGES[:1], LABELS[:1], "at least 2 images, not 1"),
    ],
)
def test_data_that_do_not_fit(images: Any, labels: Any, message: str) -> None:
    with pytest.raises(ClueError, match=message):
        train(make(), SPEC, images, labels, CONFIG)


def test_validation_without_an_image_is_refused_before_training() -> None:
    with pytest.raises(ClueError, match="validation holds no image"):
        train(make(), SPEC, IMAGES, LABELS, CONFIG, validation=(IMAGES[:0], LABELS[:0]))


def test_checkpoint_without_a_folder_is_refused_before_training(tmp_path: Path) -> None:
    module = make()
    with pytest.raises(ClueError, match=r"no folder .*none"):
        train(module, SPEC, IMAGES, LABELS, CONFIG, checkpoint=tmp_path / "none" / "run.pt")
    assert same(module, make())


def test_unknown_excluded_class() -> None:
    with pytest.raises(ClueError, match="exclude_class must lie in 0 to 2, not 3"):
        train(make(), SPEC, IMAGES, LABELS, TrainConfig(exclude_class=3))


def test_accuracy_counts_right_answers() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    nn.init.zeros_(module[1].weight)
    module[1].bias.data = torch.tensor([0.0, 1.0, 0.0])

    assert accuracy(module, SPEC, IMAGES, LABELS, batch=7) == np.mean(LABELS == 1)
    with pytest.raises(ClueError, match="no images"):
        accuracy(module, SPEC, IMAGES[:0], LABELS[:0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"lr": 0.0}, "lr must be greater than 0"),
        ({"lr": float("nan")}, "lr must be greater than 0, not nan"),
        ({"batch": 1}, "batch must be at least 2"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"augment": "flip"}, "did you mean 'crop_flip'"),
        ({"precision": "float16"}, "did you mean 'bfloat16'"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
    ],
)
def test_config_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        TrainConfig(**change)
