"""Tasks in processes of their own: what they answer, however they end."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from study_case import runs

from clue_mobile import models
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.study import executors, server
from clue_mobile.study.tasks import Cell, Setting, Task

SPEC = models.resolve_spec("digits_cnn")
SETTING = Setting(SPEC, "small.npz")
ROOT = Path(__file__).parents[3]


def task(weights: Path, how: str, seconds: float = 0.0) -> Task:
    config = {"how": how, "seconds": seconds, "lr": 0.1}
    cell = Cell("own.py", how, config, "digits_cnn", 3, 0, 8, "w", "d")
    return Task("compare", cell, 1, str(weights), original_accuracy=90.0)


REASONS = {
    "raise": "ValueError: as told",
    "refuse": "this cannot be forgotten",
    "die": "its process was ended by SIGKILL, maybe for want of memory",
    "exit": "its process ended with exit code 3",
    "nan": "the model's logits are not all finite: its weights have diverged",
    "late": "it ran past its time limit",
}


def check(outcomes: dict[str, executors.Outcome]) -> None:
    row = outcomes["well"]["row"]
    assert row["density"] == 0.5
    assert row["steps"] == 2
    assert row["threads"] == 1
    assert row["scores"]["forget_test"] == row["deep"]["forget_test"] > 50
    assert row["peak_mib"] >= row["start_mib"] > 50
    assert 0 <= row["wall_s"] < row["total_s"]
    assert {how: outcomes[how]["reason"] for how in REASONS} == REASONS
    assert "own.py" in outcomes["raise"]["traceback"]
    assert "traceback" not in outcomes["refuse"]
    assert outcomes["late"]["late"] is True


def test_each_end_of_a_process_is_told(place: Path, digits_weights: Path) -> None:
    tasks = [task(digits_weights, how, 100.0 if how == "late" else 0.0) for how in (*REASONS, "well")]
    with executors.Processes(SETTING, 2, 1) as executor:
        found = {done.cell.variant: outcome for done, outcome in executor.run(tasks, seconds=8.0)}
        again = list(executor.run(tasks[1:2]))  # it serves on
    check(found)
    assert again[0][1]["reason"] == REASONS["refuse"]
    noted = runs(place)
    assert len({process for *_, process in noted}) == len(noted) == 8  # each in one of its own
    assert str(os.getpid()) not in {process for *_, process in noted}
    assert [each[2:5] for each in noted] == [["8", "16", "144"]] * 8  # batch, forget and retain images
    for *_, process in noted:  # none is left, not even the late one
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_a_limit_is_of_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, idle = "while True: pass", "import time; time.sleep(100)"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in (busy, idle, idle)]
    try:
        children = [server._Child(n, p.pid, -1, p.wait, 1.0, 1) for n, p in enumerate(processes)]
        children[2].seconds = 0.25  # and four times that of any time
        while (children[0].left() or 0) > 0:
            time.sleep(0.05)
        while (children[2].left() or 0) > 0:
            time.sleep(0.05)
        assert time.monotonic() - children[2].began >= 1.0
        assert 0.5 < (children[1].left() or 0) <= 1.0 or time.monotonic() - children[1].began > 3.0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    monkeypatch.setattr(server, "_processor_seconds", lambda pid: None)
    assert (children[1].left() or 0) == pytest.approx(1.0 + children[1].began - time.monotonic(), abs=0.5)


def test_images_that_cannot_be_loaded(place: Path) -> None:
    Path("small.npz").write_bytes(b"x")
    with (
        executors.Processes(SETTING, 1, 1) as executor,
        pytest.raises(ClueError, match="cannot read the arrays"),
    ):
        list(executor.run([task(Path("w"), "well")]))


def test_a_server_that_dies_is_told(place: Path, digits_weights: Path) -> None:
    with executors.Processes(SETTING, 1, 1) as executor:
        executor._server.kill()
        with pytest.raises(ClueError, match="the process that runs the cells ended with exit code -9"):
            list(executor.run([task(digits_weights, "well")]))


def test_an_unknown_place(digits_data: Dataset) -> None:
    with pytest.raises(ClueError, match="--on must be processes, ray, ray:ADDRESS or here, not 'moon'"):
        executors.start("moon", SETTING, digits_data, 1, 1)


def test_ray_that_is_missing(digits_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClueError, match=r"pip install 'clue-mobile\[ray\]'"):
        executors.start("ray", SETTING, digits_data, 1, 1)


@pytest.mark.full
def test_where_a_fork_is_not_safe(place: Path, digits_weights: Path) -> None:
    """The server as on macOS: a fresh interpreter for each task."""
    code = "from clue_mobile.study import server; server.FORKS = False; server.main()"
    lines = [SETTING.to_json()]
    lines += [
        {"id": number, "seconds": 60.0, "task": task(digits_weights, how).to_json()}
        for number, how in enumerate(("well", "refuse"))
    ]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for line in lines:
            process.stdin.write(json.dumps(line).encode() + b"\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdin.close()
    assert answers[0] == {"ready": True}
    by_id = {answer["id"]: answer for answer in answers[1:]}
    assert by_id[0]["row"]["density"] == 0.5
    assert by_id[1]["reason"] == REASONS["refuse"]
    assert len(runs(place)) == 2


@pytest.mark.full
def test_ray_gives_the_same_outcomes(place: Path, digits_weights: Path) -> None:
    pytest.importorskip("ray")
    own = str(place / "own.py")  # a worker has a folder of its own
    tasks = [task(digits_weights, how, 200.0 if how == "late" else 0.0) for how in (*REASONS, "well")]
    tasks = [dataclasses.replace(t, cell=dataclasses.replace(t.cell, method=own)) for t in tasks]
    training = {"epochs": 1, "batch": 64, "augment": "none", "precision": "float32"}
    retrain = Cell("retrain", "", training, "digits_cnn", 3, 0, 0, "-", "d")
    save = place / "weights" / "r.safetensors"
    tasks.append(Task("compare", retrain, 1, save=str(save), original_accuracy=90.0))
    with executors.start("ray", SETTING, SETTING.load(), 2, 1) as executor:
        found = {d.cell.variant or d.cell.method: o for d, o in executor.run(tasks, seconds=150.0)}
    assert found.pop("retrain")["row"]["scores"]["ua"] < 20  # one epoch: not seen, not yet ruled out
    assert models.load(SPEC, save)  # the weights came back
    for how in ("die", "exit"):
        assert found[how].pop("reason").startswith("Ray: ")
        found[how]["reason"] = REASONS[how]
    check(found)


def test_answers_of_a_task_in_this_process(place: Path, digits_weights: Path) -> None:
    found = {
        how: server.answered(task(digits_weights, how), SETTING, SETTING.load()) for how in ("well", "raise")
    }
    assert found["well"]["row"]["steps"] == 2
    assert found["raise"]["reason"] == REASONS["raise"]
