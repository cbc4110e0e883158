"""The tables of a device's log: requests, phases, devices, and rails where there are some."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from clue_mobile.report.device_log import LoggedRequest
from clue_mobile.report.grid import Table
from clue_mobile.report.tables import NOT_KNOWN, number

MIB = 2**20
BOARD_FACTOR, BOARD_OFFSET_W = 1.1451, 0.5879
"""The published estimate for a Raspberry Pi 5's board from the sum of its rails (docs/cost.md)."""


def above_idle(record: Mapping[str, Any]) -> float | None:
    """The energy without the power that the device takes anyway, in joules; None where one is not known."""
    energy, idle = record.get("energy_j"), record.get("idle_w")
    return None if energy is None or idle is None else energy - idle * record["wall_s"]


def board_estimate(record: Mapping[str, Any]) -> float | None:
    """The estimate for the whole board in joules, where the rails of the chip were measured."""
    if record.get("energy_source") != "pmic" or record.get("energy_j") is None:
        return None
    return float(BOARD_FACTOR * record["energy_j"] + BOARD_OFFSET_W * record["wall_s"])


def requests_table(requests: Sequence[LoggedRequest]) -> Table:
    """A row for each request."""
    headings = (
        "Request", "Status", "Samples", "Epochs", "Steps", "Before (%)", "After (%)", "Wall (s)", "CPU (s)",
        "Energy (J)", "Above idle (J)", "Kind", "Load (s)", "Save (s)", "Peak (MiB)", "°C", "Throttled",
    )  # fmt: skip
    rows = []
    for request in requests:
        whole, evidence = request.whole, request.evidence
        rows.append([
            request.name,
            request.status,
            _count(evidence.get("samples")),
            _count(evidence.get("epochs_run")),
            f"{whole['steps']:,}",
            number(evidence.get("forget_accuracy_before"), 1),
            number(evidence.get("forget_accuracy_after"), 1),
            number(whole["wall_s"], 2),
            number(whole.get("cpu_s"), 2),
            joules(whole.get("energy_j")),
            joules(above_idle(whole)),
            whole.get("energy_kind") or NOT_KNOWN,
            number(whole.get("load_s"), 2),
            number(whole.get("save_s"), 3),
            number(whole["peak_mem_bytes"] / MIB, 0),
            number(whole.get("thermal_end"), 1),
            _said(whole.get("throttled")),
        ])  # fmt: skip
    return Table(
        "Requests", headings, rows,
        note="Before, after: accuracy on the samples to forget. Energy is that of the whole span, idle power "
        "included; above idle: without the idle power that clue-pi calibrate measured. "
        "A dash is what was not measured.",
    )  # fmt: skip


def short_table(requests: Sequence[LoggedRequest]) -> Table:
    """A row for each request, few columns: for a terminal."""
    headings = ("Request", "Status", "After (%)", "Wall (s)", "Energy (J)", "Kind", "Peak (MiB)")
    rows = [
        [
            request.name,
            request.status,
            number(request.evidence.get("forget_accuracy_after"), 1),
            number(request.whole["wall_s"], 2),
            joules(request.whole.get("energy_j")),
            request.whole.get("energy_kind") or NOT_KNOWN,
            number(request.whole["peak_mem_bytes"] / MIB, 0),
        ]
        for request in requests
    ]
    return Table("", headings, rows)


