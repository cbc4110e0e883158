"""Meters outside of the processor: the kernel's chips, and programs that print watts."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from pi_runtime.errors import ClueError
from pi_runtime.power import Choice, PowerError, meter, open_source
from pi_runtime.power.meter import CommandMeter, open_hwmon


def chip(root: Path, number: int, **files: str | int) -> Path:
    folder = root / f"hwmon{number}"
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def test_chips_of_the_kernel(tmp_path: Path) -> None:
    chip(tmp_path, 0, name="cpu_thermal", temp1_input=50000)
    chip(tmp_path, 1, name="amdgpu", power1_input=99000000)  # no meter of the whole: not taken
    folder = chip(tmp_path, 2, name="ina219", power1_input=4321000)
    found = open_hwmon(tmp_path)
    assert (found.name, found.kind, found.scope) == (
        "hwmon ina219",
        "measured",
        "what the ina219 is wired to",
    )
    assert found.read().watts == pytest.approx(4.321)
    (folder / "power1_input").write_text("x")
    with pytest.raises(PowerError, match="instead of a number"):
        found.read()


def test_a_chip_without_power_has_voltage_and_current(tmp_path: Path) -> None:
    chip(tmp_path, 0, name="ina260", in1_input=5000, curr1_input=750)
    chip(tmp_path, 1, name="ina219", power1_input=1)
    assert open_hwmon(tmp_path).read().watts == pytest.approx(3.75)


def test_a_label_says_what_is_measured(tmp_path: Path) -> None:
    chip(tmp_path, 0, name="ina226", power1_input=1000000, power1_label="USB-C input")
    assert open_hwmon(tmp_path).scope == "USB-C input"


def test_no_chip(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(PowerError, match=r"no power meter chip \(INA219"):
            open_hwmon(root)


def python(code: str) -> str:
    return shlex.join([sys.executable, "-uc", code])


def test_a_command_prints_watts() -> None:
    code = "import time\nfor w in ('# unit: W', '', 2.5, '3.25 '): print(w)\ntime.sleep(60)"
    found = CommandMeter(python(code))
    try:
        until = time.monotonic() + 20
        while found.read().watts != 3.25 and time.monotonic() < until:
            time.sleep(0.01)
        assert found.read().watts == 3.25
        assert found.kind == "measured"
        assert found.name.startswith("command python")
    finally:
        found.close()
    assert found._process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(("code", "message"), [
    ("pass", "ended"),
    ("import sys; sys.exit(3)", "ended"),
    ("print('3,5')", "printed '3,5' instead of watts"),
    ("print('nan')", "printed 'nan' instead of watts"),
    ("print(-1.0)", "printed '-1.0' instead of watts"),
])  # fmt: skip
def test_a_command_that_measures_nothing(code: str, message: str) -> None:
    with pytest.raises(ClueError, match=f"--power-command: command .* {message}"):
        open_source(Choice(command=python(code)))


@pytest.mark.parametrize(("command", "message"), [
    ("", "it is empty"), ("'x", "cannot be taken apart"), 
    ("/nowhere/meter 1", "cannot start '/nowhere/meter'"),
])  # fmt: skip
def test_no_command(command: str, message: str) -> None:
    with pytest.raises(ClueError, match=message):
        open_source(Choice(command=command))


def test_a_command_runs_without_a_shell(tmp_path: Path) -> None:
    with pytest.raises(ClueError, match="ended"):
        open_source(Choice(command=f"true ; touch {tmp_path}/x"))
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CommandMeter(python("import time; print(1.0); time.sleep(60)"))
    assert found.read().watts == 1.0
    monkeypatch.setattr(meter, "STALE_S", 0.0)
    with pytest.raises(PowerError, match="has printed nothing for"):
        found.read()
    found.close()
    found = CommandMeter(python("import time; time.sleep(60)"))
    monkeypatch.setattr(meter, "FIRST_LINE_S", 0.1)
    with pytest.raises(PowerError, match="printed nothing within"):
        found.read()
    found.close()


def test_a_command_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1.0); time.sleep(60)"
    found = CommandMeter(python(code))
    found.read()
    found.close()
    found.close()
    assert found._process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(found._process.pid, 0)


def test_choices() -> None:
    with pytest.raises(ClueError, match="did you mean 'pmic'"):
        Choice("pimc")
    with pytest.raises(ClueError, match="exclude each other"):
        Choice("pmic", command="x")
    for hz in (0.0, -1.0, 1000.0, float("nan")):
        with pytest.raises(ClueError, match="--power-hz"):
            Choice(hz=hz)
    assert open_source(Choice("off")).source is None
