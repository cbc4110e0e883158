"""A disk that fails on demand: stands in for `os` in pi_runtime.files."""

from __future__ import annotations

import errno
import os
from collections import Counter
from typing import Any


class Faults:
    """Counts the calls of write, fsync and replace; the one chosen by `fail` raises "no space left" once."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.short_writes = False
        self._chosen: tuple[str, int] | None = None

    def fail(self, call: str, at: int) -> None:
        """Let the `at`-th call of that function from now on fail, counted from 1."""
        self.calls.clear()
        self._chosen = (call, at)

    @property
    def happened(self) -> bool:
        return self._chosen is not None and self.calls[self._chosen[0]] >= self._chosen[1]

    def _count(self, call: str) -> None:
        self.calls[call] += 1
        if self._chosen == (call, self.calls[call]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, descriptor: int, content: Any) -> int:
        self._count("write")
        return os.write(descriptor, memoryview(content)[:1] if self.short_writes else content)

    def fsync(self, descriptor: int) -> None:
        self._count("fsync")
        os.fsync(descriptor)

    def replace(self, source: Any, target: Any) -> None:
        self._count("replace")
        os.replace(source, target)  # noqa: PTH105

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)
