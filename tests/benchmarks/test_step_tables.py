"""The step benchmark's arithmetic, its bars and tables, its options, what each peer states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bars
import environments
import figures
import installed
import pytest
import render
import results
import step
import work

# arithmetic


def test_ratios_are_medians_over_the_rounds_that_have_both() -> None:
    rounds = [{"a": 2.0, "e": 1.0}, {"a": 9.0, "e": 3.0}, {"a": 8.0, "e": 2.0}, {"e": 5.0}]
    assert figures.ratio(rounds, "a", "e") == 3
    assert figures.median(rounds, "a") == 8
    assert figures.ratio(rounds, "b", "e") is None
    row = figures.row(
        "a", rounds, rounds, flops=4e9, gemm_flops=1e9, eager="e", plain=None, gemm="e"
    )  # fmt: skip
    assert (row["ms"], row["ratio"], row["gflops"]) == (8000, 3, 0.5)
    assert row["of_gemm_peak"] == pytest.approx(4 / 3)


def test_losses_agree_within_a_hundredth_of_the_first() -> None:
    reference, equal = [2.0, 1.8, 1.5, 1.1, 0.6], [0.0] * 5
    assert figures.disagreement([2.0, 1.81, 1.5, 1.1, 0.615], reference, equal) is None
    assert (
        figures.disagreement([2.0, 1.8, 1.5, 1.1, 0.63], reference, equal)
        == "loss 5 is 0.6300 where PyTorch has 0.6000"
    )
    assert figures.disagreement([2.0, 1.8, float("nan"), 1.1, 0.6], reference, equal) is not None
    with pytest.raises(ValueError, match="nothing to compare"):
        figures.disagreement([2.0] * 5, [2.0, 2.01, 2.0, 1.99, 2.0], equal)


def test_where_rounding_drives_losses_apart_twice_as_far_is_allowed() -> None:
    reference = [2.0, 1.8, 1.5, 1.1, 0.6]
    rounding = figures.spread([2.0, 1.8, 1.54, 1.09, 0.6], reference)
    assert rounding == pytest.approx([0, 0, 0.04, 0.04, 0.04])
    assert figures.disagreement([2.0, 1.8, 1.5, 1.1, 0.67], reference, rounding) is None
    for number, losses in ((2, [2.0, 1.83, 1.5, 1.1, 0.6]), (5, [2.0, 1.8, 1.5, 1.1, 0.69])):
        found = figures.disagreement(losses, reference, rounding)
        assert found is not None
        assert found.startswith(f"loss {number} ")
    still = figures.disagreement([2.0] * 5, reference, [0, 1, 1, 1, 1])  # whatever rounding does
    assert still is not None


def test_starts_are_medians_with_ratios_of_the_same_round() -> None:
    def answer(seconds: float, peak: int) -> dict[str, Any]:
        keys = ("peak_rss", "before_step", "peak_minus_before")
        return {"start_s": seconds, "start_cpu_s": 1.0, "memory_source": "s", **dict.fromkeys(keys, peak)}

    rounds = [{"e": answer(4, 10), "a": answer(1, 5)}, {"e": answer(2, 10), "a": answer(1, 6)}]
    found = figures.start(rounds, "a", "e")
    assert (found["start_s"], found["start_s_ratio"], found["peak_rss_ratio"]) == (1, 0.375, 0.55)


# results, tables, options


def row(ratio: float, ours: str = "", **more: Any) -> dict[str, Any]:
    plain = {
        "title": f"row {ratio}",
        "ours": ours,
        "momentum": True,
        "note": "",
        "status": "ok",
        "losses": [2.0] * 5,
    }
    time = {
        "ms": 100 * ratio,
        "cpu_ms": 1,
        "ratio": ratio,
        "cpu_ratio": ratio,
        "gflops": 7.0,
        "of_gemm_peak": 0.25,
    }
    start = {"start_s": 0.4, "start_s_ratio": 0.2, "peak_rss": 120e6, "peak_rss_ratio": 0.2}
    rest = {
        "peak_minus_before": 3e7,
        "peak_minus_before_ratio": 0.6,
        "installed_bytes": 2e8,
        "versions": {"v": "1"},
    }
    return {**plain, **time, **start, **rest, "others_busy": 0.5, **more}


def cell(**rows: Any) -> dict[str, Any]:
    machine = {"cpu": "CPU", "cpus": 2, "instructions": ["avx2"]}
    facts = {"title": "ResNet-20, 32x32", "batch": 32, "threads": 1, "loss": "cross-entropy", "lr": 0.05}
    return {**facts, "parameters": 269722, "gflop": 7.76, "machine": machine, "commit": "abc", "rows": rows}


def test_bars_are_read_from_the_fastest_of_our_rows_and_stage_a_from_stock_operators() -> None:
    rows = {
        "ours_onnx": row(1.1, "onnx"),
        "ours_onnx_clue": row(0.6, "onnx-clue", peak_rss=140e6),
        "ours_litert": row(2.0, "litert"),
        "mnn": row(3.3),
        "ort_training": {"status": "wrong", "ours": ""},
    }
    lines = bars.table({"resnet20-b32-t1": cell(**rows)})
    assert len(lines) == 2 + len(bars.BARS)

    def said(start: str) -> str:
        (line,) = [line for line in lines if line.startswith(start)]
        return line.split("|")[5].strip()

    assert said("| A | time, ratio to eager NCHW | resnet20") == "1.1 met"
    assert said("| B | time, ratio to eager NCHW | resnet20") == "0.6 met"
    assert said("| B | speed-up over MNN | resnet20") == "5.5 met"
    assert said("| B | speed-up over onnxruntime-training | resnet20") == "not measured"
    assert said("| B | peak memory of the process, MB | resnet20") == "140 **not met**"
    assert said("| B | peak minus before-step memory, ratio to PyTorch | resnet20") == "0.6 **not met**"
    assert said("| B | time of our LiteRT step, ratio to eager") == "2 **not met**"
    assert said("| B | time of our ExecuTorch step, ratio to eager") == "not measured"
    assert said("| B | time, ratio to eager NCHW | vit_ti_16") == "not measured"


def test_every_bar_of_the_issue_is_there() -> None:
    limits = {(b.stage, b.title, b.model): b.limit for b in bars.BARS}
    assert len(limits) == len(bars.BARS) == 32
    assert limits["A", "time, ratio to eager NCHW", "resnet20"] == 1.2
    assert limits["B", "speed-up over ExecuTorch's own training", "resnet18"] == 50


def test_the_document_shows_figures_and_what_did_not_run() -> None:
    gone = {"title": "gone", "status": "not installed", "reason": "no wheel", "losses": [], "versions": {}}
    wrong = {
        "title": "wrong",
        "status": "wrong",
        "reason": "loss 2 is 9",
        "losses": [2.0, 9.0],
        "versions": {},
    }
    bare = row(1.3, momentum=False, ratio_plain=1.25)
    text = render.document({"resnet20-b32-t1": cell(fast=row(0.5), bare=bare, gone=gone, wrong=wrong)})
    lines = text.splitlines()
    fast = "| row 0.5 | 50.0 | 0.50 (0.50) | 7.0 | 25% | 120 (0.20) | 30 (0.60) | 0.40 (0.20) | 200 |"
    slow = "| row 1.3 ¹ | 130 | 1.30 (1.30), 1.25¹ | 7.0 | 25% | 120 (0.20) | 30 (0.60) | 0.40 (0.20) | 200 |"
    assert lines.index(fast) + 1 == lines.index(slow)
    assert "gone (`gone`): **not installed**: no wheel." in lines
    assert "wrong (`wrong`): **wrong**: loss 2 is 9." in lines
    assert "  2.0000   9.0000  wrong   wrong" in lines
    assert "Other programs used 50% to 50% of the processors meanwhile" in text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--models", "resnet21:32"], "MODEL:BATCH with a model of resnet20"),
        (["--models", "resnet20"], "as resnet20:32"),
        (["--rows", "nothing"], "--rows nothing: unknown, choose from eager"),
        (["--rounds", "0"], "--rounds must be above 0"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        step.parsed(given)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_every_peer_states_what_the_table_needs() -> None:
    for name in work.peer_names():
        stated = work.peer(name)
        assert stated.title
        assert stated.environment in ("clue", *environments.ENVIRONMENTS)
        assert set(stated.losses) <= set(work.LOSSES)
        assert stated.packages
        module = work.module_of(name)
        assert callable(module.setup)
        assert callable(module.versions)
    assert {work.peer(n).ours for n in work.peer_names()} >= {"onnx", "litert", "executorch"}


def test_installed_bytes_follow_requirements_and_extras() -> None:
    assert {"onnx", "numpy", "protobuf"} <= set(installed.closure(("onnx",)))
    assert "pytest" not in installed.closure(("onnx",))
    with pytest.raises(ModuleNotFoundError, match="no-such-package is not installed"):
        installed.closure(("no-such-package",))


def test_results_are_written_whole(tmp_path: Path) -> None:
    assert results.read(tmp_path, "a") == {"rows": {}}
    results.write(tmp_path, "a", {"rows": {"x": 1}})
    assert results.read_all(tmp_path) == {"a": {"rows": {"x": 1}}}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert results.machine()["cpus"] > 0
    assert results.cell_name("resnet20", 32, 1, "clue") == "resnet20-b32-t1-clue"
