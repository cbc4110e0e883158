"""Environments of the peers that cannot live beside the others, made from PyPI into a cache folder.

python benchmarks/step/environments.py [NAME ...] [--cache FOLDER] makes those that are missing. The folder is
CLUE_STEP_CACHE, or ~/.cache/clue-mobile/step.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON = "3.11"
ENVIRONMENTS = {
    # onnx: the last one before the proto classes that its artifact generator uses were changed
    "ort_training": ("onnxruntime-training==1.19.2", "onnx==1.16.2", "numpy<2"),
    "mnn": ("MNN==3.6.1", "numpy<3"),
    "tensorflow": ("tensorflow-cpu==2.21.0", "ai-edge-litert==2.3.0"),
}


def default_cache() -> Path:
    """Where environments and works are kept unless an option says otherwise."""
    given = os.environ.get("CLUE_STEP_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "clue-mobile" / "step"


def python_of(cache: Path, name: str) -> Path | None:
    """The interpreter of an environment; None where it was not made. "clue" is the one that runs this."""
    if name == "clue":
        return Path(sys.executable)
    folder = cache / "environments" / name
    path = folder / "bin" / "python"
    return path if path.exists() and (folder / ".ready").exists() else None


def make(cache: Path, name: str) -> None:
    """Make one, with uv where it is there, else with venv and pip. CalledProcessError if that fails."""
    folder = cache / "environments" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    if uv := shutil.which("uv"):
        _run([uv, "venv", "--quiet", "--python", PYTHON, str(folder)])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *ENVIRONMENTS[name]])
    else:
        _run([shutil.which(f"python{PYTHON}") or sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]])
    (folder / ".ready").write_text("\n".join(ENVIRONMENTS[name]) + "\n", encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


def main() -> int:
    """Make what is missing; one that cannot be made is told and leaves the others alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ENVIRONMENTS)}; all by default")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(ENVIRONMENTS))
    if unknown:
        parser.error(f"unknown environment {unknown[0]!r}, choose from {', '.join(ENVIRONMENTS)}")
    for name in options.names or ENVIRONMENTS:
        if python_of(options.cache, name):
            print(f"{name}: there", flush=True)
            continue
        print(f"{name}: installing {' '.join(ENVIRONMENTS[name])}", flush=True)
        try:
            make(options.cache, name)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name}: not installed, its rows are left out ({error})", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
