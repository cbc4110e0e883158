"""`clue-mobile push` to a real sshd on this computer."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sshd import Device, device
from typer.testing import CliRunner

from clue_mobile.cli import app
from clue_mobile.errors import ClueError
from clue_mobile.push import push, remote
from exporters.targets import pi5

ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests" / "pi_runtime"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle with the Pi's runtime/. Read only."""
    root = tmp_path_factory.mktemp("push") / "toy.clue"
    script = "import sys, toy, pathlib; toy.build(pathlib.Path(sys.argv[1]))"
    environment = {"PYTHONPATH": f"{ROOT}:{TOYS}", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(root)], check=True, env=environment)
    for name, content in pi5.payload():
        path = root / "runtime" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "toy.clue"))


@pytest.fixture(scope="module")
def sshd() -> Iterator[Device]:
    with device() as found:
        yield found


@pytest.fixture
def folder(sshd: Device) -> Iterator[str]:
    """A folder of this test's own in the home folder of the device."""
    name = "clue-push-test"
    shutil.rmtree(sshd.home / name, ignore_errors=True)
    yield name
    shutil.rmtree(sshd.home / name, ignore_errors=True)


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def send(sshd: Device, folder: str, bundle: Path, **more: Any) -> Any:
    return push(bundle, sshd.host, port=sshd.port, ssh_options=sshd.options, folder=folder, **more)


def test_a_bundle_arrives_whole_and_once(sshd: Device, folder: str, bundle: Path) -> None:
    told: list[tuple[int, int, str]] = []
    pushed = send(sshd, folder, bundle, progress=lambda *each: told.append(each))
    there = sshd.home / folder / "toy.clue"
    assert pushed.path == str(there)
    assert content(there) == content(bundle)
    assert pushed.sent == sum(map(len, content(bundle).values())) == told[-1][0] == told[-1][1]
    assert send(sshd, folder, bundle).sent == 0
    assert sorted(p.name for p in (sshd.home / folder).iterdir()) == [".toy.clue.lock", "toy.clue"]


def test_another_version_replaces_it_in_one_step(sshd: Device, folder: str, bundle: Path) -> None:
    send(sshd, folder, bundle)
    (bundle / "runtime" / "README.md").write_text("another one\n")
    (bundle / "runtime" / "requirements.txt").unlink()
    send(sshd, folder, bundle)
    assert content(sshd.home / folder / "toy.clue") == content(bundle)
    assert sorted(p.name for p in (sshd.home / folder).iterdir()) == [".toy.clue.lock", "toy.clue"]


def test_a_push_that_breaks_off_leaves_the_old_one_and_goes_on(
    sshd: Device, folder: str, bundle: Path
) -> None:
    send(sshd, folder, bundle)
    before = content(bundle)
    (bundle / "runtime" / "README.md").write_text("another one\n")
    total = sum(map(len, content(bundle).values()))

    def cut(done: int, total: int, name: str) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(sshd, folder, bundle, progress=cut)
    there = sshd.home / folder / "toy.clue"
    assert content(there) == before
    sent = send(sshd, folder, bundle).sent
    assert 0 < sent < total
    assert content(there) == content(bundle)
    assert not (sshd.home / folder / ".toy.clue.part").exists()


def test_the_installer_runs_there(
    sshd: Device, folder: str, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pushed = send(sshd, folder, bundle, install=["--dry-run"])
    assert pushed.installed == 0
    said = capfd.readouterr().err
    assert ": fit\n" in said
    assert "would make " in said


def command(sshd: Device, folder: str, bundle: Path, *more: str) -> Any:
    options = [part for option in sshd.options for part in ("--ssh-option", option)]
    common = [sshd.host, str(bundle), "--port", str(sshd.port), "--folder", folder, *options]
    return CliRunner().invoke(app, ["push", *common, *more])


def test_the_command(sshd: Device, folder: str, bundle: Path) -> None:
    result = command(sshd, folder, bundle, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "path": str(sshd.home / folder / "toy.clue"),
        "sent": sum(map(len, content(bundle).values())),
        "installed": None,
    }
    result = command(
        sshd, folder, bundle, "--install", "--install-option", "--python", "--install-option", "false"
    )
    assert result.exit_code == 1
    assert (
        result.stdout == f"{sshd.host}:{sshd.home / folder / 'toy.clue'}: 0.0 MiB sent, every file compared\n"
    )
    assert content(sshd.home / folder / "toy.clue") == content(bundle)


def test_what_the_device_refuses(sshd: Device, folder: str, bundle: Path) -> None:
    other = sshd.home / folder / "toy.clue"
    other.mkdir(parents=True)
    (other / "letter.txt").write_text("mine")
    os.chown(sshd.home / folder, sshd.home.stat().st_uid, sshd.home.stat().st_gid)
    with pytest.raises(
        ClueError, match=r"toy\.clue exists and is no bundle: remove it, or give another --folder"
    ):
        send(sshd, folder, bundle)
    assert (other / "letter.txt").read_text() == "mine"


def test_no_connection_is_one_sentence(bundle: Path) -> None:
    with pytest.raises(ClueError, match=r"nobody@127\.0\.0\.1 did not answer: ssh ended with 255"):
        push(bundle, "nobody@127.0.0.1", port=9, ssh_options=("BatchMode=yes",))
    with pytest.raises(ClueError, match="'-oProxyCommand=x' is no host"):
        push(bundle, "-oProxyCommand=x")


def test_a_damaged_bundle_is_not_sent(bundle: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ClueError, match=r"weights\.safetensors"):
        push(bundle, "nobody@127.0.0.1", port=9)


# --- the device's side alone


def order(tmp_path: Path, **changes: Any) -> Any:
    return {"name": "b", "folder": str(tmp_path), "files": [["manifest.json", "0" * 64, 3]]} | changes


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_the_device_takes_no_path_out_of_the_bundle(tmp_path: Path, name: str) -> None:
    for wrong in ({"files": [[name, "0" * 64, 3]]}, {"name": name}):
        with pytest.raises(remote.Refused, match="is no path inside a bundle"):
            remote.place(order(tmp_path, **wrong), io.BytesIO(b"abc"))
    assert list(tmp_path.iterdir()) == []


def test_the_device_keeps_nothing_that_arrives_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(remote.Refused, match="arrived with another SHA-256"):
        remote.place(order(tmp_path), io.BytesIO(b"abc"))
    with pytest.raises(remote.Refused, match=r"the connection ended in manifest\.json"):
        remote.place(order(tmp_path), io.BytesIO(b"ab"))
    assert not (tmp_path / "b").exists()
    assert capsys.readouterr().out.count('"need": ["manifest.json"]') == 2


def test_the_device_s_swap_where_two_folders_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    monkeypatch.setattr(remote, "_exchanged", lambda one, other: False)
    remote.swap(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
