"""The step benchmark: workers that take turns, losses that must agree, the arithmetic, the tables.

The peers of these tests are real processes that train a linear classifier in numpy; `test_the_real_rows`
(slow) has PyTorch and clue-mobile's own row on a small model.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bars
import environments
import figures
import installed
import measure
import numpy as np
import pool
import pytest
import render
import results
import step
import work

LINEAR = """
import time
import numpy as np

TITLE, PACKAGES, FOLDERS = "linear {name}", (), ("contract",)
MOMENTUM = {momentum}
OURS = "{ours}"
FLOPS = 1000


def setup(work):
    {before}
    x = work.array("x").reshape(work.batch, -1)
    onehot = work.array("onehot")
    w, v = np.zeros((x.shape[1], onehot.shape[1])), 0

    def step():
        nonlocal w, v
        z = x @ w
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log((p * onehot).sum(1)).mean()
        v = (0.9 if MOMENTUM else 0) * v + x.T @ (p - onehot) / len(x)
        w = w - {factor} * work.lr * v
        time.sleep({sleep})
        return loss

    return step


def versions():
    return dict(numpy=np.__version__)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work of 16 images, a folder for peers."""
    peers = tmp_path / "peers"
    peers.mkdir()
    monkeypatch.setenv("CLUE_STEP_PEERS", str(peers))
    for module in (work, measure):
        monkeypatch.setattr(module, "PEERS", peers)
    monkeypatch.setattr(measure, "TURN_LASTS_S", 0.02)
    folder = work.folder_of(tmp_path, "digits_cnn", 16, "cross-entropy")
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, 16)
    np.save(folder / "x.npy", draw.random((16, 1, 8, 8)).astype(np.float32))
    np.save(folder / "onehot.npy", np.eye(10, dtype=np.float32)[labels])
    work.Work("digits_cnn", 16, 1, "cross-entropy", folder, flops=2000).write()
    return tmp_path


def write_peer(
    place: Path,
    name: str,
    *,
    momentum: bool = True,
    factor: float = 1.0,
    sleep: float = 0.0,
    before: str = "pass",
    ours: str = "",
    more: str = "",
) -> work.Peer:
    text = LINEAR.format(name=name, momentum=momentum, factor=factor, sleep=sleep, before=before, ours=ours)
    (place / "peers" / f"{name}.py").write_text(text + more, encoding="utf-8")
    return work.peer(name)


def references(place: Path) -> list[work.Peer]:
    plain = write_peer(place, work.PLAIN, momentum=False)
    return [write_peer(place, work.EAGER), plain, write_peer(place, work.GEMM)]


def the_work(place: Path) -> work.Work:
    return work.Work.read(work.folder_of(place, "digits_cnn", 16, "cross-entropy"), 1)


def run(place: Path, peers: list[work.Peer], told: list[str] | None = None, **given: Any) -> dict[str, Any]:
    settings = measure.Settings(place, given.get("rounds", 2), 1, given.get("row_s", 60), 1 << 40)
    tell = (lambda text: None) if told is None else told.append
    return measure.measure(the_work(place), [*references(place), *peers], settings, tell)


# workers


def test_peers_take_turns_and_each_is_divided_by_eager_of_its_round(place: Path) -> None:
    told: list[str] = []
    rows = run(
        place, [write_peer(place, "slow", sleep=0.05), write_peer(place, "bare", momentum=False)], told
    )
    assert {row["status"] for row in rows.values()} == {"ok"}
    slow = rows["slow"]
    assert slow["losses"] == pytest.approx(rows["eager"]["losses"])
    assert slow["ms"] >= 50
    assert slow["rounds"] == 2
    shares = [a / b for a, b in zip(slow["wall_s"], slow["eager_wall_s"], strict=True)]
    assert slow["ratio"] == pytest.approx(np.median(shares), rel=1e-3)
    assert slow["ratio_plain"] is None
    assert rows["bare"]["ratio_plain"] > 0
    assert rows["bare"]["losses"] != pytest.approx(rows["eager"]["losses"])
    assert rows["eager"]["ratio"] == rows["eager"]["start_s_ratio"] == 1
    assert slow["peak_rss"] >= slow["before_step"] > 0
    assert slow["start_s"] > 0.05
    assert "VmHWM" in slow["memory_source"]
    size = sum(p.stat().st_size for p in (work.ROOT / "contract").rglob("*") if p.is_file())
    assert slow["installed_bytes"] == size
    shown = [line for line in told if line.startswith("round")]
    assert [line.split(",")[0] for line in shown] == ["round 1/2", "round 2/2"]
    names = [word for word in shown[0].partition(": ")[2].split() if not word.isdecimal()]
    assert names == ["eager", "eager_plain", "gemm", "slow", "bare"]


def test_rows_whose_losses_differ_are_wrong_and_have_no_ratio(place: Path) -> None:
    faults = {"half": 0.5, "still": 0.0, "backwards": -1.0}
    peers = [write_peer(place, name, factor=factor) for name, factor in faults.items()]
    liar = write_peer(place, "liar", more="\nMOMENTUM = False\n")  # it claims momentum and has none
    rows = run(place, [*peers, work.Peer(**{**vars(liar), "momentum": True})], rounds=1)
    for name in (*faults, "liar"):
        assert rows[name]["status"] == "wrong"
        assert "where PyTorch has" in rows[name]["reason"]
        assert len(rows[name]["losses"]) == 5
        assert "ratio" not in rows[name]
        assert "ms" not in rows[name]
    assert rows["eager"]["status"] == "ok"


FAILURES = {
    "bare": ("import no_such_framework", "not installed", "No module named 'no_such_framework'"),
    "raises": ("raise ValueError('two  words')", "failed", "ValueError: two words"),
    "dies": ("import os; os._exit(3)", "failed", "the process ended with 3: it said nothing"),
    "leaves": ("import sys; sys.exit('gone')", "failed", "the process ended with 1: gone"),
    "unable": (
        "from work import UnavailableError; raise UnavailableError('no such loss')",
        "not available",
        "no such loss",
    ),
}


def test_a_peer_that_fails_is_a_row_with_its_reason_and_breaks_no_other(place: Path) -> None:
    peers = [write_peer(place, name, before=failure[0]) for name, failure in FAILURES.items()]
    far = write_peer(place, "far", more="\nENVIRONMENT = 'mnn'\n")
    rows = run(place, [*peers, far, write_peer(place, "fine")], rounds=1)
    found = {name: (rows[name]["status"], rows[name]["reason"]) for name in FAILURES}
    assert found == {name: failure[1:] for name, failure in FAILURES.items()}
    assert rows["fine"]["status"] == "ok"
    assert rows["far"]["status"] == "not installed"
    assert "environments.py mnn" in rows["far"]["reason"]


def test_a_peer_that_dies_in_its_turn_keeps_no_figures(place: Path) -> None:
    more = """
