"""One request, three runtimes: the Raspberry Pi's, Android's on a JVM and iOS's on Linux end with the same
masks, weights, evidence and records, and print the same table.

python tests/runtimes/one_request.py DEMO FOLDER --jvm COMMAND --swift COMMAND --inside PATH

DEMO is the folder of `make demo`. pi_runtime makes a store of its bundle, with the images of a digit and a
queued request; each runtime carries a copy of this store out, is killed when it has written its first
checkpoint, whose masks are compared, and goes on from there. FOLDER is made anew; the Swift command sees it
as PATH.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from clue_mobile import data
from pi_runtime import Runtime

LABEL, SEED, THREADS = "3", 7, 1
PATIENCE_S = 300
# The engine and its version are one, so that a different order of work is all that could differ; it does not.
RTOL = 1e-5


def prepare(demo: Path, folder: Path) -> None:
    """The store with its queued request."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(demo / "digits.clue", folder / "bundle")
    with Runtime.open(folder / "bundle", folder / "store", threads=THREADS) as runtime:
        channels, height, width = runtime.bundle.input_shape
        digits = data.load("digits", input_shape=(channels, height, width), classes=runtime.bundle.classes)
        runtime.add(digits.train.of_class(runtime.bundle.label(LABEL)).images, LABEL)
        runtime.submit(LABEL, seed=SEED)


def masks(folder: Path, command: list[str]) -> dict[str, Any]:
    """Run until the first checkpoint is there, end the process, and read the cursor and the packed bits."""
    path = folder / "checkpoints" / "000001.safetensors"
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        ends = time.monotonic() + PATIENCE_S
        while not path.exists():
            if process.poll() is not None:
                raise SystemExit(f"{shlex.join(command)} ended with {process.returncode} before a checkpoint")
            if time.monotonic() > ends:
                os.killpg(process.pid, signal.SIGKILL)
                raise SystemExit(f"{shlex.join(command)} wrote no checkpoint in {PATIENCE_S} s")
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    with safe_open(path, "numpy") as file:
        cursor = file.metadata()["cursor"]
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    bits = {name: array for name, array in found.items() if array.dtype == np.uint8}
    return {"cursor": cursor, **bits}


def outcome(folder: Path, store: Path) -> dict[str, Any]:
    """What a store has after its request."""
    with Runtime.open(folder / "bundle", store, threads=THREADS) as runtime:
        request = runtime.store.request(1)
        if request.status != "done":
            raise SystemExit(f"{store.name}: the request is {request.status}: {request.reason}")
        records = [{key: each[key] for key in ("phase", "steps", "batch")} for each in runtime.log()]
        weights = load_file(runtime.serving.path)
    return {"evidence": request.evidence, "records": records, "weights": weights}


def same(expected: Any, found: Any, where: str) -> None:
    """Raise SystemExit naming the first place where two values differ, floats by more than RTOL."""
    if isinstance(expected, dict):
        if expected.keys() != found.keys():
            raise SystemExit(f"{where}: {sorted(expected)} against {sorted(found)}")
        for key in expected:
            same(expected[key], found[key], f"{where}.{key}")
    elif isinstance(expected, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            same(one, other, f"{where}[{number}]")
    elif isinstance(expected, np.ndarray) and expected.dtype == np.uint8:
        if not np.array_equal(expected, found):
            raise SystemExit(f"{where}: {int(np.unpackbits(expected ^ found).sum())} bits differ")
    elif isinstance(expected, np.ndarray):
        scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
        error = float(np.max(np.abs(expected.astype(np.float64) - found), initial=0.0)) / scale
        if error > RTOL:
            raise SystemExit(f"{where}: differs by {error:.1e} of its scale")
    elif isinstance(expected, float):
        if not np.isclose(expected, found, rtol=RTOL, atol=1e-8):
            raise SystemExit(f"{where}: {expected} against {found}")
    elif expected != found:
        raise SystemExit(f"{where}: {expected!r} against {found!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jvm", required=True)
    parser.add_argument("--swift", required=True)
    parser.add_argument("--inside", required=True)
    given = parser.parse_args()
    prepare(given.demo, given.folder)
    pi = [sys.executable, "-m", "pi_runtime", "run", "--threads", str(THREADS)]
    commands = {
        "pi": [*pi, str(given.folder / "bundle"), "--store", str(given.folder / "pi")],
        "jvm": [*shlex.split(given.jvm), "run", str(given.folder / "bundle"), str(given.folder / "jvm")],
        "swift": [*shlex.split(given.swift), "run", f"{given.inside}/bundle", f"{given.inside}/swift"],
    }
    found: dict[str, dict[str, Any]] = {}
    for name, command in commands.items():
        shutil.copytree(given.folder / "store", given.folder / name)
        half = masks(given.folder / name, command)
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        # clue-pi's service has the table in one line
        table = printed.removeprefix("request 1: ").replace("; ", "\n").splitlines()
        found[name] = {"table": table, "masks": half, **outcome(given.folder, given.folder / name)}
    bits = sum(8 * a.size for a in found["pi"]["masks"].values() if isinstance(a, np.ndarray))
    if not bits:
        raise SystemExit("the checkpoint has no masks")
    print("\n".join(found["pi"]["table"]))
    for name in ("jvm", "swift"):
        same(found["pi"], found[name], name)
        weights = [found[each]["weights"] for each in ("pi", name)]
        equal = all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])
        print(f"{name}: {bits} mask bits, table, evidence, records are pi_runtime's; weights equal: {equal}")


if __name__ == "__main__":
    main()
