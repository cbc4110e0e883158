"""Each method that runs on devices, exported and carried out by the device runtime, against its eager run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity_case import quick_export
from tiny_models import SPEC, BatchNormNet, TinyTransformer, found_elements, made
from torch import nn

import exporters
from clue_mobile import methods, models, programs
from clue_mobile.bundle import golden
from clue_mobile.bundle.reader import unpack
from clue_mobile.data import Dataset
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples
from clue_mobile.parity import compare, worst
from pi_runtime import Runtime, weights
from pi_runtime.bundle import Bundle

LABEL, SEED, BATCH = 3, 5, 8
IMAGES = 20  # two whole batches and one that is filled up

SETTINGS: dict[str, dict[str, Any]] = {
    "ga": {"epochs": 2, "lr": 1e-3},
    "rl": {"epochs": 2, "lr": 1e-2},
    "be": {"epochs": 2, "lr": 1e-2},
    "bs": {"epochs": 2, "lr": 1e-2},
    "lu": {"epochs": 2, "lr": 1e-2, "copies": 3},
    "unsir": {"epochs": 2, "noise_epochs": 2, "noise_steps": 3, "noise_images": 6},
    "ssd": {},
}
"""Enough to move the weights by more than the tolerance, with augmentation and batch statistics."""

# Of a tensor's scale, after 6 steps. Rounding alone leaves 1e-6; a ReLU that decides otherwise (see
# test_parity.py) 1e-3 in its layer's gradient, which lr and the few steps make 1e-5 of a weight.
TOLERANCE = 1e-4


# CLUE has its own, in test_parity.py
SHIPPED = {"ssd": {"ssd/importances.safetensors"}}
NAMES = [name for name in methods.METHODS if methods.on_device(name) and name != "clue"]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_the_eager_run(
    name: str, digits_weights: Path, digits_data: Dataset, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, digits_weights)
    images = digits_data.train.of_class(LABEL).images[:IMAGES]
    labels = np.full(len(images), LABEL, np.int64)
    config = methods.configure(name, SETTINGS[name])
    others = digits_data.train.without_class(LABEL)
    retain = Samples(others.images[:40], others.labels[:40])
    train = Samples(np.concatenate([retain.images, images]), np.concatenate([retain.labels, labels]))

    bundle = Bundle.open(
        quick_export(
            module, spec, tmp_path / "case.clue", method=name, batch=BATCH, train=train, **SETTINGS[name]
        )
    )
    with Runtime.for_bundle(bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(images, LABEL)
        result = runtime.forget(LABEL, seed=SEED, verify_at_most=100)
        served = dict(weights.read(runtime.serving.path, runtime.serving.sha256, bundle))
    eager, before = copy.deepcopy(module), torch.get_rng_state()
    log = methods.get(name).unlearn(
        eager, spec, images, labels, config, seed=SEED, batch=BATCH, retain=retain
    )

    assert torch.equal(torch.get_rng_state(), before)
    assert result.status == "done"
    assert bundle.files.keys() >= SHIPPED.get(name, set())
    trained = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    assert found_elements((bundle.root / "programs").rglob("*.onnx"), trained) == set()
    tensors = unpack(bundle, served)
    want = {key: eager.state_dict()[key].numpy() for key in tensors}
    start = {key: module.state_dict()[key].numpy() for key in tensors}
    assert worst(compare(tensors, want)).error <= TOLERANCE
    assert worst(compare(start, want)).error >= 100 * TOLERANCE  # so that the line above means something
    for metrics in result.evidence["metrics"].values():
        for metric, found in metrics.items():
            epochs = range(len(found))
            means = [np.mean([row[metric] for row in log if row["epoch"] == epoch]) for epoch in epochs]
            assert found == pytest.approx(means, rel=TOLERANCE), metric


# on models that trace in a moment: one with running statistics, one without


@pytest.mark.parametrize("net", [BatchNormNet, pytest.param(TinyTransformer, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", NAMES)
def test_every_program_lowers_for_every_runtime(name: str, net: type[nn.Module]) -> None:
    model = FlatModel(made(net), SPEC)
    rows = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), dtype=np.uint8)
    config = methods.configure(name, {"noise_images": 6} if name == "unsir" else {})
    recipe = methods.build(name, model, config, 4, Samples(rows, np.arange(9) % 3))
    tables = [exporters.get(runtime).OVERRIDES for runtime in exporters.EXPORTERS]
    for program in recipe.programs:
        inputs = [*golden._inputs(model, recipe, program, golden.FIRST_SEED)[0].values()]
        wanted = dict(zip(program.outputs, program.fn(*inputs), strict=True))
        for table in (each for i, each in enumerate(tables) if each not in tables[:i]):
            found = programs.trace(program, overrides=table)(*inputs)
            for one, (port, other) in zip(found, wanted.items(), strict=True):
                error = float((one - other).abs().max())
                assert error <= golden.TOLERANCE * float(other.abs().max()), (program.name, port.name)
