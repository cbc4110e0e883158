"""The power that the device draws while it does nothing, kept in the store as idle.json.

It stands beside the energy of a request (idle_w) and is never taken off it: what a request cost with the idle
power or without is for the reader to say.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pi_runtime import device, files
from pi_runtime.errors import ClueError
from pi_runtime.power import Reading, Source
from pi_runtime.power.sampler import Sampler

FILE = "idle.json"
LONGEST_S = 3600.0
BUSY = 0.1
"""Share of the processors in use from which on a device is not idle."""


@dataclass(frozen=True)
class Idle:
    """`idle_w` is the mean over `seconds`, energy by time; `median_w` and `highest_w` are of the samples.

    `busy` is the share of all processors that was in use meanwhile, None where the kernel does not tell.
    """

    source: str
    scope: str
    kind: str
    idle_w: float
    median_w: float
    highest_w: float
    seconds: float
    samples: int
    hz: float
    sampler_cpu_s: float
    busy: float | None
    temperature: float | None
    measured: str

    def fits(self, source: Source) -> bool:
        """Whether this was measured by the same source."""
        return (self.source, self.kind) == (source.name, source.kind)

    def write(self, folder: Path) -> Path:
        """Keep it in a store's folder, in place of an earlier one. Raises ClueError."""
        path, text = folder / FILE, json.dumps(dataclasses.asdict(self), indent=1)
        files.atomic_write(path, [text.encode() + b"\n"], replace=True)
        return path

    @staticmethod
    def read(folder: Path) -> Idle | None:
        """The one in a store's folder; None where there is none that can be read."""
        try:
            found = Idle(**json.loads((folder / FILE).read_bytes()))
            return found if math.isfinite(found.idle_w) and found.idle_w > 0 else None
        except (OSError, ValueError, TypeError):
            return None


def measure(
    source: Source,
    seconds: float,
    hz: float | None = None,
    tell: Callable[[float], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Idle:
    """Sample for `seconds` while nothing else is done; `tell` hears how many have passed.

    Raises ClueError for a time out of range, a source that gave too few samples, or when `cancel` says so.
    """
    if not 0 < seconds <= LONGEST_S:
        raise ClueError(f"the idle power is measured over 0 to {LONGEST_S:g} s, not {seconds:g} s")
    seen: list[float] = []

    def sink(moment: float, watts: float | None, reading: Reading) -> None:
        if watts is not None:
            seen.append(watts)

    sampler = Sampler(source, hz, sink)
    before = device.processor_times()
    sampler.start()
    start = time.monotonic()
    try:
        while (passed := time.monotonic() - start) < seconds:
            if cancel is not None and cancel():
                raise ClueError("the calibration was cancelled; nothing was changed")
            if tell is not None:
                tell(passed)
            time.sleep(min(0.2, seconds - passed))
        end = time.monotonic()
        after = device.processor_times()
    finally:
        sampler.stop()
    energy = sampler.energy(start, end)
    if energy is None or energy <= 0 or not seen:
        raise ClueError(f"{source.name} gave too few samples: {sampler.problem or 'none at all'}")
    busy = device.busy(before, after)
    return Idle(
        source=source.name,
        scope=source.scope,
        kind=source.kind,
        idle_w=round(energy / (end - start), 4),
        median_w=round(statistics.median(seen), 4),
        highest_w=round(max(seen), 4),
        seconds=round(end - start, 3),
        samples=len(seen),
        hz=sampler.hz,
        sampler_cpu_s=round(sampler.cpu_s, 4),
        busy=None if busy is None else round(busy, 4),
        temperature=device.temperature(),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
    )
