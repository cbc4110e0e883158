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


def main() -> int:
    """Run the targets one after the other, write the results; 1 where something but ClueError came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--inputs", action="append", required=True, metavar="TARGET=N", help=", ".join(TARGETS)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results: dict[str, Any] = {}
    for text in options.inputs:
        name, _, count = text.partition("=")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(name, int(count), options.seed, there))
        process.start()
        there.close()
        try:
            results[name] = here.recv()
        except EOFError:
            results[name] = {"failures": {f"the process ended with {process.exitcode}": [1, ""]}}
        process.join()
        print(name, results[name], flush=True)
    document = {
        "command": "python " + " ".join(["benchmarks/fuzz/fuzz.py", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            **{
                name: importlib.metadata.version(name)
                for name in ("hypothesis", "numpy", "pillow", "jsonschema")
            },
        },
        "inputs": sum(each.get("inputs", 0) for each in results.values()),
        "targets": results,
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if any(each["failures"] for each in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
