"""Writes what the scenarios need beside their JSON: python make_scenario_files.py (into contract/scenarios).

Two bundles, `toy` and `toy-2` (the same with other weights: an update), and the images.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import toy
from safetensors.numpy import load_file, save_file

FOLDER = Path(__file__).parents[2] / "contract" / "scenarios"


def main() -> None:
    bundles = FOLDER / "bundles"
    shutil.rmtree(bundles, ignore_errors=True)
    toy.build(bundles / "toy")
    root = Path(shutil.copytree(bundles / "toy", bundles / "toy-2"))
    path = root / "weights.safetensors"
    arrays = load_file(path)
    save_file({**arrays, "params": arrays["params"] * 1.125}, path)

    def listed(manifest: dict[str, Any]) -> None:
        facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        manifest["weights"] |= facts
        next(entry for entry in manifest["files"] if entry["file"] == path.name).update(facts)

    toy.edit(root, listed)
    images = {name: toy.images(24, label) for label, name in enumerate(toy.CLASSES)}
    save_file(images, FOLDER / "images.safetensors")


if __name__ == "__main__":
    main()
