"""Results for people: tables of scores, pictures, and a report as one HTML file."""

from clue_mobile.report.deep import class_table, confusion_tables, deep_table
from clue_mobile.report.grid import Table
from clue_mobile.report.html import Picture, Report, write_report
from clue_mobile.report.plots import Snapshot, forgetting_picture
from clue_mobile.report.tables import Row, to_json, to_markdown, to_rich, to_table

__all__ = [
    "Picture",
    "Report",
    "Row",
    "Snapshot",
    "Table",
    "class_table",
    "confusion_tables",
    "deep_table",
    "forgetting_picture",
    "to_json",
    "to_markdown",
    "to_rich",
    "to_table",
    "write_report",
]
