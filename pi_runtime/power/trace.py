"""`power.jsonl` of the store: what a request drew and where it was, as lines of JSON (docs/cost.md).

A trace is a help for the eye: a full disk ends it and never the request.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pi_runtime.power import Reading

FILE = "power.jsonl"
MOST_LINES = 100_000
"""For one request; 14 hours at 2 samples a second."""


class Trace:
    """Appends to the file at `path`, readable by its owner only; `problem` says why it ended, if it did.

    `at_once`: each line as it comes, so that what a meter said survives the process; else all when it closes.
    """

    def __init__(self, path: Path, request_id: int, at_once: bool = True) -> None:
        self.problem = ""
        self._at_once, self._held = at_once, b""
        self._id, self._lines = request_id, 0
        self._clock = time.time() - time.monotonic()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            self.problem = f"no power trace: cannot open {path} ({error.strerror})"

    def header(self, **fields: Any) -> None:
        """The first line of a part: where its samples come from."""
        self._write({"line": "header", "t": round(time.time(), 3), **fields})

    def sample(self, moment: float, watts: float | None, reading: Reading) -> None:
        """One sample of power, with its rails as they came."""
        if watts is None:
            return
        line: dict[str, Any] = {"line": "sample", "t": self._time(moment), "w": round(watts, 6)}
        if reading.rails:
            line["rails"] = {rail: list(pair) for rail, pair in reading.rails.items()}
        self._write(line)

    def span(self, phase: str, start: float, end: float, **fields: Any) -> None:
        """A phase from one moment to another."""
        self._write(
            {"line": "span", "phase": phase, "t0": self._time(start), "t1": self._time(end), **fields}
        )

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._held:
            self._append(self._held)
            self._held = b""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _time(self, moment: float) -> float:
        return round(self._clock + moment, 4)

    def _write(self, line: dict[str, Any]) -> None:
        if self._descriptor is None:
            return
        self._lines += 1
        if self._lines > MOST_LINES:
            self.problem = f"the power trace ended after {MOST_LINES} lines"
            self.close()
            return
        data = json.dumps({"request_id": self._id, **line}).encode() + b"\n"
        if self._at_once:
            self._append(data)
        else:
            self._held += data

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            # one write a line, so that lines of several threads do not mix
            os.write(self._descriptor, data)
        except OSError as error:
            self.problem, self._held = f"the power trace ended: {error.strerror}", b""
            self.close()
