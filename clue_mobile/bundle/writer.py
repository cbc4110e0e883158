"""Writes a bundle: every file into a temporary folder, flushed, then one rename. A failed export leaves
nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from clue_mobile.errors import ClueError


class BundleWriter:
    """Collects the files of one bundle; `commit` makes them the folder `path`. A context manager.

    Raises ClueError where `path` exists (unless `replace`, and it is a bundle), or a write, flush or rename
    fails.
    """

    def __init__(self, path: Path, replace: bool = False) -> None:
        self.path, self.replace = path, replace
        if path.exists() and not replace:
            raise ClueError(f"{path} exists already: choose another --out, or give --force to replace it")
        if path.exists() and not (path / "manifest.json").is_file():
            raise ClueError(
                f"{path} exists and is no bundle, so --force does not replace it: choose another --out"
            )
        self.rows: list[dict[str, Any]] = []
        self._place = path.resolve()  # "." has no name of its own, and a link stays a link
        self._folder = self._beside("part")

    def __enter__(self) -> BundleWriter:
        with self._clear_errors("create"):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # gone already after commit

    def _beside(self, ending: str) -> Path:
        return self._place.with_name(f".{self._place.name}.{os.getpid()}.{ending}")

    def _clear_errors(self, verb: str) -> contextlib.AbstractContextManager[None]:
        @contextlib.contextmanager
        def guard() -> Any:
            try:
                yield
            except OSError as error:
                raise ClueError(
                    f"cannot {verb} {self.path}: {error.strerror or error}; nothing was changed"
                ) from error

        return guard()

    def _store(self, name: str, data: bytes) -> None:
        path = self._folder / name
        with self._clear_errors("write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def add(self, name: str, data: bytes) -> dict[str, Any]:
        """Write one file; returns its row {file, sha256, bytes}."""
        self._store(name, data)
        row = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        self.rows.append(row)
        return row

    def commit(self, manifest: dict[str, Any], sign: Callable[[bytes], bytes] | None = None) -> Path:
        """Write the manifest, its hash and, with `sign`, its signature; flush the folders, rename the whole
        into place."""
        text = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
        self._store("manifest.json", text)
        if sign is not None:
            self._store("manifest.sig", sign(text))
        self._store("manifest.sha256", f"{hashlib.sha256(text).hexdigest()}  manifest.json\n".encode())
        with self._clear_errors("write"):
            for folder in (*(p for p in self._folder.rglob("*") if p.is_dir()), self._folder):
                _flush_folder(folder)
            old = self._beside("old")
            # a folder cannot be replaced in one step: move the old one aside, and back on failure
            if self._place.exists():
                os.rename(self._place, old)  # noqa: PTH104  tests make these calls fail
            try:
                os.rename(self._folder, self._place)  # noqa: PTH104
                _flush_folder(self._place.parent)
            except BaseException:
                if not self._folder.exists():
                    self._place.rename(self._folder)
                if old.exists():
                    old.rename(self._place)
                raise
            shutil.rmtree(old, ignore_errors=True)
        return self.path


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
