"""Which models export to which runtimes, and how far the results are from eager PyTorch.

python benchmarks/conformance/conformance.py run [--runtime onnx ...] [--model '*resnet*'] [--again STATUS]
    [--jobs 2]
python benchmarks/conformance/conformance.py table

`run` takes up where it stopped: each cell is one line of results.jsonl, added as soon as it is known, and a
cell that has a line is not run again. Each runs in a process of its own, at most 15 minutes and 20 GiB.
`table` writes docs/conformance.md from the lines.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import multiprocessing
import multiprocessing.context
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import zoo

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.jsonl"
TABLE = ROOT / "docs" / "conformance.md"
RUNTIMES = ("onnx", "litert", "coreml", "executorch")
SECONDS, GIBIBYTES = 900, 20
Cell = tuple[str, str, str]


def known() -> dict[Cell, dict[str, Any]]:
    """The rows so far; of several for one cell the last."""
    if not RESULTS.is_file():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {(row["model"], row["runtime"], row["size"]): row for row in rows}


def peak_bytes(pid: int) -> int:
    """The most memory that a running process has had, 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def reason(problems: str) -> str:
    """What a process said before it ended: the line of its exception, or its last line."""
    lines = problems.strip().splitlines() or [""]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (errors or lines)[-1][:400]


def processes() -> multiprocessing.context.ForkServerContext:
    """Where the processes of cells come from: forks of one that has imported the libraries already, which
    would else take longer than a small cell."""
    os.environ.update(PYTHONPATH=f"{ROOT}{os.pathsep}{HERE}", OMP_NUM_THREADS="1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cell", "timm", *(f"exporters.{runtime}" for runtime in RUNTIMES)])
    return context


def work(chosen: Cell, out: Path, problems: Path) -> None:
    """What such a process does: the row and the error output of a cell go to files."""
    with problems.open("w") as said:
        os.dup2(said.fileno(), 2)
        import cell  # not at the top: the table needs no torch

        out.write_text(cell.answer(*chosen), encoding="utf-8")


def run_cell(cell: Cell) -> dict[str, Any]:
    """Run one cell; a row with status ok, differs, refused, failed, timeout or memory."""
    began, peak, stopped = time.monotonic(), 0, ""
    with tempfile.TemporaryDirectory() as folder:
        out, problems = Path(folder) / "row", Path(folder) / "problems"
        process = processes().Process(target=work, args=(cell, out, problems))
        process.start()
        while process.is_alive():
            process.join(1)
            peak = max(peak, peak_bytes(process.pid or 0))
            if peak > GIBIBYTES * 2**30:
                stopped = "memory"
            elif time.monotonic() - began > SECONDS:
                stopped = "timeout"
            if stopped:
                process.kill()
        row: dict[str, Any] = {"model": cell[0], "runtime": cell[1], "size": cell[2]}
        try:
            row |= json.loads(out.read_text(encoding="utf-8")) if not stopped else {"status": stopped}
        except (OSError, ValueError):
            said = problems.read_text(encoding="utf-8", errors="replace") if problems.is_file() else ""
            row |= {"status": "failed", "reason": reason(said) or f"exit code {process.exitcode}"}
    return row | {"wall_s": round(time.monotonic() - began, 1), "peak_mib": round(peak / 2**20)}


def run(options: argparse.Namespace) -> None:
    """Run the cells that are chosen and not known, the cheapest runtimes first, several at once."""
    rows = known()
    chosen = [
        cell
        for cell in zoo.cells(tuple(options.runtime or RUNTIMES))
        if fnmatch.fnmatch(cell[0], options.model or "*")
        and (cell not in rows or rows[cell]["status"] in (options.again or ()))
    ]
    pool = ThreadPoolExecutor(options.jobs)
    try:
        running = {pool.submit(run_cell, cell): cell for cell in chosen}
        for number, done in enumerate(as_completed(running), 1):
            row = done.result()
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            told = row.get("reason") or f"{row.get('error', float('nan')):.1e}"
            name = " ".join(running[done])
            print(f"{number}/{len(chosen)} {name}: {row['status']} {told} {row['wall_s']} s", flush=True)
    finally:  # also after Ctrl-C: what is not running does not start
        pool.shutdown(cancel_futures=True)


def shown(row: dict[str, Any] | None) -> str:
    """A cell of the table."""
    if row is None:
        return "not run yet"
    if row["status"] == "ok":
        text = f"ok {row['error']:.0e}"
    elif row["status"] == "differs":
        text = f"**differs** {row['error']:.0e} ({row['worst']})"
    elif row["status"] in ("timeout", "memory"):
        text = f"**{row['status']}**"
    else:
        text = f"**{row['status']}**: {row['reason']}".replace("|", "\\|")
    return text + (" *" if row["size"] == "shallow" else "")


def table() -> None:
    """Write docs/conformance.md."""
    rows, expected = known(), zoo.cells(RUNTIMES)
    counts = {
        r: collections.Counter(rows[c]["status"] for c in expected if c[1] == r and c in rows)
        for r in RUNTIMES
    }
    total = sum(sum(count.values()) for count in counts.values())
    good = sum(count["ok"] for count in counts.values())
    lines = [
        "# Conformance: models and runtimes",
        "",
        "Generated from results.jsonl in benchmarks/conformance by `conformance.py table`.",
        "",
        (HERE / "README.md").read_text(encoding="utf-8").partition("## What a cell is\n")[2].strip(),
        "",
        f"**{good} of {total} cells are ok ({100 * good / max(total, 1):.1f} %); {len(expected) - total} of "
        f"{len(expected)} have not been run yet.**",
        "",
        "| runtime | ok | differs | refused | failed | timeout | memory | not run yet |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for runtime, count in counts.items():
        kinds = ("ok", "differs", "refused", "failed", "timeout", "memory")
        missing = sum(c[1] == runtime for c in expected) - sum(count.values())
        lines.append(f"| {runtime} | {' | '.join(str(count[kind]) for kind in kinds)} | {missing} |")
    lines += ["", f"| model | nodes of step | {' | '.join(RUNTIMES)} |", f"|---|---|{'---|' * len(RUNTIMES)}"]
    for model in dict.fromkeys(cell[0] for cell in expected):
        mine = {cell[1]: rows.get(cell) for cell in expected if cell[0] == model}
        nodes = ((mine.get("onnx") or {}).get("nodes") or {}).get("step", "")
        lines.append(f"| {model} | {nodes} | {' | '.join(shown(mine[r]) for r in RUNTIMES)} |")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{TABLE}: {good} of {total} ok, {len(expected) - total} not run yet")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="run the cells that have no result yet")
    runner.add_argument("--runtime", action="append", choices=RUNTIMES)
    runner.add_argument("--model", help="a shell-style pattern such as 'timm:*'")
    runner.add_argument("--jobs", type=int, default=1, help="cells at once, one thread each")
    runner.add_argument("--again", action="append", help="run cells with this status again, such as failed")
    commands.add_parser("table", help="write docs/conformance.md")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        table()


if __name__ == "__main__":
    main()
