from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from PIL import Image

from pi_runtime import Runtime
from pi_runtime.cli import COMMANDS, main
from pi_runtime.progress import ProgressLine
from pi_runtime.request import Progress

ROOT = Path(__file__).parents[2]


class Shell:
    """Runs clue-pi with a store of its own; `out` and `err` are what the last command printed."""

    def __init__(self, bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.bundle, self.folder, self._capsys = bundle, folder, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path) -> int:
        code = main([str(a) for a in arguments] + ["--store", str(self.folder / "store"), "--threads", "1"])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str | Path) -> Any:
        assert self(*arguments, "--json") in (0, 1, 130)
        return json.loads(self.out)

    def images(self, count: int = 19, label: int = 0, seed: int = 0) -> Path:
        """A folder of image files of a class."""
        folder = self.folder / f"images{label}-{count}-{seed}"
        folder.mkdir()
        for number, image in enumerate(toy.images(count, label, seed)):
            Image.fromarray(image[..., 0]).save(folder / f"{number:02d}.png")
        return folder


@pytest.fixture
def shell(toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(toy_bundle, tmp_path, capsys)


def test_the_whole_way(shell: Shell) -> None:
    photos = shell.images()
    assert shell("add", shell.bundle, photos, "--label", "cat") == 0
    assert shell.out == "cat: 19 added, 0 there already, samples 1-19, 19 stored\n"
    assert shell("add", shell.bundle, photos, "--label", "0") == 0
    assert shell.out == "cat: 0 added, 19 there already, samples 1-19, 19 stored\n"

    cat = photos / "00.png"
    assert shell.json("predict", shell.bundle, cat) == [
        {"image": str(cat), "class": "cat", "probability": pytest.approx(0.970275), "forgotten": False}
    ]

    assert shell("forget", shell.bundle, "--label", "cat", "--dry-run") == 0
    assert "samples: 19" in shell.out
    assert shell.json("log", shell.bundle, "--requests") == []

    assert shell("forget", shell.bundle, "--label", "cat", "--seed", "5", "--quiet") == 0
    assert shell.out.splitlines() == [
        "done",
        "forget accuracy: 100.0 % before, 5.3 % after",
        "19 samples, 1 epochs, stopped early, 20 steps",
    ]
    assert shell.err == ""

    found = {True: "", False: ""}
    for hide in found:
        assert shell("predict", shell.bundle, photos, *["--hide"] * hide) == 0
        assert len(shell.out.splitlines()) == 19
        found[hide] = shell.out
    assert found[False].count(": cat ") == found[False].count("forgotten: true") == 1
    assert found[True].count(": cat ") == found[True].count("forgotten: true") == 0

    assert shell("log", shell.bundle) == 0
    assert re.search(r"request 1, cat, .*: done; forget accuracy: 100.0 % before, 5.3 % after", shell.out)
    assert re.search(r"  learn: \d+\.\d s, 10 steps, \d+ ms a step, \d+ MiB", shell.out)
    assert [r["phase"] for r in shell.json("log", shell.bundle)] == [
        "teach",
        "learn",
        "verify",
        "finish",
        "request",
    ]
    (request,) = shell.json("log", shell.bundle, "--requests")
    assert (request["status"], request["seed"], request["scalars"]) == ("done", 5, toy.SCALARS)

    assert shell("check", shell.bundle) == 0
    assert [line.split(":")[0] for line in shell.out.splitlines()][:1] == ["ok predict.logits"]
    assert all(result["ok"] for result in shell.json("check", shell.bundle))


def test_a_failed_request_is_1_and_says_that_the_old_weights_serve(shell: Shell) -> None:
    shell("add", shell.bundle, shell.images(), "--label", "cat")
    assert shell("forget", shell.bundle, "--label", "cat", "--set", "lr=1e-6", "--set", "epochs=1") == 1
    assert "failed: the forget accuracy is 100.0 %" in shell.out
    assert "the old weights are still served" in shell.out
    result = shell.json("forget", shell.bundle, "--label", "cat", "--at-most", "0", "--seed", "5")
    assert (result["status"], result["seed"]) == ("failed", 5)


def test_a_failed_check_is_1(shell: Shell, own_bundle: Path) -> None:
    def other_seed(manifest: dict[str, Any]) -> None:
        manifest["programs"]["step"]["golden"]["seed"] += 1
        manifest["programs"]["predict_1"]["golden"]["inputs"]["params"] = [
            {"length": toy.SIZE, "distribution": "constant", "a": float(2**127)}
        ]

    toy.edit(own_bundle, other_seed)
    assert shell("check", own_bundle) == 1
    assert "FAILED step.loss: error" in shell.out
    infinite = [r for r in shell.json("check", own_bundle) if r["program"] == "predict_1"]
    assert [(r["error"], r["ok"]) for r in infinite] == [(None, False)]


FORGET = ["forget", "{bundle}", "--label"]


@pytest.mark.parametrize(("arguments", "message"), [
    ([*FORGET, "cat"], "no samples of 'cat' are stored: add some first (clue-pi add)"),
    ([*FORGET, "9"], "label 9 is out of range: toy has classes 0 to 2"),
    ([*FORGET, "cta"], "unknown class 'cta': did you mean 'cat'? Choices: 10, cat, dog"),
    ([*FORGET, "cat", "--set", "lr"], "--set 'lr': write NAME=NUMBER, such as lr=0.001"),
    ([*FORGET, "cat", "--set", "lr=x"], "--set 'lr=x': write NAME=NUMBER, such as lr=0.001"),
    ([*FORGET, "cat", "--set", "tau=1"], "unknown scalar 'tau': Choices: check_every"),
    (["forget", "/nowhere.clue", "--label", "cat"], "/nowhere.clue is no bundle: it has no manifest.json"),
    (["add", "{bundle}", "--label", "cat"], "no images given, only the bundle {bundle}"),
    (["add", "{bundle}", "/nowhere.png", "--label", "cat"], "/nowhere.png does not exist"),
    (["predict", "{bundle}", "/nowhere.png"], "/nowhere.png does not exist"),
    (["check"], "no bundle found: name its folder"),
])  # fmt: skip
def test_errors_are_one_line_and_2(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(shell.folder)
    code = shell(*[str(shell.bundle) if a == "{bundle}" else a for a in arguments])
    assert code == 2
    assert shell.err.startswith("clue-pi: " + message.format(bundle=shell.bundle))
    assert shell.err.count("\n") == 1
    assert shell.out == ""


def test_archives_bring_their_labels(shell: Shell) -> None:
    path = shell.folder / "a.npz"
    images = np.concatenate([toy.images(3, 0), toy.images(2, 1)])
    np.savez(path, x=images, y=np.array([0, 0, 0, 1, 1]))
    assert shell.json("add", shell.bundle, path) == [
        {
            "class": "cat",
            "added": 3,
            "duplicates": 0,
            "samples": [1, 2, 3],
            "stored": 3,
            "least_images": None,
        },
        {"class": "dog", "added": 2, "duplicates": 0, "samples": [4, 5], "stored": 2, "least_images": None},
    ]
    assert shell("add", shell.bundle, path, "--label", "cat") == 2
    assert "y has other labels than 0: leave out --label" in shell.err
    np.savez(path, x=images, y=np.array([1, 1, 1, 0, 3]))
    assert shell("add", shell.bundle, path) == 2
    assert "y has 3, which is out of range" in shell.err
    with Runtime.open(shell.bundle, shell.folder / "store", threads=1) as runtime:
        assert [len(runtime.store.sample_ids(label)) for label in range(3)] == [3, 2, 0]
    np.savez(path, x=images)
    assert shell("add", shell.bundle, path) == 2
    assert "has no label: give --label" in shell.err
    assert shell.json("add", shell.bundle, path, "--label", "10")[0]["added"] == 5


def test_everything_forgotten_leaves_nothing_to_answer(shell: Shell) -> None:
    for label in range(3):
        shell("add", shell.bundle, shell.images(label=label), "--label", str(label))
        assert shell("forget", shell.bundle, "--label", str(label), "--at-most", "100", "--quiet") == 0
    assert shell("predict", shell.bundle, shell.images(seed=1), "--hide") == 2
    assert "every class was forgotten" in shell.err


def test_where_the_bundle_is_found(
    shell: Shell, own_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = own_bundle / "runtime"
    runtime.mkdir()
    for folder in (own_bundle, runtime):
        monkeypatch.chdir(folder)
        assert shell("log") == 0
    monkeypatch.chdir(tmp_path)
    assert shell("log") == 2
    monkeypatch.setenv("CLUE_BUNDLE", str(own_bundle))
    assert shell("log") == 0
    photos = shell.images(2)
    assert shell("add", photos, "--label", "cat") == 0


def test_where_the_store_is_put(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["log", str(toy_bundle)]) == 0
    assert (tmp_path / "data" / "clue-pi" / "toy" / "store.db").is_file()
    assert capsys.readouterr().out == "no requests so far\n"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert f"example: clue-pi {command} " in text
    assert "--json" in text
    # which need neither store nor bundle
    assert ("--store DIR" in text) == (command not in ("verify", "tune-kernels"))


def test_another_batch_than_the_tuned_one_is_told(shell: Shell, own_bundle: Path) -> None:
    toy.edit(own_bundle, lambda manifest: manifest["method"].update(tuned_batch=256))
    shell("add", own_bundle, shell.images(), "--label", "cat")
    shell("forget", own_bundle, "--label", "cat", "--seed", "5")
    assert "push was tuned at batch 256, this bundle has batch 4" in shell.err


# --- progress


def progress(done: int) -> Progress:
    return Progress("learn", 1, done, 200, {"loss": 1.5})


def test_progress_in_a_log_is_a_few_lines() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for done in range(1, 201):
        line(progress(done))
    line.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r" 10% learn epoch 2, \d+ s, \d+ s left at most loss 1.5", lines[0])


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    line = ProgressLine(stream)
    for done in range(1, 201):
        line(progress(done))
    line.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().startswith("\r")
    assert "100% learn" in stream.getvalue()


# --- as a process


def command(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pi_runtime", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_ctrl_c_ends_a_request_and_keeps_the_old_weights(shell: Shell) -> None:
    shell("add", shell.bundle, shell.images(), "--label", "cat")
    endless = ("--set", "epochs=1e7", "--set", "check_every=0", "--set", "lr=1e-9")
    options = (*endless, "--store", shell.folder / "store")
    process = command("forget", shell.bundle, "--label", "cat", *options)
    until = time.monotonic() + 30
    requests: list[dict[str, Any]] = []
    while not requests and time.monotonic() < until:
        time.sleep(0.1)
        requests = [r for r in shell.json("log", shell.bundle, "--requests") if r["status"] == "running"]
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "cancelling after this step; the old weights stay" in err
    assert out.startswith("cancelled\n")
    assert "the old weights are still served" in out
    assert shell.json("log", shell.bundle, "--requests")[0]["status"] == "cancelled"


def test_a_closed_pipe_is_no_error(shell: Shell) -> None:
    process = command("log", shell.bundle, "--store", shell.folder / "store")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(30) == 0


LEAN = """
import sys
for name in ("torch", "torchvision", "clue_mobile", "exporters"):
    sys.modules[name] = None  # importing it raises
import socket
class NoNetwork(socket.socket):
    def __init__(self, *arguments, **options):
        raise RuntimeError("the runtime opened a socket")
socket.socket = NoNetwork
import numpy as np
import pi_runtime
assert not {"onnxruntime", "safetensors", "jsonschema", "PIL"} & set(sys.modules), "imported too early"
images = np.load(sys.argv[3])
with pi_runtime.Runtime.open(sys.argv[1], sys.argv[2], threads=1) as runtime:
    runtime.add(images, "cat")
    assert all(result.ok for result in runtime.check())
    assert runtime.forget("cat", seed=5).status == "done"
    runtime.predict(images)
"""


def test_needs_neither_torch_nor_clue_mobile_nor_a_network(shell: Shell) -> None:
    np.save(shell.folder / "images.npy", toy.images(19, 0))
    arguments = [shell.bundle, shell.folder / "store", shell.folder / "images.npy"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LEAN, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_names_of_the_package_are_errors() -> None:
    import pi_runtime

    assert pi_runtime.Runtime is Runtime
    with pytest.raises(AttributeError, match="no attribute 'Runtimes'"):
        _ = pi_runtime.Runtimes  # type: ignore[attr-defined]
