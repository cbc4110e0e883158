"""Samples a source in one thread at a stated rate, and tells the energy between two moments.

Power is integrated by the trapezoid rule, a counter is interpolated. A moment is `time.monotonic()`.
"""

from __future__ import annotations

import bisect
import resource
import threading
import time
from array import array
from collections.abc import Callable

from pi_runtime.power import PowerError, Reading, Source

SHORTEST_GAP_S = 2.0
GAP_PERIODS = 5.0
"""Where no sample came for longer than both, the energy is not known; nothing is filled in."""

Sink = Callable[[float, float | None, Reading], None]
"""Told of each sample: (moment, watts, reading); watts is None for a counter's first."""


class Sampler:
    """Samples `source` from `start` to `stop`, `hz` times a second (the source's own rate when None).

    `cpu_s` is the processor time that sampling took: of its thread and of the processes that it started.
    `failed` and `problem`: how many samples could not be taken, and why the last of them.
    """

    def __init__(self, source: Source, hz: float | None = None, sink: Sink | None = None) -> None:
        self.source, self.hz = source, hz or source.hz
        self.cpu_s, self.failed, self.problem = 0.0, 0, ""
        self._sink = sink
        self._gap = max(SHORTEST_GAP_S, GAP_PERIODS / self.hz)
        self._times, self._watts, self._joules = array("d"), array("d"), array("d")
        self._gaps: list[tuple[float, float]] = []
        self._counter: float | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._times)

    def start(self) -> None:
        """Take the first sample, then go on in the thread."""
        self._sample()
        self._thread = threading.Thread(target=self._run, name="power sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, take a last sample and close the source. May be called again."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._sample()
        before = _children()
        self.source.close()
        self.cpu_s += _children() - before

    def energy(self, start: float, end: float) -> float | None:
        """Joules from `start` to `end`; None where samples are missing. Costs a search, whatever the length.

        Beyond the last sample its power is held, for as long as a gap may be.
        """
        with self._lock:
            first, last = self._until(start), self._until(end)
            if first is None or last is None or any(a < end and b > start for a, b in self._gaps):
                return None
            return last - first

    def _until(self, moment: float) -> float | None:
        """Joules from the first sample to a moment."""
        times, watts, joules = self._times, self._watts, self._joules
        if not times or moment < times[0] - self._gap or moment > times[-1] + self._gap:
            return None
        if moment <= times[0]:
            return (moment - times[0]) * watts[0] if len(times) > 1 or self._counter is None else None
        if moment >= times[-1]:
            return joules[-1] + (moment - times[-1]) * watts[-1]
        after = bisect.bisect_right(times, moment)
        before, share = after - 1, (moment - times[after - 1]) / (times[after] - times[after - 1])
        if self._counter is not None:
            return joules[before] + share * (joules[after] - joules[before])
        here = watts[before] + share * (watts[after] - watts[before])
        return joules[before] + (moment - times[before]) * (watts[before] + here) / 2

    def _run(self) -> None:
        start, count = time.monotonic(), 0
        while True:
            count = max(count + 1, int((time.monotonic() - start) * self.hz))
            if self._ended.wait(max(0.0, start + count / self.hz - time.monotonic())):
                return
            self._sample()

    def _sample(self) -> None:
        cpu, children, began = time.thread_time(), _children(), time.monotonic()
        reading: Reading | None = None
        try:
            reading = self.source.read()
        except PowerError as error:
            self.failed, self.problem = self.failed + 1, str(error)
        if reading is not None:
            moment = (began + time.monotonic()) / 2
            watts = self._add(moment, reading)
            if self._sink is not None:
                self._sink(moment, watts, reading)
        self.cpu_s += time.thread_time() - cpu + _children() - children

    def _add(self, moment: float, reading: Reading) -> float | None:
        with self._lock:
            known = len(self._times)
            passed = moment - self._times[-1] if known else 0.0
            if known and passed <= 0:
                return None
            if known and passed > self._gap:
                self._gaps.append((self._times[-1], moment))
            if reading.joules is not None:
                gained = reading.joules - self._counter if known and self._counter is not None else 0.0
                watts = gained / passed if known else 0.0
                if known == 1:
                    self._watts[0] = watts  # a counter tells a power only with its second sample
                self._counter = reading.joules
            else:
                watts = reading.watts or 0.0
                gained = (self._watts[-1] + watts) / 2 * passed if known else 0.0
            self._times.append(moment)
            self._watts.append(watts)
            self._joules.append(self._joules[-1] + gained if known else 0.0)
            return None if reading.joules is not None and not known else watts


def _children() -> float:
    """Processor time of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