def phases_table(requests: Sequence[LoggedRequest]) -> Table:
    """A row for each phase, a section for each request."""
    headings = (
        "Phase", "Wall (s)", "Share", "CPU (s)", "Steps", "Step p50 (ms)", "Step p95 (ms)", "Load (s)",
        "Energy (J)", "Mean (W)", "Peak (MiB)",
    )  # fmt: skip
    rows: list[list[str]] = []
    sections: dict[int, str] = {}
    for request in requests:
        sections[len(rows)] = request.name
        total = request.whole["wall_s"] or math.nan
        for name, record in request.records.items():
            energy, wall = record.get("energy_j"), record["wall_s"]
            spans = [span.end - span.start for span in request.spans if span.phase == name]
            rows.append([
                "whole request" if name == "request" else name,
                number(wall, 2),
                f"{100 * wall / total:.0f} %",
                number(record.get("cpu_s"), 2),
                f"{record['steps']:,}",
                number(record["step_ms"]["p50"], 1),
                number(record["step_ms"]["p95"], 1),
                number(record.get("load_s"), 3),
                joules(energy),
                joules(energy / (sum(spans) or wall)) if energy and wall else NOT_KNOWN,
                number(record["peak_mem_bytes"] / MIB, 0),
            ])  # fmt: skip
    sources = sorted({str(r.get("peak_mem_source")) for q in requests for r in q.records.values()})
    return Table(
        "Phases", headings, rows, sections=sections,
        note=f"Wall: time inside the phase's operations. Peak memory by {', '.join(sources)}.",
    )  # fmt: skip


def devices_table(requests: Sequence[LoggedRequest]) -> Table:
    """What ran each request, and what measured it."""
    headings = ("Request", "Device", "System", "Runtime", "Threads", "Energy by", "Rate", "Cost of sampling")
    rows = []
    for request in requests:
        whole = request.whole
        device, runtime = whole.get("device") or {}, whole.get("runtime") or {}
        source = whole.get("energy_source")
        hz, cost = whole.get("sampler_hz"), whole.get("sampler_cpu_s")
        rows.append([
            request.name,
            str(device.get("model", NOT_KNOWN)),
            str(device.get("os", NOT_KNOWN)),
            f"{runtime.get('name', '?')} {runtime.get('version', '?')}",
            str(runtime.get("threads", NOT_KNOWN)),
            f"{source}: {whole.get('energy_scope')}" if source else _reason(whole),
            f"{hz:g} Hz" if hz else NOT_KNOWN,
            _cost(cost, whole["wall_s"]),
        ])  # fmt: skip
    return Table("Devices and meters", headings, rows)


def rails_table(requests: Sequence[LoggedRequest]) -> Table | None:
    """Mean power of each rail; None where no request has rails."""
    shown = [request for request in requests if any(sample.rails for sample in request.samples)]
    if not shown:
        return None
    names = list(dict.fromkeys(rail for q in shown for sample in q.samples for rail in sample.rails))
    rows = []
    for request in shown:
        watts = [
            [
                sample.rails[name][0] * sample.rails[name][1]
                for sample in request.samples
                if name in sample.rails
            ]
            for name in names
        ]
        means = [statistics.fmean(values) if values else None for values in watts]
        total = sum(mean or 0 for mean in means)
        board = number(BOARD_FACTOR * total + BOARD_OFFSET_W, 2)
        rows.append([request.name, *(number(mean, 3) for mean in means), number(total, 2), board])
    return Table(
        "Rails of the power chip, mean W", ("Request", *names, "Sum", "Board, estimated"), rows,
        note=f"The board is estimated as {BOARD_FACTOR} x sum + {BOARD_OFFSET_W} W, a published fit on one "
        "board.",
    )  # fmt: skip


def joules(value: float | None) -> str:
    """A figure with two decimals, or three digits where it is small, as estimates are."""
    return number(value, 2) if value is None or abs(value) >= 1 or not value else f"{value:.3g}"


def _count(value: Any) -> str:
    return NOT_KNOWN if value is None else f"{value:,}"


def _cost(seconds: float | None, wall: float) -> str:
    return f"{seconds:.2f} s of CPU, {100 * seconds / wall:.1f} %" if seconds and wall else NOT_KNOWN


def _said(value: bool | None) -> str:
    return NOT_KNOWN if value is None else "yes" if value else "no"


def _reason(whole: Mapping[str, Any]) -> str:
    note = whole.get("energy_note")
    return f"not measured ({note})" if note else "not measured"
