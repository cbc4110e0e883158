"""`clue-mobile check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clue_mobile.cli.common import BundleArgument, JsonOption, ThreadsOption, bar, console, print_json

if TYPE_CHECKING:
    from clue_mobile.engines.check import RuntimeCheck
    from pi_runtime.bundle import Bundle
    from pi_runtime.footprint import Footprint

HELP = (
    "Check a bundle: every file's sha256, the manifest, and each program's results against eager "
    "PyTorch's, on every runtime of the bundle that can run here.\n\n"
    "Example: clue-mobile check cifar.clue"
)


def command(
    bundle: BundleArgument,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this runtime (repeatable). [default: all that can run here]", show_default=False
        ),
    ] = None,
    threads: ThreadsOption = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Also measure the memory of each program, in a process of its own, beside the planned peak.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP. Exit code 1 where a result differs by more than the tolerance, or no runtime could run."""
    from clue_mobile.engines.check import check
    from pi_runtime.bundle import Bundle
    from pi_runtime.engines import ENGINES
    from pi_runtime.footprint import measure

    opened = Bundle.open(bundle)
    with bar("check", as_json) as tell:
        checks = check(opened, runtime, threads=threads, progress=lambda name: tell(0, 0, name))
        footprints = {
            each.runtime: measure(opened, each.runtime, threads, lambda name: tell(0, 0, f"memory of {name}"))
            for each in checks
            if memory and each.not_run is None and each.runtime in ENGINES
        }
    ran = [each for each in checks if each.not_run is None]
    good = bool(ran) and all(each.ok for each in ran)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "files": len(opened.files),
                "ok": good,
                "runtimes": {
                    each.runtime: as_data(each)
                    | {"memory": [dataclasses.asdict(f) for f in footprints.get(each.runtime, ())]}
                    for each in checks
                },
            }
        )
    else:
        shown = console()
        shown.print(f"{bundle}: {len(opened.files)} files intact")
        if ran:
            shown.print(_table(ran))
        if memory:
            shown.print(_memory_table(opened, footprints))
        for each in checks:
            if each.not_run is not None:
                shown.print(f"{each.runtime}: not run. {each.not_run}")
    if not good:
        raise typer.Exit(1)


def as_data(checked: RuntimeCheck) -> dict[str, Any]:
    """A runtime's part of the JSON document."""
    if checked.not_run is not None:
        return {"not_run": checked.not_run}
    rows = [dataclasses.asdict(result) for result in checked.results]
    for row in rows:
        row["error"] = row["error"] if row["error"] < float("inf") else None  # JSON has no infinity
    return {"version": checked.version, "ok": checked.ok, "golden": rows}


def _memory_table(bundle: Bundle, footprints: Mapping[str, Sequence[Footprint]]) -> Any:
    """Planned and measured memory by program, one column a runtime."""
    from rich.table import Table

    table = Table(title="memory of a run, its inputs and outputs among it (MiB)")
    for heading in ("Program", "Planned peak", *footprints):
        table.add_column(heading, justify="left" if heading == "Program" else "right")
    found = [{each.program: each.measured for each in rows} for rows in footprints.values()]
    for name, program in bundle.programs.items():
        measured = [rows.get(name) for rows in found]
        cells = ["-" if each is None else f"{each / 2**20:,.1f}" for each in measured]
        table.add_row(name, f"{program.peak_bytes / 2**20:,.1f}", *cells)
    return table


def _table(ran: list[RuntimeCheck]) -> Any:
    """Errors by program and output, one column a runtime."""
    from rich.table import Table

    names = ", ".join(f"{each.runtime} {each.version}" for each in ran)
    table = Table(title=f"error / scale against eager PyTorch: {names}")
    for heading in ("Program", "Output", *(each.runtime for each in ran), "Tolerance"):
        table.add_column(heading, justify="left" if heading in ("Program", "Output") else "right")
    found = [{(r.program, r.output): r for r in each.results} for each in ran]
    for key in dict.fromkeys(key for results in found for key in results):
        results = [each.get(key) for each in found]
        cells = [
            "-" if r is None else f"{r.error:.1e}" if r.ok else f"DIFFERS {r.error:.1e}" for r in results
        ]
        tolerance = next(r.tolerance for r in results if r is not None)
        table.add_row(*key, *cells, f"{tolerance:.1e}")
    return table
