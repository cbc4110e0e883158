"""`clue-mobile check`."""

from __future__ import annotations

import dataclasses

import typer

from clue_mobile.cli.common import BundleArgument, JsonOption, ThreadsOption, console, print_json

HELP = (
    "Check a bundle: every file's sha256, the manifest, and each program's results against eager "
    "PyTorch's.\n\n"
    "Example: clue-mobile check cifar.clue"
)


def command(bundle: BundleArgument, threads: ThreadsOption = None, as_json: JsonOption = False) -> None:
    """See HELP. Exit code 1 where a result differs by more than the tolerance."""
    from pi_runtime import golden
    from pi_runtime.bundle import Bundle
    from pi_runtime.onnx_engine import OnnxEngine

    opened = Bundle.open(bundle)
    engine = OnnxEngine(threads)
    results = golden.check(opened, engine)
    good = all(result.ok for result in results)
    if as_json:
        # JSON has no infinity
        rows = [
            {**dataclasses.asdict(r), "error": r.error if r.error < float("inf") else None} for r in results
        ]
        print_json(
            {
                "bundle": str(bundle),
                "files": len(opened.files),
                "engine": engine.name,
                "version": engine.version,
                "ok": good,
                "golden": rows,
            }
        )
    else:
        from rich.table import Table

        table = Table(
            title=f"{bundle}: {len(opened.files)} files intact; {engine.name} {engine.version} against "
            f"eager PyTorch"
        )
        for heading in ("Program", "Output", "Error / scale", "Tolerance", ""):
            table.add_column(
                heading, justify="right" if heading in ("Error / scale", "Tolerance") else "left"
            )
        for r in results:
            verdict = "ok" if r.ok else "DIFFERS"
            table.add_row(r.program, r.output, f"{r.error:.1e}", f"{r.tolerance:.1e}", verdict)
        console().print(table)
    if not good:
        raise typer.Exit(1)
