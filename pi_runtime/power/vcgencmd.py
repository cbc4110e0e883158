"""`vcgencmd`, the Raspberry Pi's window to its firmware: run with a timeout, its answers read strictly."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from pi_runtime.power import PowerError

TIMEOUT_S = 2.0
NAME = "vcgencmd"
# Raspberry Pi OS before 2019 has it where no PATH leads
_PLACES = ("/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd")
_MOST_BYTES = 64 * 1024
# now: bits 0 to 3 (undervoltage, frequency capped, throttled, soft temperature limit); since boot: 16 to 19
HELD_DOWN = 0b1110


def find() -> str | None:
    """Where vcgencmd is; None where there is none."""
    found = shutil.which(NAME)
    return found or next((place for place in _PLACES if os.access(place, os.X_OK)), None)


def ask(*words: str) -> str:
    """What vcgencmd answers. Raises PowerError: missing, not allowed, hanging, an error, no answer."""
    program = find()
    if program is None:
        raise PowerError("vcgencmd is not installed (only Raspberry Pi OS has it)")
    line = f"vcgencmd {' '.join(words)}"
    try:
        done = subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise PowerError(f"{line} did not answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise PowerError(f"{line}: {error.strerror}") from None
    text = done.stdout[:_MOST_BYTES].decode("utf-8", "replace").strip("\0 \r\n")
    said = " ".join((text or done.stderr[:_MOST_BYTES].decode("utf-8", "replace")).split())[:200]
    # its exit code is 0 for some errors and 255 for others, depending on the version
    if done.returncode or _is_error(text):
        raise PowerError(f"{line}: {said or f'exit code {done.returncode}'}")
    if not text:
        raise PowerError(f"{line} answered with nothing{f' ({said})' if said else ''}")
    return text


def _is_error(text: str) -> bool:
    marks = ("error=", "error_msg=", "VCHI initialization failed", "vchi_msg_dequeue", "vc_gencmd_")
    return any(mark in text for mark in marks) or text.startswith("Can't open device file")


def throttled(text: str) -> int:
    """The bits of `get_throttled`, such as throttled=0x50005. Raises PowerError for another answer."""
    found = re.fullmatch(r"\s*throttled=(0x[0-9a-fA-F]{1,8})\s*", text)
    if found is None:
        raise PowerError(f"vcgencmd get_throttled: no such answer was expected: {text[:80]!r}")
    return int(found[1], 16)


def temperature(text: str) -> float:
    """Degrees Celsius of `measure_temp`, such as temp=48.3'C. Raises PowerError for another answer."""
    found = re.fullmatch(r"\s*temp=(-?\d+(?:\.\d+)?)'?C\s*", text)
    if found is None:
        raise PowerError(f"vcgencmd measure_temp: no such answer was expected: {text[:80]!r}")
    return float(found[1])


def clock(text: str) -> int:
    """Hertz of `measure_clock`, such as frequency(48)=1800457088; the number in brackets differs by model.

    Raises PowerError for another answer.
    """
    found = re.fullmatch(r"\s*frequency\(\d+\)=(\d+)\s*", text)
    if found is None:
        raise PowerError(f"vcgencmd measure_clock: no such answer was expected: {text[:80]!r}")
    return int(found[1])
