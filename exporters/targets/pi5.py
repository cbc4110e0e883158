"""Raspberry Pi 5: ONNX and LiteRT programs and the Python runtime, installable by pip from runtime/."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

RUNTIMES = ("onnx", "litert")


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.name.startswith("."):
            continue  # what editors and file managers leave behind
        if item.is_dir():
            if item.name not in ("__pycache__", "scenarios"):  # the scenarios are for tests
                yield from _files(item, f"{prefix}/{item.name}")
        elif not item.name.endswith((".pyc", ".pyo")):
            yield f"{prefix}/{item.name}", item.read_bytes()


def payload() -> Iterator[tuple[str, bytes]]:
    """pi_runtime/, the contract it reads, and what pip needs."""
    runtime = resources.files("pi_runtime")
    yield from _files(runtime, "pi_runtime")
    yield from _files(resources.files("contract"), "contract")
    yield "pyproject.toml", runtime.joinpath("pyproject.runtime.toml").read_bytes()
    yield "README.md", runtime.joinpath("README.md").read_bytes()
    for name in ("install.sh", "requirements.txt", "requirements-litert.txt"):
        yield name, runtime.joinpath(name).read_bytes()
