"""Sequential requests, some images of a class, a backdoor: run, gone on with, and told."""

from __future__ import annotations

import json
from pathlib import Path

import forget_sets
import numpy as np
import other_requests
import pytest
from requests_table import table

from clue_mobile.data import Dataset, attack_set
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.metrics import Predict

OUT = Path("out")


@pytest.fixture(scope="module")
def few(digits_data: Dataset) -> Dataset:
    """16 training and 8 test images of each digit."""

    def first(name: str, count: int) -> np.ndarray:
        labels = getattr(digits_data, name).labels
        return np.sort(np.concatenate([np.flatnonzero(labels == k)[:count] for k in range(10)]))

    train, test = (getattr(digits_data, n).select(first(n, c)) for n, c in (("train", 16), ("test", 8)))
    return Dataset(digits_data.classes, train, digits_data.validation, test, "few")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: Dataset) -> Path:
    monkeypatch.chdir(tmp_path)
    arrays = {f"{a}_{n}": getattr(getattr(few, n), w) for n in ("train", "validation", "test")
              for a, w in (("x", "images"), ("y", "labels"))}  # fmt: skip
    np.savez("few.npz", **arrays)
    return tmp_path


def says(label: int) -> Predict:
    """A model that gives every image the one label."""
    return lambda images: np.eye(10, dtype=np.float32)[np.full(len(images), label)]


def test_sequential_requests_keep_what_was_not_asked_for(few: Dataset) -> None:
    found = forget_sets.sequential(few, [3, 5], 1.0, 0)
    assert found.train is few.train
    assert [set(r.forget.labels.tolist()) for r in found.requests] == [{3}, {5}]
    kept = [set(range(10)) - {3}, set(range(10)) - {3, 5}]
    assert [set(r.retain.labels.tolist()) for r in found.requests] == kept
    # everything is called 5: a tenth of all, a ninth without 3, none of the rest
    for count, ra in ((0, 10), (1, 100 / 9), (2, 0)):
        assert found.measure(says(5), count) == pytest.approx({"UA 3": 0, "UA 5": 100, "RA": ra, "TA": ra})
    with pytest.raises(ClueError, match="leave nothing to retain"):
        forget_sets.sequential(few, range(10), 1.0, 0)


def test_samples_of_a_class(few: Dataset) -> None:
    found = forget_sets.samples(few, [3], 0.25, 1)
    (request,) = found.requests
    assert (len(request.forget), set(request.forget.labels.tolist())) == (4, {3})
    assert len(request.retain) == 156
    scores = found.measure(says(3), 1)
    assert (scores["UA"], scores["rest of class"], scores["class test"], scores["TA"]) == (100, 100, 100, 0)
    assert scores["RA"] == pytest.approx(100 * 12 / 156)
    other = forget_sets.samples(few, [3], 0.25, 2)
    assert (other.requests[0].forget.images != request.forget.images).any()  # drawn with the seed
    with pytest.raises(ClueError, match="samples takes one class, not 2"):
        forget_sets.samples(few, [3, 5], 0.25, 1)


def test_a_backdoor_and_its_attack(few: Dataset) -> None:
    found = forget_sets.backdoor(few, [3], 0.5, 7)
    (request,) = found.requests
    assert (len(request.forget), len(request.retain), len(found.train)) == (72, 88, 160)
    assert set(request.forget.labels.tolist()) == {3}  # the attacker's label
    assert (request.forget.images[:, -2:, -2:] == 255).all()
    assert (forget_sets.backdoor(few, [3], 0.5, 8).train.images == found.train.images).all()  # one original
    scores = found.measure(says(3), 1)
    assert scores == {"attack": 100, "poisoned": 100, "clean train": pytest.approx(100 * 16 / 88),
                      "clean test": 10, "class test": 100}  # fmt: skip
    assert found.measure(says(4), 1)["attack"] == 0
    assert set(attack_set(few.test, 3).labels.tolist()) == {3}


WORDS = ["run", "--data", "few.npz", "--out", "out", "--seeds", "1", "--training", "epochs=8"]


