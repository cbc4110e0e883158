"""vcgencmd as a process: its recorded answers, and every way in which there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pi_runtime import device
from pi_runtime.power import PowerError, vcgencmd

DATA = Path(__file__).parent / "data" / "vcgencmd"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a program called vcgencmd on the PATH that prints a text, whatever it is asked."""

    def put(text: str | bytes, code: int = 0, error: str = "", before: str = "") -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        answer, said = folder / "answer", folder / "said"
        answer.write_bytes(text.encode() if isinstance(text, str) else text)
        said.write_text(error)
        program = folder / "vcgencmd"
        program.write_text(f"#!/bin/sh\n{before}\ncat '{answer}'\ncat '{said}' >&2\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return program

    monkeypatch.setattr(device, "_unanswered", set())
    return put


@pytest.mark.parametrize("code", [0, 1, 255])
@pytest.mark.parametrize(("file", "told"), [
    ("error_not_registered", 'error=1 error_msg="Command not registered"'),
    ("error_not_registered_two_lines", "vc_gencmd_read_response returned -1 error=1"),
    ("error_vchi", "VCHI initialization failed"),
    ("error_vcio", "Can't open device file: /dev/vcio Try creating"),
    ("error_dequeue", "vc_gencmd_send returned -1 vchi_msg_dequeue"),
])  # fmt: skip
def test_recorded_errors_are_told_whatever_the_exit_code(
    install: Install, file: str, told: str, code: int
) -> None:
    text = (DATA / f"{file}.txt").read_text()
    install(text, code)
    with pytest.raises(PowerError, match="vcgencmd pmic_read_adc: ") as caught:
        vcgencmd.ask("pmic_read_adc")
    assert told in str(caught.value)
    install("", 255, error=text)  # on standard error instead
    with pytest.raises(PowerError) as caught:
        vcgencmd.ask("pmic_read_adc")
    assert told in str(caught.value)


@pytest.mark.parametrize(("text", "code", "message"), [
    ("", 0, "answered with nothing"),
    ("\0\0\n", 0, "answered with nothing"),
    ("", 3, "exit code 3"),
])  # fmt: skip
def test_no_answer(install: Install, text: str, code: int, message: str) -> None:
    install(text, code)
    with pytest.raises(PowerError, match=message):
        vcgencmd.ask("get_throttled")


def test_a_program_that_hangs_is_given_up(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcgencmd, "TIMEOUT_S", 0.2)
    install("throttled=0x0\n", before="exec sleep 30")
    start = time.monotonic()
    with pytest.raises(PowerError, match=r"did not answer within 0\.2 s"):
        vcgencmd.ask("get_throttled")
    assert time.monotonic() - start < 25


def test_a_program_that_is_missing_or_none(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    program = install("x")
    program.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(PowerError, match="vcgencmd get_throttled: Exec format error"):
        vcgencmd.ask("get_throttled")
    program.unlink()
    monkeypatch.setattr(vcgencmd, "_PLACES", ())
    with pytest.raises(PowerError, match="is not installed"):
        vcgencmd.ask("get_throttled")


def test_it_is_asked_what_was_meant_without_a_shell(install: Install, tmp_path: Path) -> None:
    install("", before=f'printf "%s|" "$@" > "{tmp_path}/asked"')
    with pytest.raises(PowerError):
        vcgencmd.ask("measure_clock", "arm; touch x")
    assert (tmp_path / "asked").read_text() == "measure_clock|arm; touch x|"


@pytest.mark.parametrize(("text", "bits"), [
    ("throttled=0x0", 0), ("throttled=0x50000\r\n", 0x50000), ("throttled=0x50005\n", 0x50005),
    ("throttled=0xE0008", 0xE0008),
])  # fmt: skip
def test_throttled(text: str, bits: int) -> None:
    assert vcgencmd.throttled(text) == bits


@pytest.mark.parametrize(("text", "celsius"), [
    ("temp=55.8'C", 55.8), ("temp=46.6'C \n", 46.6), ("temp=-3.0'C", -3.0), ("temp=42C", 42.0),
])  # fmt: skip
def test_temperature(text: str, celsius: float) -> None:
    assert vcgencmd.temperature(text) == celsius


@pytest.mark.parametrize(("text", "hertz"), [
    ("frequency(48)=1800457088", 1800457088), ("frequency(45)=1400000000\n", 1400000000),
    ("frequency(0)=2400033792", 2400033792),
])  # fmt: skip
def test_clock(text: str, hertz: int) -> None:
    assert vcgencmd.clock(text) == hertz


@pytest.mark.parametrize("read", [vcgencmd.throttled, vcgencmd.temperature, vcgencmd.clock])
@pytest.mark.parametrize("text", ["", "0x0", "throttled=", "throttled=0xzz", "temp=nan'C", "frequency(48)=-1",
                                  "temp=40.0'C temp=41.0'C", "frequency=5"])  # fmt: skip
def test_other_answers_are_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(PowerError, match="no such answer was expected"):
        read(text)


def test_the_device_asks_the_firmware_where_the_kernel_has_no_file(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / "none" / path.lstrip("/"))
    install("throttled=0x50004\n")
    assert device.throttled() is True
    install("temp=61.2'C\n")
    assert device.temperature() == 61.2
    install("frequency(0)=1500398464\n")
    assert device.frequency() == 1500.398
    install("error=1\n")
    assert device.throttled() is None
    install("throttled=0x0\n")
    assert device.throttled() is None  # it is not asked again after it failed


def test_the_kernels_own_frequency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / path.lstrip("/"))
    for number, kilohertz in enumerate((1500000, 2400000)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{kilohertz}\n")
    assert device.frequency() == 2400.0


def test_time_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert device.processor_times() is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1 1 1 1\n")
    assert device.processor_times() == (10 + 20 + 30 + 6 + 7 + 8, 531)
