"""A comparison through the command line: planned, killed, gone on with, and never repeated."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_case import runs

from clue_mobile.cli import main
from clue_mobile.study.results import Results
from clue_mobile.study.tasks import Cell

OUT = Path("out")
SEEDS = 8
WORDS = ["compare", "--data", "small.npz", "--classes", "3", "--seeds", str(SEEDS), "--out", str(OUT),
         "--training", "epochs=2", "--hyperparameters", "h.json", "--batch", "8"]  # fmt: skip
OWN = {
    "own.py": {"seconds": 0.3},
    "own.py:refuse": {"how": "refuse"},
    "own.py:other": {"lr": 0.5, "batch": 4},
}


def call(*words: object) -> int:
    sys.argv = ["clue-mobile", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs clue-mobile in this process: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", [])

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = call(*words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def started(*words: object) -> Any:
    """A process of its own that runs the command; forked, as PyTorch is imported already."""

    def child() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os._exit(call(*words))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def wait_for(done: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_killed_interrupted_and_gone_on_with(
    place: Path, cli: Callable[..., tuple[int, str, str]], digits_weights: Path
) -> None:
    Path("h.json").write_text(json.dumps({"own.py": OWN["own.py"]}))
    words = [*WORDS, "--weights", digits_weights, "--methods", "own.py"]
    code, out, _ = cli(*words, "--dry-run")
    assert code == 0
    assert f"{3 * SEEDS} of {3 * SEEDS} runs to do, 1 at once: no finished run to estimate from" in out
    assert not OUT.exists()

    killed = started(*words)
    wait_for(lambda: len(runs(place)) >= 3)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    wait_for(lambda: all(gone(int(process)) for *_, process in runs(place)))  # its cells end with it
    first = Results(OUT).rows()
    noted = len(runs(place))
    assert len(first) >= 2 * SEEDS + 2  # the references and what came before the kill
    assert {row["status"] for row in first} == {"done"}
    path = Results(OUT).path
    path.write_bytes(path.read_bytes() + b'{"key": "torn')  # as a kill in the middle of a line leaves it

    interrupted = started(*words)
    wait_for(lambda: len(runs(place)) >= noted + 2)
    os.kill(interrupted.pid, signal.SIGINT)
    interrupted.join()
    assert interrupted.exitcode == 130
    wait_for(lambda: all(gone(int(process)) for *_, process in runs(place)))
    second = Results(OUT).rows()
    assert second[: len(first)] == first
    assert len(first) < len(second) < 3 * SEEDS

    code, out, err = cli(*words, "--dry-run", "--json")
    plan = json.loads(out)
    assert plan["to_do"] == 3 * SEEDS - len(second)
    assert plan["seconds"] > 0
    code, out, err = cli(*words, "--json", "--on", "here")
    assert code == 0, err
    rows = Results(OUT).rows()
    assert rows[: len(second)] == second
    assert len(rows) == len({row["key"] for row in rows}) == 3 * SEEDS
    seeds = [seed for _, seed, *_ in runs(place)]
    assert set(seeds) == {str(seed) for seed in range(SEEDS)}
    assert len(seeds) <= SEEDS + 2  # only the two that were cut off ran twice
    (table,) = json.loads(out)["tables"]
    assert {line["method"]: line["runs"] for line in table["lines"]} == dict.fromkeys(
        ["original", "retrain", "own.py"], SEEDS
    )

    before = path.read_bytes()
    assert cli(*words, "--json")[:2] == (0, out)  # nothing is left to do, so nothing is done
    assert path.read_bytes() == before


def test_failed_runs_variants_and_other_hyperparameters(
    place: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    """The original is trained; a method that fails is told and does not stop the others."""
    Path("h.json").write_text(json.dumps({**OWN, "clue": {"epochs": 1, "lr": 0.01, "batch": 16}}))
    words = [*WORDS, "--methods", "logit_mask,own.py,own.py:refuse,own.py:other,clue"]
    words[words.index("--seeds") + 1] = "2"
    words[words.index("epochs=2")] = "epochs=20"
    words[words.index("--classes") + 1] = "3,0"
    code, out, err = cli(*words)
    assert code == 1  # every run of one method failed
    assert "own.py:refuse, class 0, seed 1: failed, this cannot be forgotten" in err
    assert "- Own (refuse): 2 of 2 runs failed: this cannot be forgotten" in out
    assert "- Own (refuse): 4 of 4 runs failed: this cannot be forgotten" in out
    assert "written to out: table.md, table.csv, table.tex, table.json, gaps.png, scatter.png" in out
    rows = Results(OUT).rows()
    assert len(rows) == 7 * 4
    assert [row["method"] for row in rows[:4]] == ["original"] * 4
    assert [row["method"] for row in rows[4:8]] == ["retrain"] * 4  # before what is measured against it
    assert len({row["weights"] for row in rows if row["method"] != "retrain"}) == 1  # one original, seed 0
    assert len(list((OUT / "weights").glob("*.safetensors"))) == 1 + 4
    assert {row["config"]["lr"] for row in rows if row["variant"] == "other"} == {0.5}
    assert {row["batch"] for row in rows if row["method"] == "clue"} == {16}
    by_method = {(row["method"], row["variant"]): row for row in rows if row["seed"] == 0}
    assert by_method["logit_mask", ""]["scores"]["ua"] == 0
    assert by_method["logit_mask", ""]["deep"]["relearn_steps"] == 0  # the class was only hidden
    assert by_method["retrain", ""]["scores"]["ua"] == 0
    assert by_method["own.py", ""]["scores"] == by_method["original", ""]["scores"]

    names = [path.name for path in OUT.iterdir()]
    tables = {name: (OUT / name).read_bytes() for name in names if name.startswith("table")}
    for name in tables:
        (OUT / name).unlink()
    code, again, err = cli("compare", "--report-only", "--out", OUT)
    assert (code, err) == (0, "")
    assert again == out
    assert {name: (OUT / name).read_bytes() for name in tables} == tables

    # another value is another run, the same ones are not repeated; failed ones only when it is asked for
    del OWN["own.py:other"]["batch"]
    Path("h.json").write_text(json.dumps({**OWN, "own.py": {"lr": 7.0}}))
    code, out, _ = cli(*words[:-1], "own.py,own.py:refuse", "--dry-run", "--json")
    states = {(c["method"], c["variant"], c["seed"]): c["state"] for c in json.loads(out)["cells"]}
    assert states["own.py", "", 0] == "to do"
    assert states["retrain", "", 0] == "done"
    Path("h.json").write_text(json.dumps(OWN))
    for more, state in ([], "failed"), (["--retry-failed"], "to do"):
        code, out, _ = cli(*words[:-1], "own.py,own.py:refuse", "--dry-run", "--json", *more)
        states = {(c["method"], c["variant"], c["seed"]): c["state"] for c in json.loads(out)["cells"]}
        assert (states["own.py", "", 0], states["own.py", "refuse", 0]) == ("done", state)
    Path("own.py").write_text(Path("own.py").read_text() + "# another method\n")
    code, out, _ = cli(*words[:-1], "own.py", "--dry-run")
    assert "own.py, class 3, seed 0: to do" in out


def test_some_images_of_the_class_or_ones_never_seen(
    place: Path, cli: Callable[..., tuple[int, str, str]], digits_weights: Path
) -> None:
    Path("h.json").write_text(json.dumps({"own.py": {}}))
    words = [*WORDS, "--weights", digits_weights, "--methods", "own.py", "--on", "here"]
    words[words.index("--seeds") + 1] = "1"
    assert cli(*words)[0] == 0
    whole = Results(OUT).rows()
    sets = ["--forget-images", "4,all", "--forget-from", "train,test"]
    code, out, err = cli(*words, *sets)
    assert code == 0
    assert "own.py, class 3 (4 test images), seed 0: UA" in err
    rows = Results(OUT).rows()
    assert rows[: len(whole)] == whole  # no reference, and not the whole class, ran again
    noted = [(row["forget_from"], row["forget_images"]) for row in rows[len(whole) :]]
    assert noted == [("train", 4), ("test", 4), ("test", None)]
    assert [int(images) for _, _, _, images, *_ in runs(place)] == [16, 4, 4, 8]
    assert "Own, 4 test images" in out
    assert "- Own, forgetting 4, all train images: none sufficed" in out
    assert (OUT / "amounts.png").exists()
    again = cli("compare", "--report-only", "--out", OUT)
    assert again[1] == out


def test_the_forget_set_of_a_cell(digits_data: Any) -> None:
    cell = Cell("ga", "", {"lr": 0.1}, "digits_cnn", 3, 0, 8, "w", "d")
    same = replace(cell, forget_from="train", forget_images=None)
    others = [replace(cell, forget_images=4), replace(cell, forget_from="test"), replace(cell, seed=1)]
    assert cell.key == same.key == "83726a0b814dd709"  # as before there was a choice
    assert len({cell.key, *(other.key for other in others)}) == 4
    assert len(cell.forget_set(digits_data)) == (digits_data.train.labels == 3).sum()
    some = others[0].forget_set(digits_data)
    assert some.labels.tolist() == [3] * 4
    drawn = replace(others[0], seed=1).forget_set(digits_data)
    assert (some.images != drawn.images).any()
    unseen = others[1].forget_set(digits_data)
    assert (unseen.images == digits_data.test.of_class(3).images).all()


def test_fewer_retained_images_are_measured(
    place: Path, cli: Callable[..., tuple[int, str, str]], digits_weights: Path
) -> None:
    Path("h.json").write_text("{}")
    words = [*WORDS, "--weights", digits_weights, "--methods", "logit_mask", "--on", "here"]
    words[words.index("--seeds") + 1] = "1"
    assert cli(*words)[0] == 0
    code, out, _ = cli(*words, "--retain-images", "20")
    assert code == 0
    assert "- RA and the attacks: 20 training images of the other classes, drawn once" in out
    rows = Results(OUT).rows()
    first, second = (
        rows[: len(rows) // 2],
        rows[len(rows) // 2 :],
    )  # nothing of the first is taken for the second
    assert [row["retain_images"] for row in second] == [20] * len(first)
    for whole, part in zip(first, second, strict=True):
        assert [whole["scores"][name] for name in ("ua", "ta")] == [
            part["scores"][name] for name in ("ua", "ta")
        ]
        assert round(part["scores"]["ra"] / 5, 6) % 1 == 0  # a share of twenty
    assert cli("compare", "--report-only", "--out", OUT)[1] == out


def test_the_images_that_a_cell_is_measured_on(digits_data: Any) -> None:
    cell = Cell("ga", "", {"lr": 0.1}, "digits_cnn", 3, 0, 8, "w", "d")
    assert cell.measured_on(digits_data) is digits_data
    some = replace(cell, retain_images=20)
    assert some.key != cell.key
    part = some.measured_on(digits_data)
    counts = [(part.train.labels == 3).sum(), (part.train.labels != 3).sum()]
    assert counts == [(digits_data.train.labels == 3).sum(), 20]
    again = replace(some, seed=1).measured_on(digits_data)
    assert (part.train.images == again.train.images).all()
    assert part.test is digits_data.test


BAD = {
    "method": (["--methods", "cleu"], "unknown method 'cleu': did you mean 'clue'? Choices: "),
    "file": (["--methods", "no.py"], "no file no.py to take a method from"),
    "no method": (["--methods", "bad.py"], "bad.py is no method: it lacks TITLE, SOURCE"),
    "class": (["--classes", "ten"], "unknown class 'ten'"),
    "data": (["--data", "no.npz"], "no data source 'no.npz'"),
    "no test": (["--data", "train.npz"], "train.npz has no test images"),
    "weights": (["--weights", "no.safetensors"], "no weights file at no.safetensors"),
    "retrained": (["--retrained", "no.safetensors"], "cannot read no.safetensors: No such file"),
    "which retrained": (["--retrained", "x.pt", "--classes", "0,1"], "with several classes write CLASS=PATH"),
    "training": (["--training", "epoch=3"], "unknown setting of the training 'epoch': did you mean 'epochs'"),
    "training value": (["--training", "epochs=0"], "epochs must be at least 1"),
    "training type": (["--training", "epochs=many"], "the training's settings do not fit"),
    "json": (["--hyperparameters", "own.py"], "own.py is not valid JSON"),
    "no json": (["--hyperparameters", "no.json"], "cannot read no.json: No such file"),
    "form": (["--hyperparameters", "form.json"], 'must hold hyperparameters by method, such as {"clue"'),
    "named": (["--hyperparameters", "named.json"], "unknown method of the hyperparameters 'cleu'"),
    "field": (["--hyperparameters", "field.json"], "unknown hyperparameter of clue 'rate'"),
    "batch": (["--hyperparameters", "batch.json"], "the batch of clue must be a whole number"),
    "on": (["--on", "moon"], "--on must be processes, ray, ray:ADDRESS or here, not 'moon'"),
    "seconds": (["--cell-seconds", "0"], "--cell-seconds must be above 0, not 0.0"),
    "too many": (["--forget-images", "4,17"], "--forget-images 17: class 0 has 16 train images; give"),
    "no number": (["--forget-images", "few"], "numbers above 0 or all, such as 10,50,all, not 'few'"),
    "zero": (["--forget-images", "0"], "numbers above 0 or all, such as 10,50,all, not '0'"),
    "retained": (["--retain-images", "9,all"], "--retain-images must be a number above 0 or all, not"),
    "too many retained": (["--retain-images", "9999"], "the classes other than 0 have"),
    "from": (["--forget-from", "photos"], "unknown source of forget images 'photos'"),
    "report": (["--report-only"], "there are no results in out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(place: Path, cli: Callable[..., tuple[int, str, str]], name: str) -> None:
    import numpy as np

    for file, content in {
        "form.json": "[1]", "named.json": '{"cleu": {}}', "field.json": '{"clue": {"rate": 1}}',
        "batch.json": '{"clue": {"batch": 0}}', "bad.py": "x = 1",
    }.items():  # fmt: skip
        Path(file).write_text(content)
    images = np.load("small.npz")
    np.savez("train.npz", x=images["x_train"], y=images["y_train"])
    before = sorted(place.rglob("*"))
    given, message = BAD[name]
    code, out, err = cli("compare", "--data", "small.npz", "--methods", "clue", "--out", OUT, *given)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("clue-mobile: ")
    assert message in err
    made = [path for path in sorted(place.rglob("*")) if path not in before and path.name != "__pycache__"]
    assert [path for path in made if path.suffix != ".pyc"] in (
        [],
        [place / OUT, place / OUT / "results.jsonl"],
    )
    assert not Results(OUT).rows()
