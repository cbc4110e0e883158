"""The Raspberry Pi 5's power management chip: current and voltage of 12 rails by `vcgencmd pmic_read_adc`.

The rails do not cover what hangs on the 5 V input (USB, HATs, the fan, losses of conversion). A published
linear fit against a USB-C power meter estimates the board from their sum: 1.1451 * sum + 0.5879 W
(github.com/jfikar/RPi5-power). It is one board's fit, so what it gives is marked as estimated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pi_runtime.power import PowerError, Reading, vcgencmd

RAILS = 12
FACTOR, OFFSET_W = 1.1451, 0.5879
# A process is started for each sample, which costs more than the answer: see sampler_cpu_s.
HZ = 2.0
_MOST_AMPERES, _MOST_VOLTS = 30.0, 30.0
# NAME_A current(7)=0.75012000A; the suffix of the name decides, the number in brackets is no key
_LINE = re.compile(r"(?P<rail>\S+)_(?P<kind>[AV])\s+(?:current|volt)\(\d+\)\s*=\s*(?P<value>\S+?)(?P=kind)")


def parse(text: str) -> dict[str, tuple[float, float]]:
    """(amperes, volts) by rail, of every rail that has a current; lines of other forms are passed over.

    Rails with a voltage alone (EXT5V, BATT) carry no power figure and are left out. Raises PowerError where
    there is no rail, a current has no voltage (a sum without it would be too small), or a value is none.
    """
    found: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip("\0 \t\r"))
        if match is None:
            continue
        kind, rail = match["kind"], match["rail"]
        try:
            value = float(match["value"])
        except ValueError:
            value = math.nan
        if not 0 <= value <= (_MOST_AMPERES if kind == "A" else _MOST_VOLTS):
            raise PowerError(f"vcgencmd pmic_read_adc: {rail}_{kind} is {match['value']!r}")
        found[kind][rail] = value
    lone = sorted(found["A"].keys() - found["V"].keys())
    if lone:
        raise PowerError(f"vcgencmd pmic_read_adc: no voltage for {', '.join(lone)}")
    if not found["A"]:
        raise PowerError("vcgencmd pmic_read_adc: no rail with a current (a Raspberry Pi 5 has them)")
    return {rail: (amperes, found["V"][rail]) for rail, amperes in found["A"].items()}


def watts(rails: Mapping[str, tuple[float, float]]) -> float:
    """The sum over the rails, in watts."""
    return math.fsum(amperes * volts for amperes, volts in rails.values())


def board_watts(rail_watts: float) -> float:
    """The published estimate for the whole board from the sum of the rails, both in watts."""
    return FACTOR * rail_watts + OFFSET_W


class Pmic:
    """The rails as a source; `board`: the published estimate for the board instead of their sum."""

    hz = HZ

    def __init__(self, board: bool = False) -> None:
        self._board = board
        self.name = "pmic-board" if board else "pmic"
        self.kind = "estimated" if board else "measured"
        self.scope = self._scope(RAILS)

    def _scope(self, rails: int) -> str:
        if self._board:
            return f"board, estimated as {FACTOR} x sum of {rails} PMIC rails + {OFFSET_W} W"
        return f"{rails} PMIC rails, without what hangs on the 5 V input"

    def read(self) -> Reading:
        """See `Source.read`. A sum of 0 W is no figure: the chip did not measure."""
        rails = parse(vcgencmd.ask("pmic_read_adc"))
        total = watts(rails)
        if not total > 0:
            raise PowerError("vcgencmd pmic_read_adc: every rail is at 0 W")
        self.scope = self._scope(len(rails))
        return Reading(watts=board_watts(total) if self._board else total, rails=rails)

    def close(self) -> None:
        """Nothing is held."""


def open_rails() -> Pmic:
    """The sum of the rails: measured, but less than the board takes."""
    return Pmic()


def open_board() -> Pmic:
    """The published estimate for the board."""
    return Pmic(board=True)
