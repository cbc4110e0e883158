"""RAPL, the energy counters of x86 processors, by the kernel's files in /sys/class/powercap."""

from __future__ import annotations

from pathlib import Path

from pi_runtime.power import PowerError, Reading

ROOT = Path("/sys/class/powercap")
HZ = 10.0


class Rapl:
    """The processor packages together; zones inside a package (core, dram, uncore) are not added again.

    A counter starts again at 0 beyond its range: at 10 samples a second that is seen once, not twice.
    """

    name, kind, hz = "rapl", "measured", HZ

    def __init__(self, root: Path = ROOT) -> None:
        zones = sorted(root.glob("intel-rapl:*"))
        self._zones = [
            zone for zone in zones if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")
        ]
        if not self._zones:
            raise PowerError(f"no processor package in {root} (no RAPL, or not passed on to this machine)")
        self._range = [_number(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = [_number(zone / "energy_uj") for zone in self._zones]
        self._total = 0
        self.scope = f"{len(self._zones)} processor package{'s' * (len(self._zones) > 1)}, without the rest"

    def read(self) -> Reading:
        """See `Source.read`: joules since this was opened."""
        now = [_number(zone / "energy_uj") for zone in self._zones]
        for new, old, size in zip(now, self._last, self._range, strict=True):
            # the range is the largest value, so that the step from it to 0 is one more
            self._total += new - old if new >= old else new - old + size + 1
        self._last = now
        return Reading(joules=self._total / 1e6)

    def close(self) -> None:
        """Nothing is held."""


def open_rapl() -> Rapl:
    """The processor packages of this computer."""
    return Rapl()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        hint = ": let root allow it (chmod a+r)" if isinstance(error, PermissionError) else ""
        raise PowerError(f"cannot read {path} ({error.strerror}){hint}") from None


def _number(path: Path) -> int:
    text = _text(path)
    if not (text.isascii() and text.isdecimal()):
        raise PowerError(f"{path} holds {text[:40]!r} instead of a number")
    return int(text)
