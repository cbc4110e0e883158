"""What a device runtime's folder serves, and what its last request cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clue_mobile.errors import ClueError
from pi_runtime import weights as weight_files
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Array
from pi_runtime.store import Store


class Served(NamedTuple):
    """The served weights as flat vectors, and seconds and peak MiB of the last request that was done."""

    state: dict[str, Array]
    wall_s: float
    peak_mib: float


def shipped(bundle: Bundle) -> dict[str, Array]:
    """The bundle's own weights as flat vectors."""
    return _state(bundle, weight_files.read(bundle.file(bundle.weights.file), bundle.weights.sha256, bundle))


def served(bundle: Bundle, folder: Path) -> Served:
    """Read the store in `folder`. Raises ClueError where there is none, or no request that was done."""
    if not (folder / "store.db").is_file():  # a Store makes one where there is none
        raise ClueError(f"no store at {folder}: give the folder that `clue-mobile forget` or `clue-pi` wrote")
    store = Store(folder, bundle)
    try:
        serving = store.serving()
        state = _state(bundle, weight_files.read(serving.path, serving.sha256, bundle))
        done = [r for r in store.records() if r["phase"] == "request" and r["status"] == "done"]
    finally:
        store.close()
    if not done:
        raise ClueError(f"{folder} has no finished request: run `clue-mobile forget {bundle.root}` first")
    return Served(state, float(done[-1]["wall_s"]), float(done[-1]["peak_mem_bytes"]) / 2**20)


def _state(bundle: Bundle, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {v.name: arrays[str(v.weights_key)] for v in bundle.values.values() if v.role == "state"}
