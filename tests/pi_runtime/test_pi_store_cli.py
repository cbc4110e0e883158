"""The commands over the store: samples, requests, rollback, seal, and --policy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from store_parts import retrain
from test_pi_cli import Shell

from pi_runtime import ClueError
from pi_runtime.cli import ids


@pytest.fixture
def shell(toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(toy_bundle, tmp_path, capsys)


def test_samples_are_listed(shell: Shell) -> None:
    assert shell("samples", shell.bundle) == 0
    assert shell.out == "no samples are stored\n"
    assert shell.json("samples", shell.bundle, "--label", "cat") == []
    shell("add", shell.bundle, shell.images(4), "--label", "cat")
    shell("add", shell.bundle, shell.images(3, 1), "--label", "dog")
    (added,) = shell.json(
        "add", shell.bundle, shell.images(3, 1, 7), shell.folder / "images1-3-0", "--label", "1"
    )
    assert added == {"class": "dog", "added": 3, "duplicates": 3, "samples": [8, 9, 10, 5, 6, 7]}
    assert shell("samples", shell.bundle) == 0
    assert shell.out == "cat: 4 samples, ids 1-4\ndog: 6 samples, ids 5-10\n"
    assert shell.json("samples", shell.bundle) == [
        {"class": "cat", "samples": 4},
        {"class": "dog", "samples": 6},
    ]
    listed = shell.json("samples", shell.bundle, "--label", "dog")
    assert [(one["id"], one["class"], one["request_id"]) for one in listed] == [
        (number, "dog", None) for number in range(5, 11)
    ]
    assert shell("samples", shell.bundle, "--label", "cat") == 0
    assert [line.split(":")[0] for line in shell.out.splitlines()] == ["1", "2", "3", "4"]


def test_requests_rollback_and_seal(shell: Shell, own_bundle: Path) -> None:
    assert shell("requests", own_bundle) == 0
    assert shell.out == "no requests so far\n"
    shell("add", own_bundle, shell.images(), "--label", "cat")
    assert shell("forget", own_bundle, "--label", "cat", "--seed", "5", "--quiet") == 0
    assert shell("requests", own_bundle) == 0
    assert shell.out == "request 1: forget cat, done, generation 2\n"
    (row,) = shell.json("requests", own_bundle)
    assert (row["class"], row["status"], row["generation"], row["samples"]) == ("cat", "done", 2, 19)
    assert shell.json("requests", own_bundle, "--request", "1")["seed"] == 5

    assert shell("rollback", own_bundle, "--to", "1") == 0
    assert shell.out == "generation 1 serves\nwithout effect now: request 1 (cat)\n"
    assert shell("requests", own_bundle) == 0
    assert shell.out == "request 1: forget cat, done, generation 2, without effect: rolled back\n"
    assert shell("seal", own_bundle, "--request", "1", "--yes") == 2
    assert "request 1 has no effect on the serving weights" in shell.err
    assert shell.json("rollback", own_bundle, "--to", "2") == {"serving": 2, "without_effect": []}
    assert shell("rollback", own_bundle) == 0
    first, second = shell.out.splitlines()
    assert first.startswith("generation 1: weights of the bundle, ")
    assert second.startswith("generation 2: request 1 (cat) on generation 1, ")
    assert second.endswith(", serves")
    assert [one["serving"] for one in shell.json("rollback", own_bundle)] == [False, True]

    assert shell("seal", own_bundle, "--request", "1", "--dry-run") == 0
    would = shell.out.splitlines()
    assert would[:2] == ["would erase:", "  19 samples and their keys"]
    files = [
        shell.folder / "store" / "generations" / "000001.safetensors",
        own_bundle / "weights.safetensors",
    ]
    assert would[2:4] == [f"  {file}" for file in files]
    plan = shell.json("seal", own_bundle, "--request", "1", "--dry-run")
    assert (plan["files"], plan["samples"], plan["not_erased"]) == ([str(file) for file in files], 19, [])
    assert all(file.exists() for file in files)
    assert shell("seal", own_bundle, "--request", "1") == 2  # nobody can be asked
    assert "sealing erases for good: look at --dry-run, then give --yes" in shell.err
    assert shell.json("seal", own_bundle, "--request", "1", "--yes") == {
        "request": 1,
        "sealed": True,
        "not_erased": [],
    }
    assert not any(file.exists() for file in files)
    assert shell("requests", own_bundle) == 0
    assert shell.out == "request 1: forget cat, done, generation 2, sealed\n"
    assert shell("predict", own_bundle, shell.folder / "images0-19-0") == 0
    assert shell("rollback", own_bundle, "--to", "1") == 2
    assert "generation 1 was erased by sealing" in shell.err


@pytest.mark.parametrize(("answer", "code"), [("n\n", 130), ("\n", 130), ("y\n", 0)])
def test_sealing_asks_on_a_terminal(
    shell: Shell, own_bundle: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    shell("add", own_bundle, shell.images(), "--label", "cat")
    shell("forget", own_bundle, "--label", "cat", "--seed", "5", "--quiet")
    main_end, terminal = os.openpty()
    with os.fdopen(terminal) as stdin:
        os.write(main_end, answer.encode())
        monkeypatch.setattr(sys, "stdin", stdin)
        assert shell("seal", own_bundle, "--request", "1") == code
    os.close(main_end)
    assert "seal it? [y/N]" in shell.err
    assert ("nothing was erased" in shell.err) == (code == 130)
    assert (own_bundle / "weights.safetensors").exists() == (code == 130)


def test_a_new_bundle_needs_a_policy(shell: Shell, own_bundle: Path) -> None:
    shell("add", own_bundle, shell.images(), "--label", "cat")
    shell("forget", own_bundle, "--label", "cat", "--seed", "5", "--quiet")
    retrain(own_bundle, 1)
    assert shell("log", own_bundle) == 2
    assert "bring back what was forgotten (cat): give --policy pending" in shell.err
    assert shell("requests", own_bundle, "--policy", "pending") == 0
    assert shell.out.splitlines()[1] == "request 2: forget cat, queued"
    assert shell("requests", own_bundle) == 0  # adopted: no policy is needed any longer


def test_ids_as_people_write_them() -> None:
    assert ids.ranges([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"
    assert ids.parse("1-3, 7,2") == [1, 2, 3, 7]
    for text in ("", "a", "3-1", "1-", "-1", "1,,2", "1-99999999999"):
        with pytest.raises(ClueError, match="1-3"):
            ids.parse(text)
