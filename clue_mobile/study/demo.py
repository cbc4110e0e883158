"""The embedded default: digits, from training to the evidence of forgetting."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_mobile import data, models, report, training
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.models.weights import save_weights, write_atomic
from clue_mobile.report import Row
from clue_mobile.spec import ModelSpec
from clue_mobile.study import presets
from clue_mobile.study.evaluate import evaluate_bundle
from pi_runtime.bundle import Bundle
from pi_runtime.runtime import Runtime

PRESET = presets.get("digits")
HYPERPARAMETERS = dict(PRESET.hyperparameters)
TRAINING = training.TrainConfig(epochs=30, batch=64, augment="none", precision="float32")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    rows: list[Row]
    bundle: Path
    store: Path
    picture: Path


def run_demo(
    out: Path, forget: str, seed: int, tell: Callable[[str], None] = lambda text: None
) -> DemoResult:
    """Train, export for pi5, forget the digit through the exported programs, evaluate, draw. Weights found in
    `out` are used again.

    Raises ClueError for a digit that is none.
    """
    spec = models.resolve_spec("digits_cnn")
    if forget not in spec.classes:
        raise ClueError(f"--forget must be one of the digits {', '.join(spec.classes)}, not {forget!r}")
    label = spec.classes.index(forget)
    out.mkdir(parents=True, exist_ok=True)
    digits = data.load("digits", input_shape=spec.input_shape, classes=spec.classes)
    original = _trained(out / f"digits-seed{seed}.safetensors", spec, digits, None, seed, tell)
    retrained = _trained(
        out / f"digits-without-{forget}-seed{seed}.safetensors", spec, digits, label, seed + 1, tell
    )

    path, store = out / "digits.clue", out / "digits.store"
    began = time.monotonic()
    recipe = ExportRecipe(target="pi5", hyperparameters=HYPERPARAMETERS)
    export(
        models.load(spec, original),
        spec,
        path,
        recipe,
        replace=True,
        progress=lambda name, i, n: tell(f"export {i}/{n} {name}"),
    )
    tell(f"exported {path} in {time.monotonic() - began:.1f} s")

    bundle = Bundle.open(path)
    shutil.rmtree(store, ignore_errors=True)  # of an earlier demo: its weights belong to another bundle
    with Runtime.for_bundle(bundle, store) as runtime:
        runtime.add(digits.train.of_class(label).images, label)
    evidence = _request(path, store, forget, seed)
    tell(
        f"forgot {forget!r} through {path}/programs/onnx: forget accuracy "
        f"{evidence['forget_accuracy_before']:.1f} % -> {evidence['forget_accuracy_after']:.1f} %"
    )

    found = evaluate_bundle(bundle, digits, label, store=store, retrained=retrained, seed=seed, energies=True)
    picture = found.draw(out / "forgetting.png")
    write_atomic(out / "table.md", report.to_markdown(found.rows).encode())
    write_atomic(out / "table.json", json.dumps(report.to_json(found.rows), indent=1).encode())
    return DemoResult(found.rows, path, store, picture)


def _request(bundle: Path, store: Path, forget: str, seed: int) -> dict[str, Any]:
    """The evidence of a request in a process of its own, so that its peak memory has no PyTorch in it."""
    command = [sys.executable, "-m", "pi_runtime", "forget", str(bundle.resolve()), "--label", forget]
    command += ["--store", str(store.resolve()), "--seed", str(seed), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ClueError(f"the request did not end well: {done.stderr.strip() or done.stdout.strip()}")
    evidence: dict[str, Any] = json.loads(done.stdout)["evidence"]
    return evidence


def _trained(
    path: Path,
    spec: ModelSpec,
    digits: data.Dataset,
    without: int | None,
    seed: int,
    tell: Callable[[str], None],
) -> Path:
    """Weights at `path`, trained now unless they are there."""
    if path.exists():
        tell(f"found {path}")
        return path
    import torch

    torch.set_num_threads(1)  # tensors this small: a second thread only waits for the first
    began = time.monotonic()
    module = models.load(spec, None, seed=seed)
    config = training.TrainConfig(**{**vars(TRAINING), "seed": seed, "exclude_class": without})
    training.train(module, spec, digits.train.images, digits.train.labels, config)
    save_weights(module, path, {"architecture": spec.model})
    tell(f"trained {path} in {time.monotonic() - began:.1f} s")
    return path