_setup = setup


def setup(work):
    step, count = _setup(work), 0

    def dying():
        nonlocal count
        count += 1
        if count > 6:
            raise MemoryError("all gone")
        return step()

    return dying
"""
    row = run(place, [write_peer(place, "dying", more=more)])["dying"]
    assert (row["status"], row["reason"]) == ("failed", "MemoryError: all gone")
    assert "ms" not in row


def test_a_slow_row_sits_out_and_a_reference_never(place: Path) -> None:
    rows = run(place, [write_peer(place, "slow", sleep=0.05)], rounds=5, row_s=0.01)
    assert rows["slow"]["rounds"] == measure.FEWEST_ROUNDS
    assert rows["eager"]["rounds"] == 5


def test_a_reference_that_fails_ends_the_run(place: Path) -> None:
    peers = references(place)
    write_peer(place, work.EAGER, before="raise ValueError('no')")
    settings = measure.Settings(place, 1, 1, 60, 1 << 40)
    with pytest.raises(RuntimeError, match="eager, which others are compared with"):
        measure.measure(the_work(place), peers, settings, lambda text: None)


def test_an_answer_that_does_not_come_ends_the_worker(place: Path) -> None:
    peer = write_peer(place, "stuck", before="time.sleep(600)")
    process = pool.Process(place, peer, the_work(place), "turns")
    with pytest.raises(pool.RowError, match="no answer within"):
        process.answer(0.5)
    assert process.process.returncode is not None


def test_what_a_framework_prints_is_no_answer(place: Path) -> None:
    peer = write_peer(place, "loud", before="import os; print('hello'); os.system('echo from a child')")
    process = pool.Process(place, peer, the_work(place), "turns")
    try:
        assert process.answer(60) == {"ready": True}
        answer = process.ask(60, do="run", steps=3)
    finally:
        process.stop()
    assert {key: len(value) for key, value in answer.items()} == {"seconds": 3, "cpu": 3, "losses": 3}
    assert "from a child" in process.log.read_text()


def test_files_are_made_once_for_the_same_sources(place: Path) -> None:
    more = """

def export(work):
    with (work.place("maker") / "made.txt").open("a") as file:
        file.write("x")