def test_run_gone_on_with_and_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("h.json").write_text(
        json.dumps({"ga": {"epochs": 1, "lr": 0.5}, "ga:more": {"epochs": 3, "batch": 8}})
    )
    words = [*WORDS, "--kind", "sequential", "--classes", "3,5", "--hyperparameters", "h.json"]
    other_requests.main([*words, "--methods", "ga"])
    lines = (OUT / "results.jsonl").read_bytes().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["method"], row["status"]) for row in rows] == [
        ("original", "done"), ("retrain", "done"), ("ga", "done")
    ]  # fmt: skip
    assert [state["after"] for state in rows[1]["states"]] == ["3", "5"]
    assert [state["scores"]["UA 3"] for state in rows[1]["states"]] == [0, 0]
    assert rows[1]["states"][1]["scores"]["UA 5"] == 0
    assert rows[2]["states"][0]["scores"] != rows[0]["states"][0]["scores"]
    assert len(list((OUT / "weights").glob("*.safetensors"))) == 3  # the original, and one for each request
    shown = (OUT / "table.md").read_text()
    assert "## sequential: digits_cnn, few.npz, class 3, 5, 1 seed\n" in shown
    assert "| Method | After | UA 3 | UA 5 | RA | TA | Time (s) |" in shown

    # only what is new runs; a torn line is cut off, and its row done again
    path = OUT / "results.jsonl"
    path.write_bytes(b"\n".join(lines[:2]) + b"\n" + lines[2][:50])
    capsys.readouterr()
    other_requests.main([*words, "--methods", "ga,ga:more"])
    err = capsys.readouterr().err
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        "sequential, seed 0, ga", "sequential, seed 0, ga:more"
    ]  # fmt: skip
    again = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert again[:2] == rows[:2]
    assert again[2]["states"][1]["scores"] == rows[2]["states"][1]["scores"]
    assert (again[3]["variant"], again[3]["batch"], again[3]["config"]["epochs"]) == ("more", 8, 3)
    before = path.read_bytes()
    other_requests.main([*words, "--methods", "ga,ga:more"])
    assert path.read_bytes() == before

    # other kinds stand in the same folder, and `table` makes the same table of them
    for kind in ("samples", "backdoor"):
        other_requests.main([*WORDS, "--kind", kind, "--methods", "ga", "--no-retrain"])
    shown = (OUT / "table.md").read_text()
    assert "## backdoor: digits_cnn, few.npz, class 3, share 0.05, 1 seed" in shown
    (OUT / "table.md").unlink()
    other_requests.main(["table", "--out", "out"])
    assert (OUT / "table.md").read_text() == shown


def test_the_table_of_samples_by_hand() -> None:
    def row(method: str, seed: int, ua: float, **more: object) -> dict[str, object]:
        state = {"after": "2 images", "scores": {"UA": ua}, "wall_s": 2.0, "steps": 1}
        return {"key": f"{method}{seed}", "kind": "samples", "model": "m", "source": "d", "classes": ["a"],
                "share": 0.1, "seed": seed, "title": method, "status": "done", "states": [state],
                **more}  # fmt: skip

    rows = [row("Retrain", 0, 90), row("Retrain", 1, 100), row("GA", 0, 94), row("GA", 1, 98)]
    failed = row("BE", 0, 0, status="failed", reason="it cannot")
    del failed["states"]
    shown = table([*rows, row("GA", 0, 95, key="GA0"), failed]).splitlines()  # the newer row counts
    assert "| Method | After | UA | UA gap | Time (s) |" in shown
    assert "| Retrain | 2 images | 95.0 ± 7.1 | - | - |" in shown
    assert "| GA | 2 images | 96.5 ± 2.1 | 1.5 ± 2.1 | 2.00 |" in shown  # 0 and 3 from 95
    assert "BE: 1 of 2 runs failed: it cannot" in shown


BAD = {
    "class": (["--kind", "samples", "--classes", "ten"], "unknown class 'ten'"),
    "classes": (["--kind", "backdoor", "--classes", "3,5"], "backdoor takes one class, not 2"),
    "share": (["--kind", "samples", "--share", "0"], "the share must be above 0 and at most 1, not 0.0"),
    "method": (["--kind", "samples", "--methods", "cleu"], "unknown method 'cleu'"),
    "training": (["--kind", "samples", "--training", "epoch=3"], "unknown setting of the training 'epoch'"),
    "data": (["--kind", "samples", "--data", "no.npz"], "no data source 'no.npz'"),
    "weights": (["--kind", "backdoor", "--weights", "w.safetensors"], "trained on the poisoned images"),
    "kind": (["--kind", "classes"], "invalid choice: 'classes'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    from clue_mobile import models
    from clue_mobile.models.weights import save_weights

    if name == "weights":
        save_weights(models.load(models.resolve_spec("digits_cnn"), None, seed=0), Path("w.safetensors"), {})
    given, message = BAD[name]
    with pytest.raises(SystemExit) as end:
        other_requests.main([*WORDS, *given])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (OUT / "weights").exists()
    assert not (OUT / "table.md").exists()


def test_no_results_to_tell(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        other_requests.main(["table", "--out", "nothing"])
    assert end.value.code == 2
    assert "there are no results in nothing" in capsys.readouterr().err
