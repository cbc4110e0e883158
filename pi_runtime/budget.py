"""What a run of a request may take: seconds and joules; over it the request pauses at a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable

from pi_runtime.errors import ClueError
from pi_runtime.options import Options
from pi_runtime.request import Paused

# Joules that the device has used since some moment; None where it is not measured (now).
Joules = Callable[[], float | None]


def not_measured() -> None:
    """The `Joules` of a device without a power sensor."""
    return


def check_energy(options: Options, joules: Joules) -> None:
    """Raise ClueError when an option needs the energy and this device does not measure it."""
    if options.needs_energy and joules() is None:
        raise ClueError(
            f"{' and '.join(options.needs_energy)}: this device does not measure energy, so that nothing "
            "can be stopped by it; leave it out, or give --max-seconds"
        )


class Budget:
    """Counts from when it is made; `earlier` joules were used by earlier parts of the request."""

    def __init__(self, options: Options, joules: Joules = not_measured, earlier: float = 0.0) -> None:
        self._options, self._joules, self._earlier = options, joules, earlier
        self._start = (time.monotonic(), joules())

    @property
    def joules(self) -> float | None:
        """What this run has used so far; None where it is not measured."""
        start, now = self._start[1], self._joules()
        return None if start is None or now is None else now - start

    @property
    def total_joules(self) -> float | None:
        """What the request has used so far, earlier parts included; None where it is not measured."""
        used = self.joules
        return None if used is None else self._earlier + used

    def check(self) -> None:
        """Raise Paused when the run has taken what it may take."""
        options, seconds = self._options, time.monotonic() - self._start[0]
        if options.max_seconds is not None and seconds >= options.max_seconds:
            raise Paused(f"over budget: {seconds:.1f} s of {options.max_seconds:g} s")
        if options.max_joules is not None:
            used = self.joules
            if used is None:
                raise Paused("over budget: max_joules is set and the energy is not measured any longer")
            if used >= options.max_joules:
                raise Paused(f"over budget: {used:.1f} J of {options.max_joules:g} J")

    def enough_energy(self) -> bool:
        """Whether `stop_joules` is reached."""
        limit, used = self._options.stop_joules, self.total_joules
        return limit is not None and used is not None and used >= limit