"""
    peer = write_peer(place, "maker", more=more)
    made = the_work(place).place("maker") / "made.txt"
    for _ in range(2):
        measure.make_files(peer, the_work(place), place)
    assert made.read_text() == "x"
    write_peer(place, "maker", more=more + "# changed\n")
    measure.make_files(peer, the_work(place), place)
    assert made.read_text() == "xx"


def test_groups_hold_what_memory_allows_and_always_the_references() -> None:
    names = ["eager", "gemm", "a", "b", "c", "d"]
    memory = {"eager": 4, "a": 3, "b": 3, "c": 9, "d": 1}
    assert measure.grouped(names, memory, 10) == [
        ["eager", "gemm", "a", "b"],
        ["eager", "gemm", "c"],
        ["eager", "gemm", "d"],
    ]
    assert measure.grouped(["eager", "gemm"], memory, 1) == [["eager", "gemm"]]


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
    reference = [2.0, 1.8, 1.5, 1.1, 0.6]
    assert figures.disagreement([2.0, 1.81, 1.5, 1.1, 0.615], reference) is None
    assert (
        figures.disagreement([2.0, 1.8, 1.5, 1.1, 0.63], reference)
        == "loss 5 is 0.6300 where PyTorch has 0.6000"
    )
    assert figures.disagreement([2.0, 1.8, float("nan"), 1.1, 0.6], reference) is not None
    with pytest.raises(ValueError, match="nothing to compare"):
        figures.disagreement([2.0] * 5, [2.0, 2.01, 2.0, 1.99, 2.0])


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


def test_bars_are_read_from_the_fastest_of_our_rows() -> None:
    rows = {
        "ours_onnx": row(1.1, "onnx"),
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
    assert said("| B | time, ratio to eager NCHW | resnet20") == "1.1 **not met**"
    assert said("| B | speed-up over MNN | resnet20") == "3 met"
    assert said("| B | speed-up over onnxruntime-training | resnet20") == "not measured"
    assert said("| B | peak memory of the process, MB | resnet20") == "120 met"
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


def test_finished_rows_are_not_measured_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    references(place)
    for name in ("one", "two"):
        write_peer(place, name, ours="onnx")

    def go(*more: str) -> dict[str, Any]:
        base = ["--models", "digits_cnn:16", "--threads", "1", "--rounds", "1", "--starts", "1"]
        monkeypatch.setattr(
            "sys.argv", ["step.py", *base, "--cache", str(place), "--results", str(place / "r"), *more]
        )
        assert step.main() == 0
        return json.loads((place / "r" / "digits_cnn-b16-t1.json").read_text())

    first = go("--rows", "one")
    assert set(first["rows"]) == {"eager", "gemm", "one"}
    second = go()
    assert set(second["rows"]) == {"eager", "eager_plain", "gemm", "one", "two"}
    assert second["rows"]["one"] == first["rows"]["one"]
    capsys.readouterr()
    assert go() == second
    assert "digits_cnn-b16-t1: done" in capsys.readouterr().out
    again = go("--rows", "two", "--again")
    assert again["rows"]["one"] == first["rows"]["one"]
    assert again["rows"]["two"]["wall_s"] != second["rows"]["two"]["wall_s"]


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


def test_ctrl_c_keeps_what_is_finished(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references(place)
    done: list[str] = []

    def cell_of(options: Any, model: str, batch: int, threads: int) -> None:
        done.append(f"{model}-{threads}")
        if threads == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(step, "run_cell", cell_of)
    monkeypatch.setattr("sys.argv", ["step.py", "--models", "digits_cnn:16", "--results", str(place)])
    assert step.main() == 130
    assert done == ["digits_cnn-1", "digits_cnn-2"]


def test_workers_end_with_the_run(place: Path) -> None:
    pids: list[int] = []
    original = pool.Process.__init__

    def note(self: pool.Process, *args: Any, **more: Any) -> None:
        original(self, *args, **more)
        pids.append(self.process.pid)

    def stop(text: str) -> None:
        if text.startswith("round"):
            raise KeyboardInterrupt

    settings = measure.Settings(place, 2, 1, 60, 1 << 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.Process, "__init__", note)
        with pytest.raises(KeyboardInterrupt):
            measure.measure(the_work(place), references(place), settings, stop)
    assert len(pids) >= 6
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


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


# the real thing


@pytest.mark.full
def test_the_real_rows(tmp_path: Path) -> None:
    import prepare

    for loss in work.LOSSES:
        folder = prepare.make(tmp_path, "digits_cnn", 16, loss)
        small = work.Work.read(folder, 1)
        assert (small.parameters, small.flops > 1e7) == (24_058, True)
        settings = measure.Settings(tmp_path, 2, 1, 60, 1 << 40)
        peers = [work.peer(name) for name in ("eager", "gemm", "eager_channels_last", "ours_onnx")]
        rows = measure.measure(small, peers, settings, lambda text: None)
        assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(rows, "ok"), rows
        assert rows["ours_onnx"]["losses"] == pytest.approx(rows["eager"]["losses"], rel=1e-3)
        assert 0 < rows["ours_onnx"]["peak_rss_ratio"] < 1
