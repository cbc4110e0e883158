"""`clue-mobile models`."""

from __future__ import annotations

from clue_mobile.cli.common import JsonOption, console, print_json

HELP = "List what --model takes.\n\nExample: clue-mobile models"


def command(as_json: JsonOption = False) -> None:
    """See HELP."""
    from clue_mobile import models

    rows = models.available()
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    from rich.table import Table

    table = Table("Model", "Parameters", "Input", "")
    for row in rows:
        table.add_row(
            row.name,
            "-" if row.parameters is None else f"{row.parameters:,}",
            row.input or "-",
            row.description,
        )
    console().print(table)
