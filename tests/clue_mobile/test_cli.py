from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import clue_mobile
from clue_mobile import models
from clue_mobile.cli import main
from pi_runtime import Bundle, Runtime

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "export",
    "check",
    "forget",
    "evaluate",
    "explain",
    "compare",
    "tune",
    "tune-kernels",
    "models",
    "train",
    "keygen",
    "demo",
)
FORGET = "3"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs clue-mobile in this process."""

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["clue-mobile", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Done(int(end.value.code or 0), captured.out, captured.err)

    return run


# help


def test_help_lists_the_commands(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    assert all(f"\n  {name} " in done.out for name in COMMANDS)
    assert "Example: clue-mobile export" in done.out
    assert cli("--version").out == f"clue-mobile {clue_mobile.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    assert f"Example: clue-mobile {command}" in " ".join(done.out.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from clue_mobile.cli import main\n"
        "sys.argv = ['clue-mobile', 'export', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    heavy = {
        "torch",
        "torchvision",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "sklearn",
        "scipy",
        "matplotlib",
        "PIL",
    }
    assert not loaded & heavy


# bad input: exit code 2 and one line


def one_line(done: Done, message: str) -> None:
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("clue-mobile: ")
    assert done.err.count("\n") == 1
    assert message in done.err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with some files that are wrong in one way each."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("x")
    Path("bad.json").write_text("{lr: 1}")
    Path("list.json").write_text("[1]")
    Path("corrupt.safetensors").write_bytes(b"\x40" * 50)
    Path("corrupt.pt").write_bytes(b"PK\x03\x04 no archive")
    save_file({"conv1.weight": torch.zeros(1)}, "other.safetensors")
    np.savez("two.npz", x=np.zeros((4, 8, 8, 1), np.uint8), y=np.array([0, 0, 1, 1]), classes=["a", "b"])
    return tmp_path


SHORT = {
    "EXPORT": "export --model digits_cnn",
    "TRAIN DIGITS": "train --model digits_cnn --data digits --out",
    "FORGET": "forget {bundle} --data digits --forget 3",
    "EVALUATE": "evaluate {bundle} --data digits --forget 3",
    "EXPLAIN": "explain --data digits --forget 3 --out m.png",
    "BEFORE": "--model digits_cnn --before {weights}",
    "TRAIN": "train --data digits --model digits_cnn --out w.safetensors",
}

BAD: dict[str, tuple[str, str]] = {
    "no bundle": ("check nothing.clue", "nothing.clue is no bundle: it has no manifest.json"),
    "a folder": ("check folder", "folder is no bundle"),
    "threads": ("check {bundle} --threads 0", "threads is 0: it must be from 1 to 256"),
    "model": ("export --model digitscnn", "unknown model 'digitscnn': did you mean 'digits_cnn'"),
    "factory": (
        "export --model no.py:f --classes a,b --input-shape 1,8,8 --mean 0 --std 1", "no file no.py",
    ),
    "method": ("EXPORT --method cleu", "unknown method 'cleu': did you mean 'clue'"),
    "target": ("EXPORT --target pi6", "unknown target 'pi6'"),
    "runtime": ("EXPORT --runtime litrt", "unknown runtime 'litrt': did you mean 'litert'"),
    "spec": ("export --model torchvision:resnet18", "needs classes, input_shape, mean, std"),
    "set form": ("EXPORT --set lr", "'lr' is no setting: write NAME=VALUE"),
    "set name": ("EXPORT --set rate=1", "unknown hyperparameter of clue 'rate'"),
    "set value": ("EXPORT --set lr=fast", "lr must be a finite number, not 'fast'"),
    "set infinity": ("EXPORT --set lr=Infinity", "lr must be a finite number"),
    "no json": ("EXPORT --hyperparameters bad.json", "bad.json is not valid JSON"),
    "json list": ("EXPORT --hyperparameters list.json", "list.json must hold an object"),
    "json missing": ("EXPORT --hyperparameters no.json", "cannot read no.json: No such file"),
    "json folder": ("EXPORT --hyperparameters folder", "cannot read folder: Is a directory"),
    "card": ("EXPORT --card no.json", "cannot read the model card no.json"),
    "batch": ("EXPORT --batch 24", "--batch 24 does not divide saliency_batch 256"),
    "tuned batch": ("EXPORT --tuned-batch 0", "--tuned-batch must be at least 1"),
    "out exists": ("EXPORT --out folder", "folder exists already: choose another --out, or"),
    "out no bundle": ("EXPORT --out folder --force", "folder exists and is no bundle"),
    "no weights": ("EXPORT --weights no.safetensors", "no weights file at no.safetensors"),
    "corrupt": ("EXPORT --weights corrupt.safetensors", "corrupt.safetensors is damaged"),
    "corrupt pickle": ("EXPORT --weights corrupt.pt", "corrupt.pt is damaged"),
    "other weights": ("EXPORT --weights other.safetensors", "does not fit DigitsCNN: missing"),
    "resnet weights": ("export --model resnet20 --weights {weights}", "does not fit ResNet20"),
    "class": ("forget {bundle} --data digits --forget three", "unknown class 'three'"),
    "class index": ("forget {bundle} --data digits --forget 10", "label 10 is out of range"),
    "no data": ("forget {bundle} --data images.zip --forget 3", "no data source 'images.zip'"),
    "data kind": ("forget {bundle} --data file --forget 3", "file is neither a folder nor a .zip or .npz"),
    "data classes": ("forget {bundle} --data two.npz --forget 3", "the classes of two.npz are not those of"),
    "scalar value": ("FORGET --set lr=fast", "lr must be a number, not 'fast'"),
    "scalar name": ("FORGET --set rate=1", "unknown scalar 'rate'"),
    "scalar inf": ("FORGET --set lr=Infinity", "it must be finite in float32"),
    "seed": ("FORGET --seed -1", "seed -1 is out of range"),
    "no store": ("EVALUATE --store no.store", "no store at no.store"),
    "another folder as store": ("EVALUATE --store folder", "no store at folder"),
    "picture": ("EVALUATE --picture p.png", "--picture of before and after"),
    "no retrained": ("EVALUATE --retrained no.pt", "no weights file at no.pt"),
    "other retrained": (
        "EVALUATE --retrained other.safetensors", "has shape (1,), digits needs (16, 1, 3, 3)",
    ),
    "report": ("EVALUATE --html file/r.html", "cannot make the folder file"),
    "what to explain": ("EXPLAIN", "give either a bundle with --store, or --model with --before and --after"),
    "explain both": ("EXPLAIN {bundle} BEFORE", "--before and --after, not both"),
    "explain store": ("EXPLAIN {bundle}", "with a bundle the weights after are those of --store"),
    "explain no store": ("EXPLAIN {bundle} --store no.store", "no store at no.store"),
    "explain after": ("EXPLAIN BEFORE", "--model needs --before and --after"),
    "explain class": ("EXPLAIN BEFORE --after {weights} --forget ten", "unknown class 'ten'"),
    "explain split": ("EXPLAIN BEFORE --after {weights} --split all", "unknown split 'all'"),
    "explain layer": (
        "EXPLAIN BEFORE --after {weights} --layer conv9",
        "unknown layer of digits_cnn with a feature map 'conv9': did you mean 'conv3'",
    ),
    "explain nothing": ("EXPLAIN BEFORE --after {weights} --images 0 --retain 0", "no image to explain"),
    "explain many": ("EXPLAIN BEFORE --after {weights} --images 30", "1 to 24 images, not 33"),
    "explain suffix": ("EXPLAIN BEFORE --after {weights} --out m.jpg", "--out must end in .png"),
    "train suffix": ("TRAIN DIGITS w.pt", "--out must end in .safetensors"),
    "train out": ("TRAIN DIGITS other.safetensors", "safetensors exists already"),
    "train folder": ("TRAIN DIGITS no/w.safetensors", "the folder no does not exist"),
    "train model": ("train --model timm:x --data digits --out w", "unknown built-in model 'timm:x'"),
    "train start": ("TRAIN --weights no.pt", "no weights file at no.pt"),
    "exclude": ("TRAIN --exclude ten", "unknown class 'ten'"),
    "lr": ("TRAIN --lr 0", "lr must be greater than 0"),
    "augment": ("TRAIN --augment x", "unknown augment 'x'"),
    "demo digit": ("demo --forget 12", "--forget must be one of the digits"),
    "demo folder": ("demo --out file", "File exists"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli: Cli, place: Path, name: str, digits_bundle: Path, digits_weights: Path) -> None:
    words, message = BAD[name]
    for short, long in SHORT.items():
        words = words.replace(short, long)
    before = sorted(place.rglob("*"))
    one_line(cli(*words.format(bundle=digits_bundle, weights=digits_weights).split()), message)
    assert sorted(place.rglob("*")) == before  # nothing was made


def test_a_bundle_that_was_changed(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(digits_bundle, tmp_path / "c.clue"))
    (copied / "programs" / "onnx" / "step.onnx").write_bytes(b"x")
    one_line(cli("check", copied), "step.onnx has 1 bytes instead of")
    (copied / "manifest.json").write_text("{}")
    one_line(cli("check", copied), "manifest.json does not match manifest.sha256")


@pytest.mark.parametrize("words", [
    ["nonsense"], ["export"], ["check"], ["check", "a", "b"], ["models", "--nonsense"],
    ["train", "--model", "m", "--data", "d", "--out", "o", "--epochs", "0"],
    ["export", "--model", "m", "--batch", "many"],
])  # fmt: skip
def test_usage_errors(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err.strip()


def test_several_lines_of_an_error_become_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise clue_mobile.errors.ClueError("first\n  second")

    monkeypatch.setattr(models, "available", fail)
    done = cli("models")
    assert (done.code, done.err) == (2, "clue-mobile: first second\n")


def test_ctrl_c(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "available", interrupt)
    done = cli("models")
    assert (done.code, done.err) == (130, "clue-mobile: interrupted; nothing was half written\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "from clue_mobile.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "models", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# the whole path


def test_models(cli: Cli) -> None:
    rows = cli("models", "--json").json()
    assert {"resnet20", "digits_cnn", "vit_small_patch4"} <= {row["name"] for row in rows}
    text = cli("models").out
    assert "24,058" in text
    assert "torchvision:NAME" in text


def test_from_training_to_the_evidence(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", "digits_cnn", "--data", "digits", "--epochs", "4", "--batch", "64",
               "--augment", "none", "--precision", "float32"]  # fmt: skip
    trained = cli("train", *options, "--out", "w.safetensors", "--json")
    assert trained.code == 0, trained.err
    assert trained.err == ""
    assert len(trained.json()["history"]) == 4
    assert trained.json()["last"]["train_accuracy"] > 0.8
    retrained = cli("train", *options, "--out", "r.safetensors", "--exclude", FORGET, "--seed", "1")
    assert retrained.code == 0
    assert "r.safetensors: " in retrained.out
    assert "epoch 4/4" in retrained.err
    assert not list(tmp_path.glob("*.checkpoint"))

    Path("h.json").write_text(json.dumps({"epochs": 10, "lr": 1.0, "tau": 3e-4, "batch_norm": "frozen"}))
    exported = cli("export", "--model", "digits_cnn", "--weights", "w.safetensors", "--out", "d.clue",
                   "--hyperparameters", "h.json", "--set", "lr=0.001", "--set", "stop_every=1",
                   "--set", "stop_accuracy=10", "--json")  # fmt: skip
    assert exported.code == 0, exported.err
    result = exported.json()
    assert result["bundle"] == "d.clue"
    assert result["manifest"] == json.loads(Path("d.clue/manifest.json").read_bytes())
    method = result["manifest"]["method"]
    assert (method["scalars"]["lr"], method["scalars"]["epochs"], method["batch"]) == (0.001, 10, 32)

    checked = cli("check", "d.clue", "--threads", "1", "--json").json()
    assert checked["ok"] is True
    rows = checked["runtimes"]["onnx"]["golden"]
    assert {row["program"] for row in rows} == set(result["manifest"]["programs"])
    assert "against" in cli("check", "d.clue", "--threads", "1").out

    request = ["forget", "d.clue", "--data", "digits", "--forget", FORGET, "--threads", "1"]
    planned = cli(*request, "--dry-run", "--json").json()
    assert planned["samples"] > 100
    assert planned["flops"] > 1e9
    assert "GFLOP" in cli(*request, "--dry-run").out
    assert not Path("d.store").exists()  # a dry run leaves nothing behind
    done = cli(*request, "--seed", "0", "--json")
    assert done.code == 0, done.err
    answer = done.json()
    assert (answer["status"], answer["seed"], answer["store"]) == ("done", 0, "d.store")
    assert answer["evidence"]["forget_accuracy_before"] > 70
    assert answer["evidence"]["forget_accuracy_after"] <= 15
    assert answer["evidence"]["steps"] <= planned["operations"]

    evaluation = ["evaluate", "d.clue", "--data", "digits", "--forget", FORGET, "--threads", "1"]
    found = cli(*evaluation, "--store", "d.store", "--retrained", "r.safetensors", "--picture", "p.png",
                "--markdown", "t.md", "--deep", "--html", "r.html", "--json")  # fmt: skip
    assert found.code == 0, found.err
    rows = {row["name"]: row for row in found.json()["rows"]}
    assert list(rows) == ["Original", "Retrain", "CLUE"]
    assert rows["Original"]["scores"]["ua"] > 70
    assert rows["Retrain"]["scores"]["ua"] == 0
    assert rows["CLUE"]["scores"]["ua"] <= 15
    assert rows["CLUE"]["scores"]["ta"] > 50
    assert rows["CLUE"]["wall_s"] > 0
    assert Path("t.md").read_text().count("\n") == 5
    with Image.open("p.png") as picture:
        assert picture.width > 1000
    deep = found.json()["deep"]
    assert list(deep) == ["Original", "Retrain", "CLUE"]
    for name, measured in deep.items():
        scores = rows[name]["scores"]
        assert (measured["forget_train"], measured["attacks"]["confidence_svc"]) == (
            scores["ua"],
            scores["mia"],
        )
        assert (np.array(measured["confusion"]).sum(axis=1) >= 34).all()
    assert deep["Original"]["relearn_steps"] == 0
    assert deep["CLUE"]["relearn_steps"] != 0 != deep["Retrain"]["relearn_steps"]
    page = Path("r.html").read_text()
    assert page.count("<table>") == 3 + 3  # scores, deep scores, classes, and three confusion matrices
    assert 'src="data:image/png;base64,' in page

    explained = cli("explain", "d.clue", "--data", "digits", "--forget", FORGET, "--store", "d.store",
                    "--out", "m.png", "--images", "1", "--retain", "2", "--json")  # fmt: skip
    assert explained.code == 0, explained.err
    told = explained.json()
    assert (told["kind"], told["layer"]) == ("Grad-CAM", "bn3")
    assert [image["forgotten"] for image in told["images"]] == [True, False, False]
    assert len({image["class"] for image in told["images"]}) == 3
    assert told["images"][0]["after"]["true_class"] < told["images"][0]["before"]["true_class"]
    with Image.open("m.png") as picture:
        assert picture.width > 800


def test_evaluation_for_people(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    words = ["evaluate", digits_bundle, "--data", "digits", "--forget", FORGET, "--threads", "1", "--deep"]
    done = cli(*words, "--html", tmp_path / "r.html")
    assert done.code == 0, done.err
    for heading in ("Is it forgotten, or only hidden?", "Accuracy on the test images of each class",
                    "Original: test images of each class"):  # fmt: skip
        assert heading in " ".join(done.out.split())
    assert f"report: {tmp_path / 'r.html'}" in "".join(done.out.splitlines())
    assert "<img" not in (tmp_path / "r.html").read_text()  # without a store there is no before and after


def test_a_model_that_cannot_be_built_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    options = ["--classes", ",".join("0123456789"), "--input-shape", "1,8,8", "--mean", "0.3", "--std", "0.4"]
    done = cli("export", "--model", "net.py:make", "--target", "pi5", "--runtime", "onnx", *options, "--out",
               "n.clue", "--json")  # fmt: skip
    assert done.code == 0, done.err
    deep = ["evaluate", "n.clue", "--data", "digits", "--forget", FORGET, "--threads", "1", "--deep"]
    Path("net.py").write_text(
        Path("net.py").read_text().replace("nn.Flatten()", "nn.Flatten(), nn.Linear(64, 64)")
    )
    one_line(cli(*deep), "cannot be built again as a PyTorch module: tensor '1.bias' is (10,) in the bundle")
    Path("net.py").unlink()
    one_line(cli(*deep), "cannot be built again as a PyTorch module: no file net.py")


def test_export_tells_people_what_it_made(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("export", "--model", "digits_cnn", "--target", "host", "--set", "kl_weight=0")
    assert done.code == 0, done.err
    assert "no --weights: the weights are drawn at random" in done.err
    assert "Next: clue-mobile check digits_cnn.clue" in done.out
    assert "US 2026/0148064 A1" in " ".join(done.out.split())
    assert done.err.count("\n") == 2  # that, and that it was checked: no warnings of the libraries
    assert Bundle.open("digits_cnn.clue").name == "digits_cnn"


def test_a_request_that_fails_its_checks(
    cli: Cli, digits_bundle: Path, tmp_path: Path, digits_data: Any
) -> None:
    store = tmp_path / "s"
    request = ["forget", digits_bundle, "--data", "digits", "--forget", FORGET, "--store", store,
               "--threads", "1", "--limit", "40", "--set", "epochs=1", "--set", "lr=1e-9",
               "--set", "stop_every=0"]  # fmt: skip
    images = digits_data.test.images[:40]
    with Runtime.open(digits_bundle, store, threads=1) as runtime:
        before = runtime.predict(images)
    failed = cli(*request, "--json")
    assert failed.code == 1
    answer = failed.json()
    assert answer["status"] == "failed"
    assert "had to come down to 50.0 %" in answer["reason"]
    assert answer["evidence"]["samples"] == 40
    text = cli(*request)
    assert text.code == 1
    assert "failed; the forget accuracy is" in text.out
    assert "now serves" not in text.out
    with Runtime.open(digits_bundle, store, threads=1) as runtime:
        assert runtime.serving.request_id is None
        assert np.array_equal(runtime.predict(images), before)
    one_line(
        cli("evaluate", digits_bundle, "--data", "digits", "--forget", FORGET, "--store", store),
        "has no finished request",
    )


def test_a_request_on_weights_that_are_not_finite_is_told_too(
    cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    done = cli(
        "forget", digits_bundle, "--data", "digits", "--forget", FORGET, "--store", store, "--limit", "40",
        "--set", "lr=1e30", "--threads", "1",
    )  # fmt: skip
    assert done.code == 1
    assert "failed" in done.out
    assert "Traceback" not in done.err


def test_a_differing_result_is_told(cli: Cli, digits_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pi_runtime import golden

    result = golden.GoldenResult("step", "kl", float("inf"), 5e-5, False)
    monkeypatch.setattr(golden, "check", lambda bundle, engine: [result])
    done = cli("check", digits_bundle, "--json")
    assert done.code == 1
    assert done.json()["runtimes"]["onnx"]["golden"][0] == {
        "program": "step", "output": "kl", "error": None, "tolerance": 5e-5, "ok": False,
    }  # fmt: skip
    text = cli("check", digits_bundle)
    assert text.code == 1
    assert "DIFFERS" in text.out


@pytest.mark.parametrize("form", ["bfloat16", "parallel"])
def test_retrained_weights_in_other_forms(
    cli: Cli, digits_bundle: Path, digits_weights: Path, tmp_path: Path, form: str
) -> None:
    tensors = load_file(digits_weights)
    if form == "bfloat16":
        tensors = {name: t.bfloat16() if t.is_floating_point() else t for name, t in tensors.items()}
    else:
        tensors = {f"module.{name}": t for name, t in tensors.items()}
    save_file(tensors, tmp_path / "r.safetensors")
    done = cli("evaluate", digits_bundle, "--data", "digits", "--forget", FORGET, "--threads", "1",
               "--retrained", tmp_path / "r.safetensors", "--json")  # fmt: skip
    assert done.code == 0, done.err
    original, retrain = (row["scores"] for row in done.json()["rows"])
    assert retrain["ua"] == pytest.approx(original["ua"], abs=3)


def test_training_goes_on_from_weights(cli: Cli, digits_weights: Path, tmp_path: Path) -> None:
    options = [
        "--model",
        "digits_cnn",
        "--data",
        "digits",
        "--epochs",
        "1",
        "--lr",
        "1e-6",
        "--augment",
        "none",
    ]
    out = tmp_path / "w.safetensors"
    done = cli("train", *options, "--weights", digits_weights, "--out", out, "--json")
    assert done.code == 0, done.err
    assert (
        done.json()["last"]["train_accuracy"] > 0.9
    )  # random weights learn nothing in an epoch at that rate
    before, after = load_file(digits_weights), load_file(out)
    assert float((before["fc.weight"] - after["fc.weight"]).abs().max()) < 1e-3


def test_the_demo(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clue_mobile.study import demo

    monkeypatch.setattr(demo, "TRAINING", dataclasses.replace(demo.TRAINING, epochs=5))
    done = cli("demo", "--out", tmp_path / "out", "--forget", "7", "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert [row["name"] for row in result["rows"]] == ["Original", "Retrain", "CLUE"]
    assert result["rows"][1]["gap"] is None
    assert result["rows"][2]["scores"]["ua"] < 50 < result["rows"][0]["scores"]["ua"]
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {
        "digits-seed0.safetensors", "digits-without-7-seed0.safetensors", "digits.clue", "digits.store",
        "forgetting.png", "table.md", "table.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "table.json").read_bytes())["rows"] == result["rows"]


def test_an_export_says_what_a_delegate_leaves() -> None:
    from clue_mobile.cli.export import delegated

    def entry(share: float, portable: dict[str, int]) -> dict[str, Any]:
        report = {"delegated_flops": share, "partitions": 1, "portable": portable}
        return {"reports": {"executorch": report, "litert": {"operators": 3}}}

    manifest = {"programs": {"predict": entry(1.0, {}), "step": entry(0.9, {"aten::sort.x": 2}), "mask": {}}}
    assert delegated(manifest) == [
        "executorch predict: 100.0% of the FLOPs delegated, operators left on portable kernels: none",
        "executorch step: 90.0% of the FLOPs delegated, operators left on portable kernels: aten::sort.x x 2",
    ]


def test_ssd_takes_the_training_images(cli: Cli, digits_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "ssd.clue"
    done = cli("export", "--model", "digits_cnn", "--weights", digits_weights, "--target", "host",
               "--method", "ssd", "--data", "digits", "--out", out, "--json")  # fmt: skip
    assert done.code == 0, done.err
    manifest = done.json()["manifest"]
    assert done.json()["differs"] == []
    assert "ssd/importances.safetensors" in {entry["file"] for entry in manifest["files"]}
    request = cli("forget", out, "--data", "digits", "--forget", FORGET, "--threads", "1",
                  "--store", tmp_path / "store", "--json")  # fmt: skip
    assert request.code == 0, request.err
    assert request.json()["evidence"]["forget_accuracy_after"] < 50
