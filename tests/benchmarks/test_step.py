"""The step benchmark: workers that take turns, losses that must agree, runs that go on where they stopped.

The peers of these tests are real processes that train a linear classifier in numpy; `test_the_real_rows`
(slow) has PyTorch and clue-mobile's own row on a small model.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pool
import pytest
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
    return [
        write_peer(place, work.EAGER),
        plain,
        write_peer(place, work.LAYOUT),
        write_peer(place, work.GEMM),
    ]


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
    # seconds are kept to a microsecond, and the eager step of this model takes a few hundred of them
    assert slow["ratio"] == pytest.approx(np.median(shares), rel=1e-2)
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
    assert names == ["eager", "eager_plain", "eager_channels_last", "gemm", "slow", "bare"]


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


# runs


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
    assert set(first["rows"]) == {"eager", "eager_channels_last", "gemm", "one"}
    second = go()
    assert set(second["rows"]) == {"eager", "eager_plain", "eager_channels_last", "gemm", "one", "two"}
    assert second["rows"]["one"] == first["rows"]["one"]
    capsys.readouterr()
    assert go() == second
    assert "digits_cnn-b16-t1: done" in capsys.readouterr().out
    again = go("--rows", "two", "--again")
    assert again["rows"]["one"] == first["rows"]["one"]
    assert again["rows"]["two"] != second["rows"]["two"]


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


def test_flops_of_grouped_convolutions_and_attention() -> None:
    import prepare
    import torch

    x = torch.ones(2, 6, 8, 8, requires_grad=True)
    dense, grouped = (torch.nn.Conv2d(6, 12, 3, padding=1, groups=groups) for groups in (1, 6))
    product = 2 * (2 * 8 * 8) * (12 * 6 * 9)
    assert prepare.step_flops(lambda: dense(x).sum().backward()) == 3 * product
    assert prepare.step_flops(lambda: grouped(x).sum().backward()) == 3 * product // 6
    pixels = x.detach()  # no gradient for the input
    assert prepare.step_flops(lambda: grouped(pixels).sum().backward()) == 2 * product // 6
    q = torch.ones(2, 3, 5, 4, requires_grad=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert prepare.step_flops(lambda: attend(q, q, q).sum().backward()) == 6 * (2 * 2 * 3 * 5 * 5 * 4)


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
