"""One training step on every peer, taking turns on the same work; see README.md.

python benchmarks/step/step.py                                  everything that results/ lacks
python benchmarks/step/step.py --models resnet20:32 --threads 1 --rows ours_onnx mnn --rounds 9 --again
python benchmarks/step/step.py --tables                          only print the tables of results/
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import prepare  # noqa: E402
import render  # noqa: E402
import results  # noqa: E402
from environments import default_cache  # noqa: E402
from measure import Settings, measure  # noqa: E402
from work import (  # noqa: E402
    CELLS,
    EAGER,
    GEMM,
    LAYOUT,
    LOSSES,
    MODELS,
    PLAIN,
    REFERENCES,
    ROOT,
    Work,
    peer,
    peer_names,
)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; a wrong one ends the program with code 2 and a sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(peer_names())
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        default=[f"{m}:{b}" for m, b in CELLS],
        help="MODEL:BATCH; default: %(default)s",
    )
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--rows", nargs="+", help=f"of {', '.join(names)}; all by default, the references always run along")
    add("--loss", choices=LOSSES, default=LOSSES[0])
    add("--rounds", type=int, default=15)
    add("--starts", type=int, default=3, help="fresh processes of each row")
    add("--row-seconds", type=float, default=120, help="a row that has used more sits out after 3 rounds")
    add("--memory", type=float, help="GB that workers may hold together (default: 0.7 of what is free)")
    add("--again", action="store_true", help="measure rows again that results/ has")
    add("--cache", type=Path, default=default_cache(), help="environments and files (CLUE_STEP_CACHE)")
    add("--results", type=Path, default=results.RESULTS)
    add("--tables", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    options.cells = []
    for text in options.models:
        model, _, batch = text.partition(":")
        if model not in MODELS or not batch.isdecimal() or int(batch) < 1:
            parser.error(f"--models {text}: MODEL:BATCH with a model of {', '.join(MODELS)}, as resnet20:32")
        options.cells.append((model, int(batch)))
    for name in options.rows or ():
        if name not in names:
            parser.error(f"--rows {name}: unknown, choose from {', '.join(names)}")
    for key in ("rounds", "starts", "row_seconds"):
        if getattr(options, key) <= 0:
            parser.error(f"--{key.replace('_', '-')} must be above 0")
    options.rows = options.rows or names
    return options


def free_memory() -> float:
    """GB that the system says are available."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1e6
    return 4.0


def run_cell(options: argparse.Namespace, model: str, batch: int, threads: int) -> None:
    """Measure what the cell's file lacks and write it."""
    cell = results.cell_name(model, batch, threads, options.loss)
    content = results.read(options.results, cell)
    done = set() if options.again else set(content["rows"])
    names = [name for name in options.rows if name not in done]
    if not names:
        print(f"{cell}: done", flush=True)
        return
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{cell} {time.monotonic() - began:5.0f} s  {text}", flush=True)

    folder = prepare.make(options.cache, model, batch, options.loss)
    work = Work.read(folder, threads)
    peers = [peer(name) for name in names]
    needed = {EAGER, LAYOUT, GEMM} | {PLAIN for other in peers if not other.momentum}
    peers = [peer(name) for name in REFERENCES if name in needed] + [p for p in peers if p.name not in needed]
    memory = options.memory or 0.7 * free_memory()
    settings = Settings(options.cache, options.rounds, options.starts, options.row_seconds, int(memory * 1e9))
    rows = measure(work, peers, settings, tell)
    wanted = {name: row for name, row in rows.items() if name in names or name not in content["rows"]}
    content = results.read(options.results, cell)
    content["rows"] |= wanted
    content |= {
        "model": model,
        "title": MODELS[model].title,
        "batch": batch,
        "threads": threads,
        "loss": options.loss,
        "lr": work.lr,
        "parameters": work.parameters,
        "gflop": work.flops / 1e9,
        "machine": results.machine(),
        "commit": commit(),
    }
    results.write(options.results, cell, content)


def commit() -> str:
    """The commit that was measured, with + where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main() -> int:
    """Measure and print; 130 after Ctrl-C, when what was finished is kept."""
    options = parsed()
    code = 0
    # a request to end is as good as Ctrl-C: workers are ended and what is finished is kept
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not options.tables:
            for threads in options.threads:
                for model, batch in options.cells:
                    run_cell(options, model, batch, threads)
    except KeyboardInterrupt:
        print("stopped: the finished cells are kept, the same command goes on from here", file=sys.stderr)
        code = 130
    finally:
        signal.signal(signal.SIGTERM, before)
    text = render.document(results.read_all(options.results))
    if options.results == results.RESULTS and not code:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    print(text)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
