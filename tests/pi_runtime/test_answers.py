from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toy

from pi_runtime import ClueError, Runtime
from pi_runtime.answers import Answer, answers
from pi_runtime.cli import main

LOGITS = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]], np.float32)
NAMES = ("cat", "dog", "owl")


def test_a_forgotten_class_is_told_hidden_or_rejected() -> None:
    odds = np.exp(LOGITS[0].astype(np.float64))
    told = answers(LOGITS, NAMES, {0})
    assert told[0] == Answer(0, "cat", pytest.approx(odds[0] / odds.sum()), True)
    hidden = answers(LOGITS, NAMES, {0}, "hide")
    assert hidden[0] == Answer(2, "owl", pytest.approx(odds[2] / (odds[1] + odds[2])), False)
    assert answers(LOGITS, NAMES, {0}, "reject")[0] == Answer(None, None, None, True)
    for choice in ("tell", "hide", "reject"):
        assert answers(LOGITS, NAMES, {0}, choice)[1].name == "dog"
        assert answers(LOGITS, NAMES, set(), choice)[0].name == "cat"
        assert answers(LOGITS[:0], NAMES, {0}, choice) == []


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(ClueError, match="tell"):
        answers(LOGITS, NAMES, {0}, "lie")
    with pytest.raises(ClueError, match="every class was forgotten"):
        answers(LOGITS, NAMES, {0, 1, 2}, "hide")
    assert answers(LOGITS, NAMES, {0, 1, 2}, "reject") == [Answer(None, None, None, True)] * 2


def test_the_classifier_knows_what_the_store_forgot(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    dogs = toy.images(3, 1, seed=3)
    assert [answer.forgotten for answer in runtime.classify(dogs)] == [False] * 3
    runtime.add(toy.images(19, 1), "dog")
    runtime.forget(
        "dog", seed=5, verify_at_most=100, scalars={"lr": 0.0000001, "epochs": 1, "check_every": 0}
    )
    assert runtime.forgotten == ["dog"]
    # These weights hardly moved, so the dogs are still taken for dogs: what is answered is the app's choice.
    assert all(answer.name == "dog" and answer.forgotten for answer in runtime.classify(dogs))
    assert all(answer.name is None and answer.forgotten for answer in runtime.classify(dogs, "reject"))
    assert all(answer.name != "dog" and not answer.forgotten for answer in runtime.classify(dogs, "hide"))


def test_predict_takes_the_choice(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    with Runtime.open(toy_bundle, store, threads=1) as runtime:
        runtime.add(toy.images(19, 1), "dog")
        weak = {"lr": 0.0000001, "epochs": 1, "check_every": 0}
        runtime.forget("dog", seed=5, verify_at_most=100, scalars=weak)
    photo = tmp_path / "dogs.npz"
    np.savez(photo, x=toy.images(1, 1, seed=3))
    found = {}
    for choice in (["--forgotten", "tell"], ["--forgotten", "hide"], ["--hide"], ["--forgotten", "reject"]):
        arguments = ["predict", str(toy_bundle), str(photo), "--store", str(store), "--threads", "1", *choice]
        assert main([*arguments, "--json"]) == 0
        (found[" ".join(choice)],) = json.loads(capsys.readouterr().out)
    assert (found["--forgotten tell"]["class"], found["--forgotten tell"]["forgotten"]) == ("dog", True)
    assert found["--forgotten hide"]["class"] != "dog"
    assert found["--hide"] == found["--forgotten hide"]
    assert found["--forgotten reject"] | {"image": ""} == {
        "image": "", "class": None, "probability": None, "forgotten": True,
    }  # fmt: skip
    assert main([*arguments[:-1], "reject"]) == 0
    assert "no class forgotten: true" in capsys.readouterr().out
    assert main([*arguments[:-1], "lie"]) == 2
    assert "tell" in capsys.readouterr().err
