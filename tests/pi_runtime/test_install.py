"""install.sh: what it refuses, and the whole life of a request from a bundle's runtime/ folder alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exporters.targets import pi5

if TYPE_CHECKING:
    from clue_mobile.data import Dataset

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-litert.lock")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runtime/ folder as `export` writes it."""
    folder = tmp_path_factory.mktemp("exported") / "runtime"
    for name, content in pi5.payload():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def install(
    runtime: Path, *options: str | Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    command = ["bash", str(runtime / "install.sh"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")


def program(folder: Path, name: str, body: str) -> Path:
    """A stand-in for one of the system's programs, to be found first; returns its folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)
    return folder


def test_a_dry_run_says_what_it_would_do_and_does_nothing(runtime: Path, tmp_path: Path) -> None:
    done = install(runtime, "--prefix", tmp_path / "new" / "app", "--dry-run", path=pi_of(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second, third = done.stdout.splitlines()
    assert re.fullmatch(rf"aarch64, \S*python3\S* \(3\.1[123]\), \d+ MiB free in {tmp_path}: fit", first)
    assert re.fullmatch(rf"would make {tmp_path}/new/app/venv-[0-9a-f]{{12}} from the package index", second)
    assert third == f"would link {tmp_path}/new/app/venv to it"
    assert not (tmp_path / "new").exists()


def pi_of(tmp_path: Path, machine: str = "aarch64") -> Path:
    """A `uname` that says that this is a Pi."""
    body = f'case "$1" in -m) echo {machine};; *) exec /bin/uname "$@";; esac'
    return program(tmp_path / "bin", "uname", body)


@pytest.mark.parametrize(("machine", "sentence"), [
    ("armv7l", "this is a 32-bit system (armv7l): onnxruntime has no wheels for it; "
     "install the 64-bit Raspberry Pi OS"),
    ("riscv64", "this processor is riscv64: clue-pi needs aarch64 (a Pi with the 64-bit Raspberry Pi OS)"),
])  # fmt: skip
def test_other_processors_are_refused(runtime: Path, tmp_path: Path, machine: str, sentence: str) -> None:
    done = install(runtime, "--prefix", tmp_path / "app", path=pi_of(tmp_path, machine))
    assert (done.returncode, done.stderr) == (2, f"install.sh: {sentence}\n")
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize(("version", "bits", "modules", "sentence"), [
    ("3.9", 64, 0, "is Python 3.9: clue-pi needs 3.11, 3.12 or 3.13"),
    ("3.14", 64, 0, "is Python 3.14: clue-pi needs 3.11, 3.12 or 3.13"),
    ("3.12", 32, 0, "is a 32-bit program on a 64-bit kernel: install the 64-bit Raspberry Pi OS"),
    ("3.13", 64, 1, "has no venv module: sudo apt install python3-venv, then run this again"),
])  # fmt: skip
def test_pythons_that_do_not_fit_are_refused(
    runtime: Path, tmp_path: Path, version: str, bits: int, modules: int, sentence: str
) -> None:
    body = f'case "$2" in *version*) echo {version};; *calcsize*) echo {bits};; *) exit {modules};; esac'
    python = program(tmp_path / "bin", "pythonX", body) / "pythonX"
    done = install(runtime, "--python", python, "--prefix", tmp_path / "app")
    assert (done.returncode, done.stderr) == (2, f"install.sh: {python} {sentence}\n")
    assert not (tmp_path / "app").exists()


def test_a_full_disk_is_told_before_anything_is_written(runtime: Path, tmp_path: Path) -> None:
    body = (
        "echo 'Filesystem 1048576-blocks Used Available Capacity Mounted'; echo '/dev/x 9000 8700 300 97% /'"
    )
    full = program(tmp_path / "bin", "df", body)
    done = install(runtime, "--prefix", tmp_path / "app", path=full)
    assert done.returncode == 2
    assert done.stderr == (
        f"install.sh: {tmp_path} has 300 MiB free, the installation needs 400: "
        "free some or use another --prefix\n"
    )
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize(("options", "sentence"), [
    (["--prefx"], "unknown option --prefx; see --help"),
    (["--prefix"], "--prefix needs a value; see --help"),
    (["--wheels", "/no/such"], "--wheels /no/such: there is no such folder; "
     "make it with --download on another computer"),
    (["--python", "no-such-python"],
     "no-such-python does not run: --python names a Python from 3.11 to 3.13"),
    (["--service"], "--service runs a bundle: start install.sh from the runtime/ folder of one"),
])  # fmt: skip
def test_options_that_are_wrong(runtime: Path, tmp_path: Path, options: list[str], sentence: str) -> None:
    before = [] if "--prefix" in options else ["--prefix", str(tmp_path / "app")]
    done = install(runtime, *before, *options)
    assert (done.returncode, done.stderr) == (2, f"install.sh: {sentence}\n")


def test_half_a_copy_is_refused(runtime: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runtime, tmp_path / "runtime"))
    (copy / "contract" / "schema.sql").unlink()
    done = install(copy, "--prefix", tmp_path / "app")
    assert done.returncode == 2
    assert (
        "schema.sql is missing: copy the whole bundle, install.sh stays in its runtime/ folder" in done.stderr
    )


@pytest.mark.full
def test_a_pip_that_fails_leaves_nothing(runtime: Path, tmp_path: Path) -> None:
    """Offline with an empty folder of wheels: the real pip refuses."""
    (tmp_path / "wheels").mkdir()
    done = install(
        runtime, "--prefix", tmp_path / "app", "--python", base_python(), "--wheels", tmp_path / "wheels"
    )
    assert done.returncode == 2
    assert done.stderr.endswith(
        "pip could not install the wheels (its message is above); nothing was changed\n"
    )
    assert [p.name for p in (tmp_path / "app").iterdir()] == [".lock"]


def base_python() -> str:
    """The Python that this one's environment was made of: it has pip for another."""
    return str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}")


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "pi_runtime" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_the_locked_versions_are_those_that_are_tested(name: str) -> None:
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    found = locked(name)
    for package, version in found.items():
        if package in constraints:
            assert version == constraints[package], package
    wanted = (ROOT / "pi_runtime" / name.replace(".lock", ".txt")).read_text().split()
    assert {line.split(">")[0] for line in wanted} <= found.keys()
    text = (ROOT / "pi_runtime" / name).read_text(encoding="utf-8")
    assert all("--hash=sha256:" in part for part in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:])


def test_the_scripts_are_clean() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck: apt install shellcheck")
    scripts = [ROOT / "pi_runtime" / "install.sh", *sorted((ROOT / "tests" / "aarch64").glob("*.sh"))]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.full
def test_the_whole_life_of_a_request_from_the_runtime_folder_alone(
    digits_bundle: Path, digits_data: Dataset, tmp_path: Path
) -> None:
    """A fresh environment by install.sh with pip's real wheels, without torch and without this checkout."""
    from PIL import Image

    bundle = Path(shutil.copytree(digits_bundle, tmp_path / "digits.clue"))
    app = tmp_path / "app"
    for number in range(2):
        done = install(bundle / "runtime", "--prefix", app, "--python", base_python())
        assert done.returncode == 0, done.stderr
        assert ("clue-pi is installed already" in done.stdout) == (number == 1)
    assert len(list(app.glob("venv-*"))) == 1
    python = app / "venv" / "bin" / "python"
    script = "import sys, pi_runtime, onnxruntime; print(pi_runtime.__file__); import torch"
    absent = subprocess.run([python, "-c", script], capture_output=True, text=True, cwd="/", env={})
    assert absent.returncode == 1
    assert absent.stdout.startswith(str(app.resolve()))
    assert "No module named 'torch'" in absent.stderr

    photos = tmp_path / "photos"
    photos.mkdir()
    for number, image in enumerate(digits_data.train.of_class(3).images):
        Image.fromarray(image[..., 0]).save(photos / f"{number}.png")

    def pi(command: str, *arguments: str | Path, code: int = 0) -> Any:
        words = [
            app / "venv/bin/clue-pi",
            command,
            *arguments,
            "--store",
            tmp_path / "store",
            "--threads",
            "1",
        ]
        done = subprocess.run([*map(str, words), "--json"], capture_output=True, text=True, cwd="/", env={})
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    assert all(row["ok"] for row in pi("check", bundle))
    (added,) = pi("add", bundle, photos, "--label", "3")
    assert (added["added"], added["duplicates"]) == (len(list(photos.iterdir())), 0)
    result = pi("forget", bundle, "--label", "3", "--seed", "7", "--quiet")
    assert result["status"] == "done"
    assert result["evidence"]["forget_accuracy_before"] > 80
    assert result["evidence"]["forget_accuracy_after"] <= 50
    answers = pi("predict", bundle, photos)
    forgotten = [row for row in answers if row["forgotten"]]
    assert len(forgotten) <= len(answers) / 2
    assert {row["class"] for row in forgotten} <= {"3"}
    records = pi("log", bundle)
    assert records[-1]["phase"] == "request"
    assert {record["status"] for record in records} == {"done"}
    pi("seal", bundle, "--request", str(result["id"]), "--yes")
    assert not [p for p in (tmp_path / "store" / "generations").iterdir() if p.name.startswith("000001")]


def test_the_readme_knows_every_command_and_option() -> None:
    from pi_runtime.cli import COMMANDS

    text = (ROOT / "pi_runtime" / "README.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert re.search(rf"clue-pi {command}\b|\*\*{command}\b", text), command
    usage = subprocess.run(
        ["bash", ROOT / "pi_runtime" / "install.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in re.findall(r"^  (--[a-z-]+)", usage, re.MULTILINE):
        assert option in text or option in ("--help", "--python"), option
