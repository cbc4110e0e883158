"""Facts about the device, read from the kernel's files; None where the device does not tell."""

from __future__ import annotations

import functools
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pi_runtime.power import PowerError, vcgencmd

Answer = TypeVar("Answer")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


@functools.cache
def facts() -> dict[str, str | int | None]:
    """The `device` entry of a cost record: model, os, soc, ram_bytes."""
    compatible = _read(Path("/proc/device-tree/compatible"))
    names = [
        line.partition("=")[2].strip('"')
        for line in (_read(Path("/etc/os-release")) or "").splitlines()
        if line.startswith("PRETTY_NAME=")
    ]
    model = _read(Path("/proc/device-tree/model")) or _read(Path("/sys/class/dmi/id/product_name"))
    return {
        "model": model or platform.machine(),
        "os": f"{names[0] if names else platform.system()}, kernel {platform.release()}",
        "soc": compatible.split("\0")[-1] if compatible else None,
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def temperature() -> float | None:
    """The processor's temperature in degrees Celsius: the first zone that says cpu or soc, else the first."""
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*"))
    named = [zone for zone in zones if any(word in (_read(zone / "type") or "") for word in ("cpu", "soc"))]
    for zone in named or zones:
        text = _read(zone / "temp")
        if text is not None and text.lstrip("-").isdecimal():
            return int(text) / 1000
    return _firmware(vcgencmd.temperature, "measure_temp")


def throttled() -> bool | None:
    """Whether a Raspberry Pi's firmware holds the processor's frequency down right now."""
    for path in Path("/sys/devices/platform").glob("soc*/*firmware/get_throttled"):
        text = _read(path)
        if text:
            try:
                return bool(int(text, 16) & vcgencmd.HELD_DOWN)
            except ValueError:
                break
    bits = _firmware(vcgencmd.throttled, "get_throttled")
    return None if bits is None else bool(bits & vcgencmd.HELD_DOWN)


def frequency() -> float | None:
    """The clock of the fastest processor at this moment, in MHz."""
    texts = [
        _read(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    ]
    kilohertz = [int(text) for text in texts if text and text.isdecimal()]
    if kilohertz:
        return max(kilohertz) / 1000
    hertz = _firmware(vcgencmd.clock, "measure_clock", "arm")
    return None if hertz is None else round(hertz / 1e6, 3)


_unanswered: set[str] = set()


def _firmware(read: Callable[[str], Answer], *words: str) -> Answer | None:
    """What the firmware answers, where the kernel has no file; a question that failed is not put again."""
    if words[0] in _unanswered:
        return None
    try:
        return read(vcgencmd.ask(*words))
    except PowerError:
        _unanswered.add(words[0])
        return None


def processor_times() -> tuple[float, float] | None:
    """(in use, all): the time of all processors so far, in the kernel's ticks."""
    words = (_read(Path("/proc/stat")) or "").partition("\n")[0].split()
    if len(words) < 6 or words[0] != "cpu" or not all(word.isdecimal() for word in words[1:]):
        return None
    ticks = [int(word) for word in words[1:9]]  # guest time is part of user time
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def busy(
    before: tuple[float, float] | None, after: tuple[float, float] | None, own_s: float = 0.0
) -> float | None:
    """The share of all processors in use between two `processor_times`, without the `own_s` seconds that this
    process used; None where the kernel does not tell."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    own = own_s * os.sysconf("SC_CLK_TCK")
    return min(1.0, max(0.0, (after[0] - before[0] - own) / (after[1] - before[1])))


def plugged() -> bool | None:
    """Whether an external supply is connected; None for devices without a battery, such as a Pi."""
    states = [_read(path) for path in Path("/sys/class/power_supply").glob("*/online")]
    return "1" in states if states else None


def resident_memory() -> int | None:
    """Bytes of this process that are in memory now; None where the kernel does not tell."""
    return _status("VmRSS")


def _status(key: str) -> int | None:
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


class PeakMemory:
    """The largest resident memory of this process since the last `reset`, as the kernel counts it."""

    def __init__(self) -> None:
        self.source = "VmHWM"
        self.reset()

    def reset(self) -> None:
        """Start anew where the kernel allows it; else `source` says that the figure goes further back."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.source = "ru_maxrss, not reset"

    def read(self) -> int:
        """The peak in bytes."""
        found = _status("VmHWM") if self.source == "VmHWM" else None
        if found is not None:
            return found
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
