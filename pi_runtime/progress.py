"""The progress of a request on a terminal, or as a few lines in a log."""

from __future__ import annotations

import time
from typing import TextIO

from pi_runtime.request import Progress

_LINES = 10  # in a log, for a whole request


class ProgressLine:
    """Give it as `progress` to `Runtime.forget`; `close` it afterwards."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._start = time.monotonic()
        self._shown = 0.0
        self._width = 0
        self._first: float | None = None  # the share that was done already: a request may go on

    def __call__(self, progress: Progress) -> None:
        share = progress.done / progress.total
        elapsed = time.monotonic() - self._start
        if self._first is None:
            self._first = share - 1 / progress.total
        if self._terminal:
            if elapsed - self._shown < 0.1 and progress.done < progress.total:
                return
            self._shown = elapsed
        elif int(share * _LINES) <= self._shown:
            return
        else:
            self._shown = int(share * _LINES)
        self._write(progress, share, elapsed)

    def close(self) -> None:
        """End the line that is rewritten on a terminal."""
        if self._terminal and self._width:
            self._stream.write("\n")

    def _write(self, progress: Progress, share: float, elapsed: float) -> None:
        left = elapsed * (1 - share) / (share - (self._first or 0.0))
        metrics = "".join(f" {name} {value:.4g}" for name, value in progress.metrics.items())
        where = f"{progress.phase} epoch {progress.epoch + 1}"
        text = f"{share:4.0%} {where}, {elapsed:.0f} s, {left:.0f} s left at most{metrics}"
        if self._terminal:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
