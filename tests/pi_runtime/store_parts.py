"""What the tests of the store share: short ways to requests that are done, a search for bytes on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import toy
from safetensors.numpy import load_file, save_file

from pi_runtime import weights
from pi_runtime.engine import Array
from pi_runtime.store import Store


def add(store: Store, count: int = 6, label: int = 0, seed: int = 0) -> list[int]:
    """Store images of a class; returns their ids."""
    return store.add(toy.images(count, label, seed), label)


def queue(store: Store, label: int | None = 0, ids: list[int] | None = None) -> int:
    """A queued request, of all samples of a class unless `ids` are given."""
    chosen = store.sample_ids(label or 0) if ids is None else ids
    return store.create_request("samples" if label is None else "class", label, 1, {"lr": 0.5}, chosen, {})


def changed(store: Store, by: float = 0.25) -> Mapping[str, Array]:
    """The serving weights, the trained part changed."""
    arrays = dict(load_file(store.serving().path))
    arrays["params"] = arrays["params"] + np.float32(by)
    return arrays


def done(store: Store, request_id: int, by: float = 0.25) -> int:
    """Bring a queued request to done with real weights on the disk; returns the new generation's id."""
    with store.exclusive():
        store.begin(request_id, store.serving().id)
        store.set_status(request_id, "verifying")
        digest = weights.write(store.generation_path(request_id), changed(store, by))
        store.finish(request_id, "done", None, {"steps": 1}, [], digest)
    return store.serving().id


def forget(store: Store, label: int = 0) -> int:
    """A done request of a class; returns its id."""
    request_id = queue(store, label)
    done(store, request_id)
    return request_id


def retrain(root: Path, seed: int) -> Path:
    """Give a toy bundle other weights, random ones; returns its folder."""
    path = root / "weights.safetensors"
    arrays = load_file(path)
    params = np.random.default_rng(seed).standard_normal(len(arrays["params"]), np.float32)
    save_file({**arrays, "params": params}, path)

    def list_again(manifest: dict[str, Any]) -> None:
        facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        manifest["weights"] |= facts
        for entry in manifest["files"]:
            if entry["file"] == "weights.safetensors":
                entry |= facts

    return toy.edit(root, list_again)


def found_in(folder: Path, needles: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """(file, needle) for each needle that a file of the folder holds."""
    chosen = list(needles)
    assert chosen
    return [
        (str(path.relative_to(folder)), needle)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for needle in chosen
        if needle in path.read_bytes()
    ]
