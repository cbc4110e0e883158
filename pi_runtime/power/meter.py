"""Meters outside of the processor: chips that the kernel knows (INA219, INA260, ...) and any other by a
command."""

from __future__ import annotations

import math
import shlex
import subprocess
import threading
import time
from pathlib import Path

from pi_runtime.power import PowerError, Reading

ROOT = Path("/sys/class/hwmon")
HZ = 10.0
FIRST_LINE_S = 10.0
"""How long a command may take until its first line, in seconds."""
STALE_S = 5.0
"""A command's figure counts for this long, in seconds."""


class Hwmon:
    """A power sensor of the kernel's hwmon interface: microwatts in power1_input, or in1 x curr1 (mV x mA).

    The kernel's driver ina2xx brings up INA219, INA226, INA260 and others with one device tree overlay.
    """

    kind, hz = "measured", HZ

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        chip = _line(folder / "name")
        label = folder / "power1_label"
        self.name = f"hwmon {chip}"
        self.scope = _line(label) if label.exists() else f"what the {chip} is wired to"

    def read(self) -> Reading:
        """See `Source.read`."""
        if (self._folder / "power1_input").exists():
            return Reading(watts=_number(self._folder / "power1_input") / 1e6)
        millivolts, milliamperes = (_number(self._folder / f"{name}_input") for name in ("in1", "curr1"))
        return Reading(watts=millivolts * milliamperes / 1e6)

    def close(self) -> None:
        """Nothing is held."""


def open_hwmon(root: Path = ROOT) -> Hwmon:
    """The first power meter chip. Raises PowerError where there is none; sensors of other parts are none."""
    for folder in sorted(root.glob("hwmon*")):
        named = (folder / "name").is_file() and _line(folder / "name").lower().startswith("ina")
        if named and ((folder / "power1_input").exists() or (folder / "curr1_input").exists()):
            return Hwmon(folder)
    raise PowerError(f"no power meter chip (INA219, INA226, INA260, ...) in {root}")


class CommandMeter:
    """A program that prints watts, one number a line, for as long as it runs; started without a shell.

    Lines that are empty or begin with # are passed over, others end the measurement. The newest figure
    counts for STALE_S.
    """

    kind, hz = "measured", HZ

    def __init__(self, command: str) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise PowerError(f"{command!r} cannot be taken apart ({error})") from None
        if not words:
            raise PowerError("it is empty")
        self.name = f"command {Path(words[0]).name}"
        self.scope = f"what {Path(words[0]).name} measures"
        self._newest: tuple[float, float] | None = None
        self._problem = ""
        self._first = threading.Event()
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise PowerError(f"cannot start {words[0]!r}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._listen, name="power command", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                watts = float(text)
            except ValueError:
                watts = math.nan
            if not (math.isfinite(watts) and watts >= 0):
                self._problem = f"{self.name} printed {text[:40]!r} instead of watts"
                break
            self._newest = (time.monotonic(), watts)
            self._first.set()
        else:
            self._problem = f"{self.name} ended"
        self._first.set()

    def read(self) -> Reading:
        """See `Source.read`."""
        if not self._first.wait(FIRST_LINE_S):
            raise PowerError(f"{self.name} printed nothing within {FIRST_LINE_S:g} s")
        if self._newest is None or (self._problem and time.monotonic() - self._newest[0] > 1 / self.hz):
            raise PowerError(self._problem)
        when, watts = self._newest
        if time.monotonic() - when > STALE_S:
            raise PowerError(f"{self.name} has printed nothing for {STALE_S:g} s")
        return Reading(watts=watts)

    def close(self) -> None:
        """End the command: politely, then for certain."""
        self._process.terminate()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(1.0)
        if self._process.stdout is not None and not self._thread.is_alive():
            self._process.stdout.close()


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:60]
    except OSError as error:
        raise PowerError(f"cannot read {path} ({error.strerror})") from None


def _number(path: Path) -> int:
    text = _line(path)
    try:
        return int(text)
    except ValueError:
        raise PowerError(f"{path} holds {text!r} instead of a number") from None
