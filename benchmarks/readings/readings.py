"""What the options of the methods come to, on the digits: docs/methods.md shows what this prints.

Nothing is chosen here, so the test images may be looked at. UA, RA and TA in percent for seeds 0 to 2, as a
Markdown table; then what SISA retrains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from clue_mobile import data, methods, models, training
from clue_mobile.data import Split, random_share
from clue_mobile.methods import sisa
from clue_mobile.study.demo import TRAINING

FORGET = 3
PLAIN = {"augment": "none"}
SETTINGS: list[tuple[int, str, dict[str, Any]]] = [
    (30, "original", {}),
    *((30, "iu", {**PLAIN, "alpha": alpha}) for alpha in (0.2, 5.0, 10.0)),
    *((30, "iu", {**PLAIN, "solve": "paper", "alpha": alpha}) for alpha in (5.0, 10.0)),
    (30, "fisher", {"group": 8}),
    (30, "fisher", {"group": 8, "erase": False}),
    (30, "fisher", {"group": 8, "reading": "paper", "alpha": 1e-8}),
    (30, "salun", PLAIN),
    (30, "salun", {**PLAIN, "labels": "other"}),
    (30, "salun", {**PLAIN, "order": "mixed"}),
    (5, "original", {}),
    (5, "iu", {**PLAIN, "alpha": 0.4}),
    *((5, "iu", {**PLAIN, "solve": "paper", "alpha": alpha}) for alpha in (0.4, 2.0)),
]

spec = models.resolve_spec("digits_cnn")
digits = data.load("digits", input_shape=spec.input_shape, classes=spec.classes)
forget, retain = digits.train.of_class(FORGET), digits.train.without_class(FORGET)
test = digits.test.without_class(FORGET)


def accuracy(module: nn.Module, split: Split) -> str:
    """In percent."""
    return f"{100 * training.accuracy(module, spec, split.images, split.labels):.1f}"


def original(epochs: int) -> nn.Module:
    """Trained for so many epochs, by the demo's recipe."""
    module = models.load(spec, None, seed=0)
    config = training.TrainConfig(**{**vars(TRAINING), "epochs": epochs})
    training.train(module, spec, digits.train.images, digits.train.labels, config)
    return module


def readings() -> None:
    """One row a setting."""
    trained = {epochs: original(epochs).state_dict() for epochs in {epochs for epochs, *_ in SETTINGS}}
    print("| Epochs | Setting | Seed 0 | Seed 1 | Seed 2 |\n|---:|---|---|---|---|")
    for epochs, name, given in SETTINGS:
        scores = []
        for seed in range(3):
            module = models.load(spec, None)
            module.load_state_dict(trained[epochs])
            methods.get(name).unlearn(
                module,
                spec,
                forget.images,
                forget.labels,
                methods.configure(name, given),
                seed=seed,
                batch=32,
                retain=methods.Samples(retain.images, retain.labels),
            )
            scores.append(" / ".join(accuracy(module, split) for split in (forget, retain, test)))
        fields = ", ".join(f"{key}={value}" for key, value in given.items())
        print(f"| {epochs} | {' '.join([f'`{name}`', fields]).strip()} | {' | '.join(scores)} |", flush=True)


def shards() -> None:
    """What SISA retrains for a class, a tenth of it, and one image."""
    train = digits.train
    config = sisa.Config(epochs=30, batch=64, augment="none", precision="float32")
    model, cost = sisa.train(models.load(spec, None), spec, train.images, train.labels, config)
    print("\n| Forgotten | Shards | Slices | Image passes | On them | On the others | TA |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(
        f"| nothing (the training) | {cost.shards} | {cost.slices} | {cost.images:,} | - | "
        f"{accuracy(model, train)} | {accuracy(model, test)} |"
    )
    for name, gone in (
        ("a class (111 images)", train.labels == FORGET),
        ("a tenth of it (11)", random_share(train, FORGET, 0.1)),
        ("one image", np.arange(len(train)) == 500),
    ):
        after, cost = sisa.forget(model, spec, train.images, train.labels, gone)
        scores = (accuracy(after, split) for split in (train.select(gone), train.select(~gone), test))
        print(
            f"| {name} | {cost.shards} | {cost.slices} | {cost.images:,} | {' | '.join(scores)} |", flush=True
        )


if __name__ == "__main__":
    readings()
    shards()
