"""Results for people: tables of scores and the picture of what forgetting did."""

from clue_mobile.report.plots import Snapshot, forgetting_picture
from clue_mobile.report.tables import Row, to_json, to_markdown, to_rich

__all__ = ["Row", "Snapshot", "forgetting_picture", "to_json", "to_markdown", "to_rich"]
