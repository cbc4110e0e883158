"""clue-pi with the Pi's own wheels on an emulated Cortex-A76, beside this computer: `make test-aarch64`.

Emulation shows that the aarch64 code runs and what it computes; its seconds say nothing of a Pi.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from emulated import HERE, HOST, MARKS, PI, ROOT, run

from clue_mobile.parity import compare, worst
from pi_runtime.bundle import Bundle
from pi_runtime.weights import WeightsFile

if TYPE_CHECKING:
    from clue_mobile.data import Dataset

SEED = 7

pytestmark = MARKS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Path:
    """digits_cnn exported for pi5 with its default runtimes."""
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export
    from clue_mobile.study.demo import HYPERPARAMETERS

    spec = models.resolve_spec("digits_cnn")
    recipe = ExportRecipe(target="pi5", hyperparameters=HYPERPARAMETERS)
    folder = tmp_path_factory.mktemp("aarch64") / "digits.clue"
    return export(models.load(spec, digits_weights), spec, folder, recipe)


def test_it_is_the_pi_s_processor_and_the_locked_wheels() -> None:
    script = (
        "import importlib.metadata as m, json, platform, sys; print(json.dumps({'machine': "
        "platform.machine(), 'python': list(sys.version_info[:2]), 'versions': "
        "{d.metadata['Name'].lower().replace('_', '-').replace('.', '-'): d.version "
        "for d in m.distributions()}}))"
    )
    found = run(PI, "-c", script)
    assert (found["machine"], found["python"]) == ("aarch64", [3, 11])
    locked = {}
    for name in ("requirements.lock", "requirements-litert.lock"):
        for line in (ROOT / "pi_runtime" / name).read_text().splitlines():
            if "==" in line and not line.startswith("#") and "win32" not in line:
                package, _, version = line.split()[0].partition("==")
                locked[package] = version
    assert found["versions"].items() >= locked.items()


def test_random_numbers_are_the_same_bits() -> None:
    assert run(PI, HERE / "draws.py") == run(HOST, HERE / "draws.py")


def test_the_golden_suite_on_onnx(bundle: Path, tmp_path: Path) -> None:
    """`clue-pi check` ends with 0: every output is within its tolerance of eager PyTorch."""
    common = ["--store", tmp_path / "store", "--threads", "1", "--engine", "onnx", "--json"]
    results = run(PI, "-m", "pi_runtime", "check", bundle, *common)
    assert {row["program"] for row in results} == Bundle.open(bundle).programs.keys()
    print("onnx, largest golden error:", max(row["error"] for row in results))


def test_the_golden_results_on_litert(bundle: Path) -> None:
    """The programs that ai-edge-litert 2.3.0 can run under emulation.

    `mask` and `step` end with a segmentation fault in its `invoke` there (QEMU 10, with and without XNNPACK);
    whether they do on a Pi is not known, so onnx comes first.
    """
    names = ("predict", "predict_1", "teacher", "saliency")
    results = run(PI, HERE / "golden_of.py", bundle, "litert", *names)
    assert {row["program"] for row in results} == set(names)
    assert all(row["ok"] for row in results), results
    print("litert, largest golden error:", max(row["error"] for row in results))


@pytest.fixture(scope="module")
def request_on(
    bundle: Path, digits_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[str]], tuple[dict[str, Any], dict[str, Any]]]:
    """Runs a whole request and gives its result and the new weights."""
    folder = tmp_path_factory.mktemp("request")
    train = digits_data.train.of_class(3)
    np.savez(folder / "three.npz", x=train.images, y=np.full(len(train.images), 3))

    def whole(python: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        store = folder / ("pi" if python is PI else "host")
        common = ["--store", store, "--threads", "1", "--engine", "onnx", "--json"]
        (added,) = run(python, "-m", "pi_runtime", "add", bundle, folder / "three.npz", *common)
        assert added["added"] == len(train.images)
        options = ["--label", "3", "--seed", SEED, "--quiet", *common]
        result = run(python, "-m", "pi_runtime", "forget", bundle, *map(str, options))
        made = WeightsFile(max((store / "generations").glob("*.safetensors")))
        return result, {key: np.array(made[key]) for key in made}

    return whole


def test_a_whole_request_ends_as_on_this_computer(
    request_on: Callable[[list[str]], tuple[dict[str, Any], dict[str, Any]]], bundle: Path
) -> None:
    """The same decisions and steps, and weights within 1e-4 of each array's scale, as docs/parity.md requires
    of a whole request against eager PyTorch."""
    (pi, here), (host, there) = request_on(PI), request_on(HOST)
    assert (pi["status"], host["status"]) == ("done", "done")
    same = ("samples", "steps", "epochs_run", "stopped_early", "forget_accuracy_before")
    assert {k: pi["evidence"][k] for k in same} == {k: host["evidence"][k] for k in same}
    assert pi["evidence"]["forget_accuracy_after"] == host["evidence"]["forget_accuracy_after"]
    old = WeightsFile(Bundle.open(bundle).file(Bundle.open(bundle).weights.file))
    assert any(not np.array_equal(there[key], old[key]) for key in old)
    found = worst(compare(here, there))
    print(f"weights after {pi['evidence']['steps']} steps: largest error {found.error:.1e}, {found.name}")
    assert found.error < 1e-4
