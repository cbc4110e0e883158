"""The report of `clue-mobile report`: a device's requests as one HTML file and its pictures as PNG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clue_mobile.errors import ClueError
from clue_mobile.report import device_plots as plots
from clue_mobile.report import device_tables as tables
from clue_mobile.report.device_log import LoggedRequest
from clue_mobile.report.html import Picture, Report, write_report

INTRODUCTION = (
    "What forgetting cost on the device, and what it did: read from the cost records that the device runtime "
    "wrote itself. Nothing here was measured afterwards.",
    "Energy that no meter measured is left out; an estimate is called one.",
)


def write(folder: Path, requests: Sequence[LoggedRequest]) -> list[Path]:
    """Write report.html and its pictures into `folder`; returns the paths, the report first.

    Raises ClueError where there is no request, or a file cannot be written.
    """
    if not requests:
        raise ClueError("the logs hold no finished request, so there is nothing to report")
    colour = plots.colours(requests)
    pictures = [
        Picture(
            plots.comparison_picture(folder / "requests.png", requests, colour),
            "What each request cost, by phase",
            "Bars of wall time, energy and peak memory, and step times, a row for each request",
        )
    ]
    for request in requests:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", f"{request.log}-{request.id}").strip("-")
        timeline = plots.timeline_picture(folder / f"{stem}-timeline.png", request, colour)
        if timeline is not None:
            kept = "power, " if request.samples else ""
            what = f"{request.name}: phases, {kept}peak memory and step times along the request"
            pictures.append(Picture(timeline, what))
        evidence = plots.evidence_picture(folder / f"{stem}-evidence.png", request)
        if evidence is not None:
            pictures.append(Picture(evidence, f"{request.name}: what the forgetting did"))
    shown = [tables.requests_table(requests), tables.phases_table(requests), tables.devices_table(requests)]
    rails = tables.rails_table(requests)
    data = [
        {
            "log": request.log,
            "request_id": request.id,
            "class": request.class_name,
            "status": request.status,
            "reason": request.reason,
            "evidence": request.evidence,
            "records": list(request.records.values()),
            "board_estimate_j": tables.board_estimate(request.whole),
        }
        for request in requests
    ]
    logs = ", ".join(dict.fromkeys(request.log for request in requests))
    report = Report(
        f"Requests of {logs}", INTRODUCTION, [*shown, *([rails] if rails else [])], pictures, data
    )
    return [write_report(folder / "report.html", report), *(picture.path for picture in pictures)]
