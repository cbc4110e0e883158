from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import sys

import pytest
import toy
from test_pi_cli import Shell, shell

from pi_runtime import Bundle, bench, device
from pi_runtime.errors import ClueError
from pi_runtime.estimate import counts
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.power import Choice, open_source

__all__ = ["shell"]
METER = shlex.join([sys.executable, "-uc", "import time\nwhile True: print(2.0); time.sleep(0.05)"])


def test_every_program_of_a_request_is_timed(opened_bundle: Bundle) -> None:
    told: list[str] = []
    timings = bench.bench(opened_bundle, OnnxEngine(1), seconds=0.05, tell=told.append)
    assert [t.program for t in timings] == told == ["note", "step", "shrink", "predict"]
    assert {t.program for t in timings} >= set(counts(opened_bundle, 9, opened_bundle.scalars).runs)
    for timing in timings:
        assert timing.batch == opened_bundle.programs[timing.program].batch
        assert timing.runs >= bench.FEWEST_RUNS
        assert 0 < timing.p50_s <= timing.p95_s
        assert timing.cpu_p50_s > 0
        assert (timing.joules, timing.energy_source, timing.energy_kind) == (None, None, None)
        assert timing.busy is None or 0 <= timing.busy <= 1


def test_a_program_is_timed_with_the_same_values_each_time(opened_bundle: Bundle) -> None:
    """Steps of this size end in infinities after some; then `predict` would be refused."""
    wild = dataclasses.replace(opened_bundle, scalars={**opened_bundle.scalars, "lr": 1e36})
    timings = bench.bench(wild, OnnxEngine(1), seconds=0.3)
    assert timings[-1].program == "predict"
    assert all(timing.runs > 4 for timing in timings)


def test_the_energy_of_a_run_is_the_power_times_its_share_of_the_time(opened_bundle: Bundle) -> None:
    opened = open_source(Choice(command=METER, hz=50))
    timings = bench.bench(opened_bundle, OnnxEngine(1), seconds=0.3, opened=opened)
    for timing in timings:
        assert timing.joules is not None
        # at least 0.3 s were shared by so many runs, at 2 W
        assert timing.joules * timing.runs >= 2.0 * 0.3 * 0.99
        assert timing.energy_kind == "measured"


def test_a_time_out_of_range(opened_bundle: Bundle) -> None:
    for seconds in (0.0, -1.0, 601.0, math.nan):
        with pytest.raises(ClueError, match="each program is timed for 0 to 600 s"):
            bench.bench(opened_bundle, OnnxEngine(1), seconds=seconds)


def test_what_others_used() -> None:
    tick = os.sysconf("SC_CLK_TCK")
    assert device.busy((0, 0), (80, 200), 30 / tick) == 0.25
    assert device.busy((0, 0), (10, 200), 30 / tick) == 0.0
    assert device.busy(None, (1, 1), 0.0) is None
    assert device.busy((5, 5), (5, 5), 0.0) is None


def test_as_a_command(shell: Shell) -> None:
    found = shell.json("bench", shell.bundle, "--seconds", "0.05", "--quiet", "--power", "off")
    bundle = Bundle.open(shell.bundle)
    assert found["manifest_sha256"] == bundle.sha256
    assert found["runtime"]["name"] == "onnx"
    assert [row["program"] for row in found["programs"]] == ["note", "step", "shrink", "predict"]
    assert [bench.Timing(**row).runs > 0 for row in found["programs"]] == [True] * 4
    assert shell("bench", shell.bundle, "--seconds", "0.02") == 0
    assert "note: " in shell.out
    assert "clue-pi: step" in shell.err
    assert shell("bench", shell.bundle, "--seconds", "0") == 2
    assert json.loads((toy.build(shell.folder / "b.clue") / "manifest.json").read_text())["method"]


def test_calibrating_as_a_command(shell: Shell) -> None:
    assert shell("calibrate", shell.bundle, "--seconds", "0.3", "--power", "off") == 2
    assert "no source of power figures (power was not sampled): see --power-command" in shell.err
    found = shell.json("calibrate", shell.bundle, "--seconds", "0.3", "--quiet", "--power-command", METER)
    assert found["idle_w"] == 2.0
    assert shell("calibrate", shell.bundle, "--seconds", "0.3", "--power-command", METER) == 0
    assert "2.000 W idle by command python" in shell.out
    assert (shell.folder / "store" / "idle.json").is_file()
    assert shell("forget", shell.bundle, "--label", "cat", "--power", "pimc") == 2
    assert "did you mean 'pmic'" in shell.err
