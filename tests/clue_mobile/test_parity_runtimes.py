"""The teacher-forced protocol of test_parity.py on the other runtimes, one step at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from parity_case import quick_export

from clue_mobile import engines, methods, models, parity
from clue_mobile.data import Dataset
from clue_mobile.parity import Replay, Step
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Engine

SEED, LABEL = 4, 3
HYPERPARAMETERS = {"epochs": 30, "stop_every": 0, "lr": 1e-3, "tau": 1e-3, "augment": "none"}
RUNTIMES = ("executorch", "litert", "coreml")
TOLERANCE = 1e-5  # of each tensor's scale, as for ONNX Runtime
# Momentum holds gradients, which jump where a ReLU's input is within rounding of zero: docs/parity.md. Which
# way it goes can be read out of ONNX programs only, so what one or two such jumps do is let pass here.
MOMENTUM = 1e-2


def engine(runtime: str) -> Engine:
    """The runtime's engine, for Core ML the evaluator of the tests."""
    if runtime != "coreml":
        return engines.get(runtime, 1)
    sys.path.insert(0, str(Path(__file__).parents[1] / "exporters"))
    from mil_engine import MilEngine

    return MilEngine()


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, digits_weights: Path, digits_data: Dataset
) -> tuple[Bundle, np.ndarray, list[Step]]:
    """A bundle for all of them, forget images, and eager's steps 1, 10 and 100."""
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, digits_weights)
    images = digits_data.train.of_class(LABEL).images
    config = methods.configure("clue", HYPERPARAMETERS)
    labels = np.full(len(images), LABEL, np.int64)
    steps = parity.record(
        module, spec, "clue", config, images, labels, seed=SEED, batch=32, steps=(1, 10, 100)
    )
    folder = tmp_path_factory.mktemp("runtimes") / "t.clue"
    return (
        Bundle.open(quick_export(module, spec, folder, runtimes=RUNTIMES, **HYPERPARAMETERS)),
        images,
        steps,
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_teacher_forced(recorded: tuple[Bundle, np.ndarray, list[Step]], runtime: str) -> None:
    bundle, images, steps = recorded
    replay = Replay(bundle, engine(runtime), images, np.full(len(images), LABEL, np.int64), SEED)
    assert [step.number for step in steps] == [1, 10, 100]
    for step in steps:
        for found in parity.teacher_forced(replay, step):
            limit = MOMENTUM if found.name.startswith("momentum:") else TOLERANCE
            assert found.error <= limit, (step.number, found)
    start = parity.epoch_start(replay, steps[0], 256)
    assert 0.001 < start.density < 0.999
    assert start.teacher.error <= TOLERANCE
    assert start.distance < 1e-3
    assert parity.worst(start.sums).error <= MOMENTUM
