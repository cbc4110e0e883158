"""The exported runtime/ folder alone: installed where there is no PyTorch, it serves a whole request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from clue_mobile.data import Dataset


@pytest.fixture(scope="module")
def device(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with nothing but what `pip install ./runtime` brings."""
    folder = tmp_path_factory.mktemp("device")
    # pip builds inside the folder it installs; the bundle is read only
    shutil.copytree(digits_bundle / "runtime", folder / "runtime")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    binaries = folder / "venv" / "bin"
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        install = [uv, "pip", "install", "--python", binaries / "python", folder / "runtime"]
    else:
        install = [binaries / "python", "-m", "pip", "install", folder / "runtime"]
    done = subprocess.run([str(word) for word in install], capture_output=True, text=True)
    if done.returncode and any(word in done.stderr.lower() for word in ("connection", "dns", "timed out")):
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return binaries


def _run(binaries: Path, bundle: Path, store: Path, *words: str) -> Any:
    """Run clue-pi outside the checkout; returns what --json printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["CLUE_BUNDLE"] = str(bundle)
    done = subprocess.run(
        [str(binaries / "clue-pi"), *words, "--json", "--store", str(store)],
        capture_output=True, text=True, cwd=store.parent, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip().startswith(("{", "[")) else done.stdout


@pytest.mark.parametrize("package", ["torch", "clue_mobile", "exporters", "onnx"])
def test_the_environment_is_bare(device: Path, tmp_path: Path, package: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(device / "python"), "-c", f"import {package}"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert b"ModuleNotFoundError" in done.stderr


def test_a_whole_request(device: Path, digits_bundle: Path, digits_data: Dataset, tmp_path: Path) -> None:
    store = tmp_path / "store"
    forget = digits_data.train.of_class(3)
    np.savez(tmp_path / "threes.npz", x=forget.images)
    np.savez(tmp_path / "test.npz", x=digits_data.test.of_class(3).images)

    checked = _run(device, digits_bundle, store, "check")
    assert "false" not in json.dumps(checked)
    _run(device, digits_bundle, store, "add", str(tmp_path / "threes.npz"), "--label", "3")
    before = json.dumps(_run(device, digits_bundle, store, "predict", str(tmp_path / "test.npz")))
    result = _run(device, digits_bundle, store, "forget", "--label", "3", "--seed", "0")
    assert result["status"] == "done"
    assert result["evidence"]["forget_accuracy_before"] > 80
    assert result["evidence"]["forget_accuracy_after"] <= 15
    after = json.dumps(_run(device, digits_bundle, store, "predict", str(tmp_path / "test.npz")))
    assert before != after
    records = _run(device, digits_bundle, store, "log")
    phases = {record["phase"] for record in records}
    assert {"saliency", "teacher", "step", "request"} <= phases
