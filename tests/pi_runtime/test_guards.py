from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy

from pi_runtime import Bundle, ClueError, Runtime, guards
from pi_runtime.budget import Budget, check_energy, not_measured
from pi_runtime.estimate import checkpoint_bytes, planned_peak
from pi_runtime.options import Options
from pi_runtime.request import Paused, Progress

NO_STOP = {"check_every": 0}


class Clock:
    """A time and a sensor that a test turns."""

    def __init__(self, celsius: float | None) -> None:
        self.celsius, self.time, self.asked = celsius, 0.0, 0

    def read(self) -> float | None:
        self.asked += 1
        return self.celsius

    def __call__(self) -> float:
        return self.time


def test_heat_pauses_and_a_request_begins_only_five_degrees_below() -> None:
    clock = Clock(79.9)
    thermal = guards.Thermal(80, clock.read, clock)
    thermal.check()
    clock.celsius = 80.1
    thermal.check()  # asked once a second only
    assert clock.asked == 1
    clock.time = 1.0
    with pytest.raises(Paused, match=r"too hot: 80.1 degrees, the limit is 80"):
        thermal.check()
    for celsius, ok in ((80.0, False), (75.1, False), (75.0, True), (None, True)):
        clock.celsius = celsius
        if ok:
            thermal.check_start()
        else:
            with pytest.raises(Paused, match="a request begins at 75 or less"):
                thermal.check_start()


def test_a_hot_request_pauses_and_goes_on_to_the_same_bits(runtime: Runtime, tmp_path: Path) -> None:
    runtime.add(toy.images(19, 0), "cat")
    celsius = [50.0]
    runtime.celsius = lambda: celsius[0]

    def heat(progress: Progress) -> None:
        if progress.epoch == 1:
            celsius[0] = 90.0

    def forget() -> Any:
        return runtime.forget("cat", seed=5, scalars=NO_STOP, progress=heat, options=Options(max_celsius=85))

    guards_ask = guards._ASK_EACH_S
    try:
        guards._ASK_EACH_S = 0.0
        paused = forget()
    finally:
        guards._ASK_EACH_S = guards_ask
    assert paused.status == "paused"
    assert paused.reason == "too hot: 90.0 degrees, the limit is 85"
    assert runtime.run_next() is None  # still hot: not its turn
    again = runtime.resume(paused.id)
    assert again.reason == "too hot: 90.0 degrees, a request begins at 80 or less"
    celsius[0] = 80.0
    done = runtime.run_next()
    assert done is not None
    assert done.status == "done"
    with Runtime.for_bundle(runtime.bundle, tmp_path / "other", threads=1) as other:
        other.add(toy.images(19, 0), "cat")
        undisturbed = other.forget("cat", seed=5, scalars=NO_STOP)
        assert other.serving.sha256 == runtime.serving.sha256
        assert undisturbed.evidence == done.evidence
        assert [r["steps"] for r in undisturbed.records] == [r["steps"] for r in done.records]


@pytest.mark.parametrize(("text", "expected"), [
    ("MemTotal:  100 kB\nMemAvailable:      2048 kB\n", 2048 * 1024),
    ("MemTotal:  100 kB\n", None),
    ("MemAvailable: many kB\n", None),
    ("", None),
])  # fmt: skip
def test_available_memory(tmp_path: Path, text: str, expected: int | None) -> None:
    file = tmp_path / "meminfo"
    file.write_text(text)
    assert guards.available_memory(file) == expected
    assert guards.available_memory(tmp_path / "none") is None
    assert (guards.available_memory() or 0) > 1 << 20


