"""iOS: Core ML packages, one ExecuTorch file, ONNX programs, and the Swift packages in runtime/."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

RUNTIMES = ("coreml", "executorch", "onnx")

# of ios_demo: the packages (an engine that its makers give as a package has one of its own) and the steps to
# embed them; not the tests, the demo app and what SwiftPM leaves behind
_FOLDERS = ("ExecuTorch", "Ort", "Sources")
_FILES = ("Package.swift", "README.md")


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.name.startswith(".") or item.name == "__pycache__":
            continue
        if item.is_dir():
            yield from _files(item, f"{prefix}/{item.name}")
        elif item.name != "Package.resolved":
            yield f"{prefix}/{item.name}", item.read_bytes()


def payload() -> Iterator[tuple[str, bytes]]:
    """The Swift packages ClueRuntime, ClueOrt and ClueExecuTorch, as an app adds them, and the steps."""
    package = resources.files("ios_demo")
    for name in _FILES:
        yield name, package.joinpath(name).read_bytes()
    for name in _FOLDERS:
        yield from _files(package.joinpath(name), name)
