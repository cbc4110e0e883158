"""Give the readers of hostile files many files that are nearly right; nothing but ClueError may come out.

    python benchmarks/fuzz/fuzz.py --inputs manifest=25000 --inputs image=40000 --out results.json

Each target runs in a process of its own, so that a crash of a decoder in C is seen and counted too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from targets import TARGETS

from pi_runtime.errors import ClueError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "pi_runtime"))
PACKAGES = ("hypothesis", "numpy", "pillow", "jsonschema")
CHUNK = 4000  # inputs of one process
MOST_MEMORY = 3 << 30  # a reader that asks for more has believed a number in a file


def run(name: str, inputs: int, number: int, folder: Path) -> dict[str, Any]:
    """Read `inputs` files; what was seen, with `failures`: {error: [count, an input that gave it in hex]}."""
    import toy

    bundle = toy.build(folder / "toy.clue")
    target = TARGETS[name](bundle, folder)
    seen: Counter[str] = Counter()
    failures: dict[str, list[Any]] = {}
    slowest = 0.0

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def test(content: bytes) -> None:
        nonlocal slowest
        start = time.perf_counter()
        try:
            target.read(content)
            seen["accepted"] += 1
        except ClueError as error:
            seen["refused"] += 1
            if "\n" in str(error).strip():
                failures.setdefault("an error of several lines", [0, str(error)])[0] += 1
        except Exception as error:  # what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
            failures.setdefault(where, [0, content.hex()[:20_000]])[0] += 1
        slowest = max(slowest, time.perf_counter() - start)

    start = time.perf_counter()
    test()
    return {
        "inputs": seen.total() + sum(count for count, _ in failures.values()),
        **seen,
        "failures": failures,
        "slowest_s": round(slowest, 3),
        "wall_s": round(time.perf_counter() - start, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _child(name: str, inputs: int, number: int, out: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        out.send(run(name, inputs, number, Path(folder)))


def separately(name: str, inputs: int, number: int) -> dict[str, Any]:
    """`run` in a process of its own; its death is a failure."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, inputs, number, there))
    process.start()
    there.close()
    try:
        result: dict[str, Any] = here.recv()
    except EOFError:
        result = {"inputs": 0, "failures": {f"a process died (seed {number}, {inputs} inputs)": [1, ""]}}
    process.join()
    return result


def together(before: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The sums and the largest of two results."""
    added = {
        key: before.get(key, 0) + more.get(key, 0) for key in ("inputs", "accepted", "refused", "wall_s")
    }
    most = {key: max(before.get(key, 0), more.get(key, 0)) for key in ("slowest_s", "peak_mib")}
    failures = dict(before.get("failures", {}))
    for error, (count, shown) in more["failures"].items():
        failures[error] = [failures.get(error, [0])[0] + count, shown]
    return {**added, "wall_s": round(added["wall_s"], 1), **most, "failures": failures}


def main() -> int:
    """Run the targets one after the other, write the results so far; 1 where something else came out."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    names = ", ".join(TARGETS)
    parser.add_argument("--inputs", action="append", required=True, metavar="TARGET=N", help=names)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for text in options.inputs:
        name, _, count = text.partition("=")
        for number, done in enumerate(range(0, int(count), CHUNK)):
            some = separately(name, min(CHUNK, int(count) - done), options.seed + number)
            results[name] = together(results.get(name, {}), some)
            print(name, results[name], flush=True)
            if options.out:
                _write(options.out, results)
    return 1 if any(each["failures"] for each in results.values()) else 0


def _write(out: Path, results: dict[str, Any]) -> None:
    document = {
        "command": "python " + " ".join(["benchmarks/fuzz/fuzz.py", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "inputs": sum(each["inputs"] for each in results.values()),
        "targets": results,
    }
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
