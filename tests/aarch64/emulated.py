"""The Pi's Python on an emulated Cortex-A76 (see fetch.sh), and what the tests with it need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = Path(os.environ.get("CLUE_AARCH64") or ROOT / ".cache" / "aarch64")

MARKS = [
    pytest.mark.full,
    pytest.mark.skipif(
        not (FOLDER / "complete").is_file(),
        reason=f"no aarch64 Python in {FOLDER}: run tests/aarch64/fetch.sh or set CLUE_AARCH64",
    ),
]


def run(python: list[str], *arguments: str | Path) -> Any:
    """What a Python program or module prints, read as JSON; it must end with 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # the emulator would call what it writes stale: this computer's Python has other .pyc files
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [*python, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


PI = [str(HERE / "python.sh"), str(FOLDER)]
HOST = [sys.executable]
