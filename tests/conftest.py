"""What all tests share: one thread, repeatable examples, and a digits model exported once for a whole run."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from clue_mobile.data import Dataset

# Read by the libraries when they are first imported, which no import above does. On a shared machine the
# threads of an operator, and those of other test processes, spend most of their time waiting for each other.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

PATIENCE = 300.0  # seconds that a test process waits for another one to make what they share


@pytest.fixture(autouse=True)
def _no_records_of_tracing() -> None:
    """pytest listens to each logger that does not propagate; torch would tell it of each traced tensor."""
    if "torch" in sys.modules:
        logger = logging.getLogger("torch.__trace")
        logger.handlers.clear()
        logger.propagate = True


def _shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, filled by `make` once in a test run, whichever process comes first.

    The one that can create NAME.claim makes the folder under another name and renames it; the others wait.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = factory.mktemp(name)
        make(folder)
        return folder
    parent = factory.getbasetemp().parent  # of all processes of this run, and of no other run
    folder, claim, failed = (parent / f"{name}{ending}" for ending in ("", ".claim", ".failed"))
    try:
        claim.mkdir()
    except FileExistsError:
        end = time.monotonic() + PATIENCE
        while not folder.exists():
            if failed.exists() or time.monotonic() > end:
                pytest.fail(f"another test process could not make {name}")
            time.sleep(0.05)
        return folder
    part = parent / f"{name}.part"
    part.mkdir()
    try:
        make(part)
    except BaseException:
        failed.touch()
        raise
    part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def digits_data() -> Dataset:
    """scikit-learn's digits at digits_cnn's input size."""
    from clue_mobile import data

    return data.load("digits", input_shape=(1, 8, 8), classes=tuple("0123456789"))


@pytest.fixture(scope="session")
def digits_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of digits_cnn after a few epochs, good for about 95 % of the test images. Read only."""

    def make(folder: Path) -> None:
        from clue_mobile import data, models, training
        from clue_mobile.models.weights import save_weights

        spec = models.resolve_spec("digits_cnn")
        module = models.load(spec, None, seed=0)
        digits = data.load("digits", input_shape=spec.input_shape, classes=spec.classes)
        config = training.TrainConfig(epochs=5, batch=64, augment="none", precision="float32")
        training.train(module, spec, digits.train.images, digits.train.labels, config)
        save_weights(module, folder / "digits.safetensors", {"architecture": "digits_cnn"})

    return _shared(tmp_path_factory, "digits_weights", make) / "digits.safetensors"


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Path:
    """digits_cnn with `digits_weights` and the demo's hyperparameters, exported for pi5. Read only."""

    def make(folder: Path) -> None:
        from clue_mobile import models
        from clue_mobile.export import ExportRecipe, export
        from clue_mobile.study.demo import HYPERPARAMETERS

        spec = models.resolve_spec("digits_cnn")
        # one runtime, for the time it takes: tests/pi_runtime/test_engines.py exports the target's own
        recipe = ExportRecipe(target="pi5", hyperparameters=HYPERPARAMETERS, runtimes=("onnx",))
        export(models.load(spec, digits_weights), spec, folder / "digits.clue", recipe)

    return _shared(tmp_path_factory, "digits_bundle", make) / "digits.clue"
