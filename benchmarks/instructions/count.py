"""Instructions of one step on an emulated Cortex-A76: those of K+1 steps less those of K.

    python benchmarks/instructions/count.py --model resnet20 --batch 32 --runtime onnx --out FILE.json
    python benchmarks/instructions/count.py ... --plain | --without masks     what forms and passes change
    python benchmarks/instructions/count.py --program FILE.onnx [--engine MODULE:CLASS]
    python benchmarks/instructions/count.py --table [--into DOCUMENT.md]    the recorded results as Markdown

Start-up cancels: counts are taken at marks that the program sets before the first step and after each
(counter.c). Needs the emulator of build.sh (CLUE_QEMU_PLUGIN) and the aarch64 Python of
tests/aarch64/fetch.sh (CLUE_AARCH64). With --program, inputs are drawn by their shapes and names
(run_steps.py), so a single convolution's form can be counted as well as a step. A program that ends with an
error or a signal is recorded as such, with the last of what it said.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "roofline"))
sys.path.insert(0, str(Path(__file__).parent))
import marked
import programs_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
Counts = Mapping[str, int]

# Cortex-A76: 4 instructions decoded a cycle, two SIMD and floating point pipes, two load/store pipes
# (Arm Cortex-A76 Software Optimization Guide, PJDOC-466751330-7215, section 2.1)
HERTZ = 2.4e9
DECODED, SIMD_PIPES, MEMORY_PIPES = 4, 2, 2
SIMD = ("fma_vector", "fma_scalar", "simd")
MEMORY = ("load_simd", "store_simd", "load", "store")


class EndedError(Exception):
    """The counted program did not end with 0."""


def fewest_cycles(counts: Mapping[str, float]) -> float:
    """Cycles that one Cortex-A76 needs at least: the busiest of decoding, SIMD and load/store pipes."""
    return max(
        counts["total"] / DECODED,
        sum(counts[name] for name in SIMD) / SIMD_PIPES,
        sum(counts[name] for name in MEMORY) / MEMORY_PIPES,
    )


def one_step(runs: Sequence[Sequence[Counts]], skipped: int) -> dict[str, Any]:
    """Median, by class, of the steps of all runs after the first `skipped`; a run is its counts at the marks.

    spread, of the total: (largest - smallest) / median over these steps.
    """
    steps = [
        {name: after[name] - before[name] for name in after}
        for marks in runs
        for before, after in itertools.pairwise(marks[skipped:])
    ]
    step = {name: round(statistics.median(each[name] for each in steps)) for name in steps[0]}
    found = [each["total"] for each in steps]
    return {"step": step, "spread": (max(found) - min(found)) / step["total"], "steps": len(steps)}


class Emulator:
    """The aarch64 Python on qemu-aarch64 with the counting plugin."""

    def __init__(self, qemu: Path, aarch64: Path, more_path: Sequence[Path] = ()) -> None:
        for needed, how in (
            (qemu / "libcounter.so", "benchmarks/instructions/build.sh"),
            (aarch64 / "complete", "tests/aarch64/fetch.sh"),
        ):
            if not needed.is_file():
                raise SystemExit(f"{needed} is missing: run {how}")
        self.qemu, self.aarch64 = qemu, aarch64
        self._path = os.pathsep.join(map(str, (*more_path, aarch64 / "site", ROOT)))

    def environment(self) -> dict[str, str]:
        """One thread, no .pyc written, the same hashes each time."""
        return {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": self._path,
            "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def command(self, counts: Path) -> list[str]:
        """What to put before a Python program's arguments."""
        root = self.aarch64 / "root"
        plugin = f"{self.qemu / 'libcounter.so'},out={counts}"
        return [
            str(self.qemu / "qemu-aarch64"), "-cpu", "cortex-a76", "-L", str(root), "-plugin", plugin,
            str(root / "usr/bin/python3.11"),
        ]  # fmt: skip

    def run(self, target: programs_of.Target, times: int) -> tuple[dict[str, Any], dict[str, float]]:
        """Counts (at the marks, at the end) and results of `times` runs.

        Raises EndedError with what the program said.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "counts.json"
            said = _run([*self.command(file), *_arguments(target, times)], self.environment())
            return json.loads(file.read_text()), said


def _arguments(target: programs_of.Target, times: int) -> list[str]:
    return [str(HERE / "run_steps.py"), target.engine, str(target.file), str(target.ports), str(times)]


def _run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        number = -done.returncode if done.returncode < 0 else done.returncode - 128
        known = number in signal.valid_signals()
        how = signal.Signals(number).name if known else f"exit status {done.returncode}"
        raise EndedError(f"{how}: {done.stderr.strip()[-400:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def here(target: programs_of.Target, times: int) -> dict[str, float]:
    """The same runs on this computer, for the results."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return _run([sys.executable, *_arguments(target, times)], environment)


