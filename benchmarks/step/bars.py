"""The bars of the benchmark, as data, and what the results say to each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
MODELS = {
    "resnet20": "resnet20-b32",
    "resnet18": "resnet18-b8",
    "mobilenet_v2": "mobilenet_v2-b8",
    "vit_ti_16": "vit_ti_16-b8",
}
ET_TRAINING = "executorch_training"
STOCK = ("onnx", "litert", "executorch")  # of our rows those without kernels of our own


@dataclass(frozen=True)
class Bar:
    """figure(rows) is the value of one cell's rows, None where it was not measured; it is met when it is at
    most (or, `least`, at least) the limit. stage: A, stock operators, or B, with kernels of our own."""

    stage: str
    title: str
    model: str
    limit: float
    figure: Callable[[Rows], float | None]
    least: bool = False

    def met(self, value: float) -> bool:
        """Whether the value reaches the bar."""
        return value >= self.limit if self.least else value <= self.limit


def ours(rows: Rows, runtimes: Collection[str] | None = None) -> list[Mapping[str, Any]]:
    """Our rows that have figures, of some runtimes or of all."""
    found = [r for r in rows.values() if r.get("ours") and r["status"] == "ok"]
    return [r for r in found if runtimes is None or r["ours"] in runtimes]


def best(rows: Rows, runtimes: Collection[str] | None = None) -> Mapping[str, Any] | None:
    """The fastest of our rows: all bars are read from it, stage A's from those of stock operators."""
    return min(ours(rows, runtimes), key=lambda r: float(r["ratio"]), default=None)


def key(
    name: str, runtimes: Collection[str] | None = None, scale: float = 1.0
) -> Callable[[Rows], float | None]:
    """A figure of our fastest row."""

    def figure(rows: Rows) -> float | None:
        row = best(rows, runtimes)
        return None if row is None or row.get(name) is None else float(row[name]) * scale

    return figure


def speed_up(peer: str) -> Callable[[Rows], float | None]:
    """How many times faster our fastest row is than a peer, from their ratios to eager of the same round."""

    def figure(rows: Rows) -> float | None:
        row, other = best(rows), rows.get(peer)
        if row is None or other is None or other["status"] != "ok":
            return None
        return float(other["ratio"]) / float(row["ratio"])

    return figure


def _row(
    title: str, limits: tuple[float | None, ...], figure: Callable[[Rows], float | None], least: bool = False
) -> Iterator[Bar]:
    for model, limit in zip(MODELS, limits, strict=True):
        if limit is not None:
            yield Bar("B", title, model, limit, figure, least)


BARS: tuple[Bar, ...] = (
    Bar("A", "time, ratio to eager NCHW", "resnet20", 1.2, key("ratio", STOCK)),
    Bar("A", "peak memory of the process, ratio to PyTorch", "resnet20", 0.25, key("peak_rss_ratio", STOCK)),
    Bar("A", "process start to first step, ratio to PyTorch", "resnet20", 0.5, key("start_s_ratio", STOCK)),
    *_row("time, ratio to eager NCHW", (0.65, 0.9, 0.6, 0.9), key("ratio")),
    *_row("speed-up over onnxruntime-training", (1.9, 1.3, 1.3, 1.3), speed_up("ort_training"), True),
    *_row("speed-up over MNN", (2.8, 1.5, 1.5, 1.5), speed_up("mnn"), True),
    *_row("speed-up over ExecuTorch's own training", (140, 50, 50, None), speed_up(ET_TRAINING), True),
    Bar("B", "peak memory of the process, MB", "resnet20", 130, key("peak_rss", scale=1e-6)),
    *_row("peak memory of the process, ratio to PyTorch", (None, 0.4, 0.4, 0.4), key("peak_rss_ratio")),
    *_row("peak minus before-step memory, ratio to PyTorch", (0.5,) * 4, key("peak_minus_before_ratio")),
    Bar("B", "process start to first step, s", "resnet20", 0.5, key("start_s")),
    *_row("process start to first step, ratio to PyTorch", (None, 0.3, 0.3, 0.3), key("start_s_ratio")),
    Bar("B", "time of our ExecuTorch step, ratio to eager", "resnet20", 1.8, key("ratio", ("executorch",))),
    Bar("B", "time of our LiteRT step, ratio to eager", "resnet20", 1.8, key("ratio", ("litert",))),
)  # fmt: skip


def table(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The bars as a Markdown table, a column for each number of threads."""
    threads = sorted({cell["threads"] for cell in cells.values()})
    heads = [f"{count} thread{'s' * (count > 1)}" for count in threads]
    lines = [
        f"| stage | bar | model | limit | {' | '.join(heads)} |",
        "|---|---|---|---|" + "---|" * len(threads),
    ]
    for bar in BARS:
        found = []
        for count in threads:
            cell = cells.get(f"{MODELS[bar.model]}-t{count}")
            value = bar.figure(cell["rows"]) if cell else None
            found.append(
                "not measured"
                if value is None
                else f"{value:.3g} {'met' if bar.met(value) else '**not met**'}"
            )
        sign = "at least" if bar.least else "at most"
        lines.append(
            f"| {bar.stage} | {bar.title} | {bar.model} | {sign} {bar.limit:g} | {' | '.join(found)} |"
        )
    return lines