def test_a_request_that_does_not_fit_is_not_loaded(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.add(toy.images(19, 0), "cat")
    planned = planned_peak(runtime.bundle, 19)
    assert planned == runtime.dry_run("cat", probe=False)["planned_peak_bytes"]
    free = [planned - 1]
    monkeypatch.setattr(guards, "available_memory", lambda: free[0])
    loads: list[object] = []
    monkeypatch.setattr(runtime.engine, "load", lambda *given: loads.append(given))
    result = runtime.forget("cat", seed=5)
    assert (result.status, loads) == ("paused", [])
    assert result.reason is not None
    assert result.reason.startswith("too little memory: ")
    monkeypatch.undo()
    monkeypatch.setattr(guards, "available_memory", lambda: free[0])
    assert runtime.run_next() is None
    free[0] = planned
    done = runtime.run_next()
    assert done is not None
    assert done.status == "done"


# --- budgets


def test_a_time_budget_pauses_at_a_checkpoint_and_resuming_gives_another(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    result = runtime.forget("cat", seed=5, scalars=NO_STOP, options=Options(max_seconds=1e-6))
    assert result.status == "paused"
    assert result.reason is not None
    assert result.reason.startswith("over budget: ")
    assert runtime.run_next() is None  # only the user lets it go on
    assert runtime.resume(result.id).status == "paused"


def test_an_energy_budget_needs_energy(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    for options in (Options(max_joules=5), Options(stop_joules=5)):
        with pytest.raises(ClueError, match="_joules: this device does not measure energy, so that nothing"):
            runtime.forget("cat", options=options)
    assert runtime.store.requests() == []
    check_energy(Options(max_seconds=5), not_measured)


def test_an_energy_budget_counts_from_the_start_of_the_run(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    meter = [1000.0]
    runtime.joules = lambda: meter[0]

    def use(progress: Progress) -> None:
        meter[0] += 1.0

    options = Options(max_joules=25)
    result = runtime.forget("cat", seed=5, scalars=NO_STOP, options=options, progress=use)
    assert (result.status, result.reason) == ("paused", "over budget: 25.0 J of 25 J")
    while result.status == "paused":
        result = runtime.resume(result.id, progress=use)
    assert result.status == "done"
    runtime.joules = not_measured
    broken = Budget(options, lambda: None)
    with pytest.raises(Paused, match="not measured any longer"):
        broken.check()


def test_stop_joules_ends_the_epochs_and_counts_earlier_parts() -> None:
    meter = [50.0]
    budget = Budget(Options(stop_joules=10), lambda: meter[0], earlier=4.0)
    assert (budget.joules, budget.total_joules, budget.enough_energy()) == (0.0, 4.0, False)
    meter[0] = 56.0
    assert (budget.total_joules, budget.enough_energy()) == (10.0, True)
    assert Budget(Options(stop_joules=10)).total_joules is None


def test_stop_accuracy_ends_the_epochs_once_it_is_reached(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    scalars = {**NO_STOP, "epochs": 30}
    result = runtime.forget("cat", seed=5, scalars=scalars, options=Options(stop_accuracy=20))
    assert result.status == "done"
    assert result.evidence["stopped_early"] is True
    assert 1 <= result.evidence["epochs_run"] < 30
    assert [stop["accuracy"] <= 20 for stop in result.evidence["stops"]][-1]
    assert not any(stop["accuracy"] <= 20 for stop in result.evidence["stops"][:-1])


@pytest.mark.parametrize(("given", "message"), [
    ({"accuracy_at_most": 101}, "accuracy_at_most is 101: it must be from 0 to 100 percent"),
    ({"stop_accuracy": -1}, "stop_accuracy is -1"),
    ({"max_seconds": 0}, "max_seconds is 0: it must be more than 0"),
    ({"max_joules": float("nan")}, "max_joules is nan"),
    ({"max_celsius": 500}, "max_celsius is 500: it must be from 0 to 120"),
    ({"checkpoint_steps": 0}, "checkpoint_steps is 0: it must be a whole number from 1 on"),
    ({"checkpoint_steps": 1.5}, "checkpoint_steps is 1.5"),
    ({"max_seconds": "1"}, "max_seconds is '1': it must be a number"),
    ({"max_second": 1}, "unknown option 'max_second': did you mean 'max_seconds'"),
])  # fmt: skip
def test_options_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        Options.of(given)


def test_options_are_kept_with_the_request(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    options = Options(max_seconds=60, checkpoint_steps=3)
    number = runtime.submit("cat", options=options)
    assert runtime.store.request(number).options == {"max_seconds": 60, "checkpoint_steps": 3}
    assert Options.of(runtime.store.request(number).options) == options


# --- priority


@pytest.mark.parametrize(("text", "expected"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), (" 3 , 1 ", {1, 3})])
def test_lists_of_processors(text: str, expected: set[int]) -> None:
    assert guards.parse_cpus(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "2-1", "0,,1", "0-99999"])
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(ClueError, match="--cpus"):
        guards.parse_cpus(text)


def test_priority_and_processors_of_a_process() -> None:
    first = min(os.sched_getaffinity(0))
    script = (
        "import os; from pi_runtime.engine import usable_cpus; from pi_runtime.guards import set_priority; "
        f"set_priority(17, '{first}'); "
        "print(os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), usable_cpus())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["17", f"[{first}]", "1"]
    with pytest.raises(ClueError, match="--nice 20: it must be from -20 to 19"):
        guards.set_priority(20, None)
    with pytest.raises(ClueError, match="this process may not run on 4095"):
        guards.set_priority(None, "4095")


# --- estimates


def test_an_estimate_without_records_is_a_probe_and_with_records_is_theirs(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    probe = runtime.dry_run("cat", scalars=NO_STOP)
    assert probe["time_s"] > 0
    assert probe["time_source"].startswith("a probe: ")
    assert (probe["energy_j"], probe["energy_source"][:9]) == (None, "not known")
    assert runtime.dry_run("cat", probe=False)["time_s"] is None
    result = runtime.forget("cat", seed=5, scalars=NO_STOP)
    runtime.add(toy.images(19, 1), "dog")
    told = runtime.dry_run("dog", scalars=NO_STOP)
    assert told["time_source"] == f"records of request {result.id} on this device"
    records = {record["phase"]: record for record in result.records}
    whole = records.pop("request")
    expected = whole["load_s"] + whole["save_s"] + sum(record["wall_s"] for record in records.values())
    assert told["time_s"] == pytest.approx(expected, abs=0.002)
    # Twice the epochs take twice the time of their phases.
    more = runtime.dry_run("dog", scalars={**NO_STOP, "epochs": 6})
    extra = records["teach"]["wall_s"] + records["learn"]["wall_s"]
    assert more["time_s"] == pytest.approx(expected + extra, abs=0.002)


def test_an_estimate_of_the_storage(runtime: Runtime, opened_bundle: Bundle) -> None:
    runtime.add(toy.images(19, 0), "cat")
    paused = runtime.forget("cat", scalars=NO_STOP, options=Options(checkpoint_steps=1), stop=iter_stop(30))
    told = runtime.dry_run("cat", probe=False)
    file = runtime.store.checkpoint_path(paused.id)
    arrays = checkpoint_bytes(opened_bundle, 19)
    assert told["checkpoint_bytes"] == arrays < file.stat().st_size < arrays + 16384
    assert told["storage_peak_bytes"] >= max(2 * arrays, arrays + told["storage_bytes"])


def iter_stop(after: int) -> Any:
    """A `stop` that says so at its `after`-th question."""
    asked = iter(range(after))
    return lambda: next(asked, None) is None