def count(
    emulator: Emulator, target: programs_of.Target, skipped: int, steps: int, repeats: int
) -> dict[str, Any]:
    """Counts of one step, from `repeats` processes of `steps` steps after `skipped` others."""
    start = time.monotonic()
    runs: list[list[Counts]] = []
    whole: list[int] = []
    results: dict[str, float] = {}
    record: dict[str, Any] = {**target.facts, "skipped": skipped, "repeats": repeats}
    try:
        for number in range(repeats):
            counts, results = emulator.run(target, skipped + steps)
            runs.append(counts["marks"])
            whole.append(counts["end"]["total"])
            print(f"process {number + 1}: {whole[-1]:,} instructions", file=sys.stderr)
    except EndedError as error:
        return {**record, "failed": str(error)}
    record |= one_step(runs, skipped)
    record["each_step"] = [[b["total"] - a["total"] for a, b in itertools.pairwise(marks)] for marks in runs]
    record["whole_processes"] = whole
    record["fewest_cycles"] = round(fewest_cycles(record["step"]))
    expected = here(target, skipped + steps)
    record["difference_to_this_computer"] = max(
        abs(value - expected[key]) / (abs(expected[key]) + 1e-9) for key, value in results.items()
    )
    return {**record, "emulated_s": round(time.monotonic() - start)}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| program | runtime | instructions of a step, 10^6 | vector multiply-adds | other SIMD, fp "
        "| loads, stores | branches, integer | spread | at least, s (1 core, 2.4 GHz) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        name = record.get("program") or f"{record['model']}, batch {record['batch']}"
        name += f", {record['variant']}" if record.get("variant") else ""
        if "failed" in record:
            lines.append(f"| {name} | {record['runtime']} | {record['failed'].splitlines()[0]} | | | | | | |")
            continue
        step = record["step"]
        shares = [
            step["fma_vector"],
            step["fma_scalar"] + step["simd"],
            sum(step[key] for key in MEMORY),
            step["branch"] + step["integer"],
        ]
        lines.append(
            f"| {name} | {record['runtime']} | {step['total'] / 1e6:,.1f} | "
            + " | ".join(f"{share / step['total']:.0%}" for share in shares)
            + f" | {record['spread']:.1e} | {record['fewest_cycles'] / HERTZ:.3g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20", help="a built-in model (default resnet20)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runtime", choices=sorted(programs_of.ENGINES), default="onnx")
    parser.add_argument("--plain", action="store_true", help="one form for all products, no passes")
    parser.add_argument("--without", action="append", default=[], help="a pass to leave out, such as masks")
    parser.add_argument("--program", type=Path, help="an ONNX file instead of a model's step")
    parser.add_argument("--engine", default=programs_of.ENGINES["onnx"], help="of --program: MODULE:CLASS")
    parser.add_argument("--path", type=Path, action="append", default=[], help="for the emulated Python")
    parser.add_argument("--skip", type=int, default=3, help="first steps left out: they allocate (default 3)")
    parser.add_argument("--steps", type=int, default=2, help="steps counted in a process (default 2)")
    parser.add_argument("--repeats", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--out", type=Path, help="where the record goes (default: printed)")
    parser.add_argument("--table", action="store_true", help="print the recorded results as Markdown")
    parser.add_argument(
        "--into", type=Path, help="of --table: a document with the markers instructions:begin, :end"
    )
    options = parser.parse_args()
    if options.table:
        text = table([json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))])
        if options.into:
            marked.write(options.into, "instructions", text)
        else:
            print(text, end="")
        return
    cache = ROOT / ".cache"
    qemu = Path(os.environ.get("CLUE_QEMU_PLUGIN") or cache / "qemu-plugin")
    aarch64 = Path(os.environ.get("CLUE_AARCH64") or cache / "aarch64")
    emulator = Emulator(qemu.resolve(), aarch64.resolve(), [path.resolve() for path in options.path])
    with tempfile.TemporaryDirectory() as folder:
        if options.program:
            target = programs_of.given(options.program.resolve(), options.engine, Path(folder))
        else:
            target = programs_of.step(
                options.model, options.batch, options.runtime, Path(folder),
                plain=options.plain, without=options.without,
            )  # fmt: skip
        record = count(emulator, target, options.skip, options.steps, options.repeats)
    record["qemu"] = (qemu / "version").read_text().strip()
    text = json.dumps(record, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    else:
        print(text, end="")
    if "failed" in record:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
