"""What keeps a request from harming the device: heat, memory, priority."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from pi_runtime import device
from pi_runtime.errors import ClueError
from pi_runtime.request import Paused

# A request that paused goes on when it is this much cooler: not a step after it paused.
HYSTERESIS = 5.0
TOO_HOT, TOO_LITTLE_MEMORY = "too hot", "too little memory"  # how the reasons of these pauses begin
_ASK_EACH_S = 1.0  # reading a sensor takes up to some milliseconds on a Pi, a step may take less


class Thermal:
    """Pauses a request above `limit` degrees Celsius; a device without a sensor is never too hot."""

    def __init__(
        self,
        limit: float,
        temperature: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._temperature = temperature or device.temperature
        self._clock, self._next = clock, float("-inf")

    def check(self) -> None:
        """Raise Paused when it is too hot; asks the sensor once a second."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + _ASK_EACH_S
        now = self._temperature()
        if now is not None and now > self.limit:
            raise Paused(f"{TOO_HOT}: {now:.1f} degrees, the limit is {self.limit:g}")

    def check_start(self) -> None:
        """Raise Paused when it is too hot to begin or to go on."""
        now, limit = self._temperature(), self.limit - HYSTERESIS
        if now is not None and now > limit:
            raise Paused(f"{TOO_HOT}: {now:.1f} degrees, a request begins at {limit:g} or less")


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """The bytes that the kernel can give without swapping (MemAvailable); None where it does not tell."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        words = line.split()
        if words and words[0] == "MemAvailable:" and len(words) > 1 and words[1].isdecimal():
            return int(words[1]) * 1024
    return None


def check_memory(planned: int, available: int | None) -> None:
    """Raise Paused when the planned peak (bytes) does not fit what is free; nothing is loaded yet."""
    if available is not None and planned > available:
        raise Paused(
            f"{TOO_LITTLE_MEMORY}: {planned / 2**20:.0f} MiB are planned and {available / 2**20:.0f} MiB are "
            "available; end other programs"
        )


def parse_cpus(text: str) -> set[int]:
    """The processors of a list as the kernel writes it ("0-2,5"). Raises ClueError for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or int(last or first) < int(first):
            raise ClueError(f"--cpus {text!r}: write numbers and ranges, such as 0-2,3")
        if int(last or first) > 4095:
            raise ClueError(f"--cpus {text!r}: there is no processor {last or first}")
        found.update(range(int(first), int(last or first) + 1))
    return found


def set_priority(nice: int | None, cpus: str | None) -> None:
    """Lower this process's priority to `nice` and keep it on `cpus`; call it before an engine starts threads.

    Raises ClueError for a number out of range, a priority that this user may not have, a processor that
    there is not.
    """
    if nice is not None:
        if not -20 <= nice <= 19:
            raise ClueError(f"--nice {nice}: it must be from -20 to 19")
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as error:
            raise ClueError(f"--nice {nice}: {error.strerror}; a user may only go up to 19") from error
    if cpus is not None:
        chosen, usable = parse_cpus(cpus), os.sched_getaffinity(0)
        if not chosen <= usable:
            missing = ", ".join(map(str, sorted(chosen - usable)))
            raise ClueError(
                f"--cpus {cpus}: this process may not run on {missing}, only on "
                f"{', '.join(map(str, sorted(usable)))}"
            )
        os.sched_setaffinity(0, chosen)
