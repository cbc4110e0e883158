"""The sampler's arithmetic at given moments, and its thread with a real source."""

from __future__ import annotations

import time

import pytest

from pi_runtime.power import PowerError, Reading
from pi_runtime.power.sampler import Sampler


class Scripted:
    """A source that a test feeds; `readings` are given out in turn, the last for ever."""

    name, scope, kind, hz = "scripted", "a test", "measured", 50.0

    def __init__(self, *readings: Reading | None) -> None:
        self.readings, self.closed, self.taken = list(readings), 0, 0

    def read(self) -> Reading:
        self.taken += 1
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if reading is None:
            raise PowerError("out of order")
        return reading

    def close(self) -> None:
        self.closed += 1


def fed(*samples: tuple[float, float], counter: bool = False) -> Sampler:
    sampler = Sampler(Scripted(Reading(watts=1.0)), hz=10)
    for moment, value in samples:
        sampler._add(moment, Reading(joules=value) if counter else Reading(watts=value))
    return sampler


def test_power_is_integrated_by_the_trapezoid_rule() -> None:
    sampler = fed((10.0, 2.0), (11.0, 4.0), (12.0, 4.0))
    assert sampler.energy(10.0, 12.0) == pytest.approx(3.0 + 4.0)
    assert sampler.energy(10.0, 10.5) == pytest.approx(0.5 * (2.0 + 3.0) / 2)  # 3 W half way up
    assert sampler.energy(10.25, 10.75) == pytest.approx(0.5 * (2.5 + 3.5) / 2)
    parts = [sampler.energy(10.0 + k / 7, 10.0 + (k + 1) / 7) for k in range(14)]
    assert sum(part or 0 for part in parts) == pytest.approx(7.0)
    assert sampler.energy(11.5, 11.5) == 0.0


def test_a_counter_is_interpolated() -> None:
    sampler = fed((10.0, 100.0), (11.0, 106.0), (12.0, 107.0), counter=True)
    assert sampler.energy(10.0, 12.0) == pytest.approx(7.0)
    assert sampler.energy(10.5, 11.5) == pytest.approx(3.5)
    assert sampler.energy(11.0, 12.5) == pytest.approx(1.5)  # the last power, 1 W, is held
    assert sampler.energy(9.5, 10.0) == pytest.approx(3.0)  # and so is the first, 6 W


def test_nothing_is_filled_in_where_samples_are_missing() -> None:
    sampler = fed((10.0, 2.0), (11.0, 2.0), (14.0, 2.0), (15.0, 2.0))
    assert sampler.energy(10.0, 11.0) == pytest.approx(2.0)
    assert sampler.energy(14.0, 15.0) == pytest.approx(2.0)
    assert sampler.energy(10.0, 15.0) is None  # 3 s without a sample
    assert sampler.energy(12.0, 13.0) is None
    assert sampler.energy(14.5, 18.0) is None  # long after the last one
    assert sampler.energy(14.5, 16.0) == pytest.approx(3.0)
    assert sampler.energy(5.0, 10.5) is None
    assert fed().energy(1.0, 2.0) is None
    assert fed((1.0, 5.0), counter=True).energy(0.5, 1.0) is None


def test_it_samples_at_its_rate_and_tells_its_cost() -> None:
    seen: list[tuple[float, float | None, Reading]] = []
    source = Scripted(Reading(watts=2.0, rails={"R": (1.0, 2.0)}))
    sampler = Sampler(source, hz=50, sink=lambda *sample: seen.append(sample))
    start = time.monotonic()
    sampler.start()
    time.sleep(0.5)
    sampler.stop()
    end = time.monotonic()
    sampler.stop()
    assert source.closed == 1
    assert 3 <= source.taken == sampler.samples == len(seen) <= 50 * (end - start) + 3
    assert {watts for _, watts, _ in seen} == {2.0}
    assert seen[0][2].rails == {"R": (1.0, 2.0)}
    assert sampler.energy(start, end) == pytest.approx(2.0 * (end - start))
    assert 0 < sampler.cpu_s < end - start
    assert sampler.failed == 0


def test_samples_that_fail_are_counted_and_end_nothing() -> None:
    good = Reading(watts=1.0)
    sampler = Sampler(Scripted(good, None, None, good), hz=50)
    start = time.monotonic()
    sampler.start()
    until = start + 20
    while sampler.samples < 3 and time.monotonic() < until:
        time.sleep(0.01)
    sampler.stop()
    assert (sampler.failed, sampler.problem) == (2, "out of order")
    assert sampler.energy(start, time.monotonic()) == pytest.approx(time.monotonic() - start, rel=0.05)


def test_a_source_that_fails_for_good_leaves_no_figure() -> None:
    sampler = Sampler(Scripted(None), hz=50)
    sampler.start()
    sampler.stop()
    assert sampler.energy(time.monotonic() - 1, time.monotonic()) is None
    assert sampler.failed >= 2
