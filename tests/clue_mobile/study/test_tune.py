"""The search: its objective, that it leaves the test images alone, that it goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from study_case import runs

from clue_mobile import methods, models
from clue_mobile.cli import main
from clue_mobile.data import Dataset, Split
from clue_mobile.errors import ClueError
from clue_mobile.study import cell, spaces, tune
from clue_mobile.study.demo import HYPERPARAMETERS
from clue_mobile.study.tasks import Cell, Setting, Task, data_identity, without_test
from clue_mobile.training import accuracy

SPEC = models.resolve_spec("digits_cnn")


class Sealed(Dataset):
    """A data set whose test images must not be looked at."""

    @property
    def test(self) -> Split:  # type: ignore[override]
        raise AssertionError("the test images were read")

    @test.setter
    def test(self, value: Split) -> None:
        """What the constructor was given is dropped."""


@pytest.mark.parametrize(("forget", "retain", "target", "value"), [
    (0, 90, 0, 0), (10, 90, 0, 5), (0, 80, 0, 5), (10, 80, 0, 10), (0, 95, 0, 0), (5, 88, 25, 11),
])  # fmt: skip
def test_objective(forget: float, retain: float, target: float, value: float) -> None:
    assert tune.objective(forget, retain, 90.0, target) == value


def test_a_trial_reads_no_test_image(digits_data: Dataset, digits_weights: Path) -> None:
    sealed = Sealed(**vars(digits_data))
    with pytest.raises(AssertionError):
        sealed.require("test")
    config = dataclasses.asdict(methods.configure("clue", HYPERPARAMETERS))
    identity = data_identity(sealed, SPEC, ("train", "validation"))
    for method in ("original", "clue"):
        one = Cell(method, "", config, "digits_cnn", 4, 0, 32, "w", identity)
        row = cell.run(Task("tune", one, 1, str(digits_weights)), SPEC, sealed)
        images = digits_data.validation
        assert set(row["validation"]) == {"forget", "retain"}
        assert "scores" not in row
        if method == "original":
            module = models.load(SPEC, digits_weights)
            right = accuracy(
                module, SPEC, images.images[images.labels == 4], images.labels[images.labels == 4]
            )
            assert row["validation"]["forget"] == pytest.approx(100 * right)
        else:
            assert row["validation"]["forget"] < 50
    assert len(without_test(sealed).test) == 0
    assert len(without_test(digits_data).test) == 0


def test_the_process_of_the_trials_has_no_test_image(place: Path) -> None:
    assert len(Setting(SPEC, "small.npz").load().test) == 80
    setting = Setting(SPEC, "small.npz", test=False)
    assert len(setting.load().test) == 0
    assert len(Setting.from_json(json.loads(json.dumps(setting.to_json()))).load().test) == 0


def test_spaces_name_fields_that_the_methods_take() -> None:
    for method in methods.METHODS:
        config = methods.get(method).Config
        names = {field.name for field in dataclasses.fields(config)}
        assert set(spaces.OWN.get(method, {})) <= names, method
        try:
            space = spaces.space(method)
        except ClueError:
            assert not spaces.tunable(method)
            assert method in ("original", "retrain") or names.isdisjoint(spaces.COMMON)
            continue
        for end in (0, -1):
            fields = {
                name: r.choices[end] if isinstance(r, spaces.OneOf) else r[end] for name, r in space.items()
            }
            methods.configure(method, {**spaces.fixed(method, {}), **fields})
    assert set(spaces.OWN) <= set(methods.METHODS)
    assert {"lr", "tau", "epochs", "batch_norm", "stop_accuracy"} <= set(spaces.space("clue"))
    assert spaces.fixed("clue", {"augment": "none", "lr": 1.0}) == {"stop_every": 1, "augment": "none"}


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs clue-mobile in this process."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clue-mobile", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def test_a_search_that_was_cut_off_ends_like_an_undisturbed_one(
    place: Path, digits_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    setting = Setting(SPEC, "small.npz")
    dataset = setting.load()
    search = tune.Search(setting, Path("cut"), "own.py", 4, digits_weights, {}, trials=4)
    real = tune._validation

    def cut(executor: Any, search: tune.Search, one: Cell) -> dict[str, Any]:
        if len(runs(place)) == 2 and one.method == "own.py":
            raise KeyboardInterrupt  # the trial has begun, and never ends
        return real(executor, search, one)

    monkeypatch.setattr(tune, "_validation", cut)
    with pytest.raises(KeyboardInterrupt):
        tune.run(search, dataset, on="here")
    monkeypatch.setattr(tune, "_validation", real)
    told: list[str] = []
    found = tune.run(search, Sealed(**vars(dataset)), lambda done, total, text: told.append(text), on="here")
    assert len(runs(place)) == 4  # the two that had ended were not repeated
    assert [text.split(":")[0] for text in told] == ["trial 3", "trial 4"]  # number 2 was lost
    undisturbed = tune.run(dataclasses.replace(search, folder=Path("whole")), dataset, on="here")
    assert len(runs(place)) == 8

    def drawn(of: tune.Found) -> list[Any]:
        return [(row["fields"], row["value"], row["state"]) for row in of.trials]

    assert drawn(found) == drawn(undisturbed)
    assert found.best == undisturbed.best
    rates = [row["fields"]["lr"] for row in found.trials]
    assert rates[0] == 0.1  # the first is the method's own default
    assert len(set(rates)) == 4
    more = tune.run(dataclasses.replace(search, trials=5), dataset, on="here")
    assert drawn(more)[:4] == drawn(found)
    other = tune.run(dataclasses.replace(search, trials=2, seed=1), dataset, on="here")
    assert [row["number"] for row in other.trials] == [0, 1]  # another search, in the same folder
    assert other.trials[1]["fields"] != found.trials[1]["fields"]


def test_trials_that_end_badly_are_pruned_and_the_best_is_written(
    place: Path, cli: Callable[..., tuple[int, str, str]], digits_weights: Path
) -> None:
    pytest.importorskip("optuna")
    Path("h.json").write_text('{"own.py": {"seconds": 60}}')
    words = ["tune", "--method", "own.py", "--forget", "4", "--weights", digits_weights, "--trials", "1",
             "--data", "small.npz", "--out", "out", "--batch", "8"]  # fmt: skip
    code, out, _ = cli(*words, "--hyperparameters", "h.json", "--trial-seconds", "6", "--json")
    assert code == 1
    (row,) = json.loads(out)["own.py"]["trials"]
    assert (row["state"], row["reason"]) == ("pruned", "it ran past its time limit")
    assert row["fields"]["seconds"] == 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(runs(place)[-1][-1]), 0)
    assert [path.name for path in Path("out").glob("*.json")] == ["own.trials.json"]

    setting = Setting(SPEC, "small.npz")
    search = tune.Search(setting, Path("out"), "own.py", 4, digits_weights, {"how": "refuse"}, trials=1)
    assert tune.run(search, setting.load(), on="here").trials[0]["reason"] == "this cannot be forgotten"
    found = tune.run(dataclasses.replace(search, given={}), setting.load(), on="here")
    written = tune.write(Path("out"), "own.py", 8, found)
    assert [path.name for path in written] == [
        "own.trials.json",
        "own.json",
        "hyperparameters.json",
        "own.png",
    ]
    assert found.best == {"lr": 0.1}
    assert json.loads(Path("out/own.json").read_text()) == found.best  # what `export --hyperparameters` reads
    assert json.loads(Path("out/hyperparameters.json").read_text()) == {"own.py": {"lr": 0.1, "batch": 8}}
    with Image.open("out/own.png") as picture:
        assert picture.width > 500
    # the original knows the class, so that a trial which changes nothing is as far off as it can be
    assert found.trials[0]["value"] == pytest.approx(found.original["forget"] / 2)


BAD = {
    "method": (["--method", "cleu"], "unknown method 'cleu': did you mean 'clue'"),
    "nothing": (["--method", "logit_mask"], "the method logit_mask has nothing to tune: margin"),
    "reference": (["--method", "clue, retrain"], "retrain is a reference or exact: there is nothing to tune"),
    "class": (["--forget", "ten"], "unknown class 'ten'"),
    "seconds": (["--trial-seconds", "0"], "--trial-seconds must be above 0"),
    "field": (["--set", "rate=1"], "unknown hyperparameter of clue 'rate'"),
    "no validation": (["--data", "without.npz", "--validation", "0"], "without.npz has no validation images"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    place: Path, cli: Callable[..., tuple[int, str, str]], digits_weights: Path, name: str
) -> None:
    images = np.load("small.npz")
    np.savez("without.npz", x=images["x_train"], y=images["y_train"])
    given, message = BAD[name]
    words = [
        "tune",
        "--forget",
        "4",
        "--weights",
        digits_weights,
        "--data",
        "small.npz",
        "--out",
        "out",
        *given,
    ]
    code, out, err = cli(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not Path("out").exists()


def test_optuna_that_is_missing(
    place: Path,
    cli: Callable[..., tuple[int, str, str]],
    digits_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = ["tune", "--forget", "4", "--weights", digits_weights, "--data", "small.npz", "--out", "out"]
    code, _, err = cli(*words)
    assert code == 2
    assert "pip install 'clue-mobile[study]'" in err
