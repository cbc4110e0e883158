"""`clue-mobile report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clue_mobile.cli.common import JsonOption, console, print_json

HELP = (
    "Report what requests cost on a device and what they did: tables, the timeline of phases, the power "
    "trace, memory, step times and the evidence, as one HTML file and PNG pictures.\n\n"
    "A log is a store's folder, its store.db or a cost.jsonl; several are shown side by side.\n\n"
    "Example: clue-mobile report digits.store pi5/cost.jsonl --out report"
)


def command(
    logs: Annotated[
        list[Path], typer.Argument(help="Logs of devices.", metavar="LOG...", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and the pictures.")] = Path("report"),
    request: Annotated[
        list[int] | None,
        typer.Option(
            help="Only this request of each log (repeatable). [default: the last 5]", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile.errors import ClueError
    from clue_mobile.report import device_log, device_report, device_tables

    found = []
    for log in logs:
        read = device_log.read(log)
        if request:
            known = {each.id for each in read}
            if not known & set(request):
                raise ClueError(f"{log} has no finished request {request}: it has {sorted(known) or 'none'}")
            read = [each for each in read if each.id in request]
        found += read if request else read[-5:]
    written = device_report.write(out, found)
    if as_json:
        print_json(
            {
                "report": str(written[0]),
                "pictures": [str(path) for path in written[1:]],
                "requests": [{"log": q.log, "request_id": q.id, "status": q.status} for q in found],
            }
        )
        return
    console().print(device_tables.short_table(found).to_rich())
    print(f"report: {written[0]}, with {len(written) - 1} pictures beside it")
